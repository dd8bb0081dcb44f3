/** Checking in the browser that a record is in a signed tree (RFC 9162 §2.1.3.2). */

import type { InclusionAnswer } from '../api/oversight-types'

export type ProofResult = 'good' | 'bad' | 'unchecked'

const HASH_HEX = /^[0-9a-f]{64}$/

/** `leafHash`: of the record that is shown. Unchecked where the page has no WebCrypto, as over plain HTTP. */
export async function checkInclusion(answer: InclusionAnswer, leafHash: string): Promise<ProofResult> {
  if (globalThis.crypto?.subtle === undefined) return 'unchecked'
  const { seq, tree_size: size, path, head } = answer
  if (answer.leaf_hash !== leafHash || head.size !== size) return 'bad'
  const root = await rootFrom(leafHash, seq, size, path)
  return root !== null && base64Of(root) === head.root ? 'good' : 'bad'
}

/** The root that a proof leads to, or null if it does not fit a tree of that size. Hashes in hexadecimal. */
export async function rootFrom(
  leafHash: string,
  index: number,
  size: number,
  path: readonly string[],
): Promise<Uint8Array<ArrayBuffer> | null> {
  if (index >= size || ![leafHash, ...path].every((hash) => HASH_HEX.test(hash))) return null
  let node = bytesOf(leafHash)
  // Sizes are beyond 32 bits, which is what shifts would cut to.
  const half = (value: number): number => Math.floor(value / 2)
  let [at, last] = [index, size - 1]
  for (const sibling of path.map(bytesOf)) {
    if (last === 0) return null
    if (at % 2 === 1 || at === last) {
      node = await hashChildren(sibling, node)
      while (at % 2 === 0 && at !== 0) [at, last] = [half(at), half(last)]
    } else {
      node = await hashChildren(node, sibling)
    }
    ;[at, last] = [half(at), half(last)]
  }
  return last === 0 ? node : null
}

async function hashChildren(
  left: Uint8Array<ArrayBuffer>,
  right: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array([1, ...left, ...right])))
}

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array((hex.match(/../g) ?? []).map((pair) => Number.parseInt(pair, 16)))
}

function base64Of(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
}
