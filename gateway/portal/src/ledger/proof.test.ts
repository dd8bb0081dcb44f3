import { beforeAll, describe, expect, it } from 'vitest'
import { checkInclusion, rootFrom } from './proof'

/** RFC 9162 §2.1.1 and §2.1.3.1, from their words: another way than the one under test. Hashes in hexadecimal. */
async function tree(leaves: string[]): Promise<string> {
  if (leaves.length === 1) return leaves[0]!
  const split = 2 ** Math.ceil(Math.log2(leaves.length) - 1)
  return digest(`01${await tree(leaves.slice(0, split))}${await tree(leaves.slice(split))}`)
}

async function path(index: number, leaves: string[]): Promise<string[]> {
  if (leaves.length === 1) return []
  const split = 2 ** Math.ceil(Math.log2(leaves.length) - 1)
  return index < split
    ? [...(await path(index, leaves.slice(0, split))), await tree(leaves.slice(split))]
    : [...(await path(index - split, leaves.slice(split))), await tree(leaves.slice(0, split))]
}

async function digest(hex: string): Promise<string> {
  const bytes = new Uint8Array((hex.match(/../g) ?? []).map((pair) => Number.parseInt(pair, 16)))
  return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))
}

function toHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

function toBase64(hex: string): string {
  return btoa((hex.match(/../g) ?? []).map((pair) => String.fromCharCode(Number.parseInt(pair, 16))).join(''))
}

let LEAVES: string[] = []
beforeAll(async () => {
  LEAVES = await Promise.all(Array.from({ length: 11 }, (_, n) => digest(`00${n.toString(16).padStart(2, '0')}`)))
})

describe('an inclusion proof', () => {
  it('leads from every record to the root of every tree', async () => {
    for (let size = 1; size <= LEAVES.length; size++) {
      const leaves = LEAVES.slice(0, size)
      for (let index = 0; index < size; index++) {
        const root = await rootFrom(leaves[index]!, index, size, await path(index, leaves))
        expect(toHex(root!)).toBe(await tree(leaves))
      }
    }
  })

  it('leads nowhere if it is too short, too long, of no hashes or of no such record', async () => {
    const leaf = LEAVES[3]!
    const good = await path(3, LEAVES)
    expect(await rootFrom(leaf, 3, 11, good.slice(1))).toBeNull()
    expect(await rootFrom(leaf, 3, 11, [...good, good[0]!])).toBeNull()
    expect(await rootFrom(leaf, 3, 11, ['xx', ...good.slice(1)])).toBeNull()
    expect(await rootFrom(leaf, 11, 11, good)).toBeNull()
  })

  it('is good only for the record that is shown and the head that is signed', async () => {
    const leaf_hash = LEAVES[3]!
    const root = toBase64(await tree(LEAVES))
    const head = { origin: '', size: 11, previous_size: 0, root, time: 0, signature: '' }
    const answer = { seq: 3, tree_size: 11, leaf_hash, path: await path(3, LEAVES), head }
    expect(await checkInclusion(answer, leaf_hash)).toBe('good')
    expect(await checkInclusion(answer, LEAVES[4]!)).toBe('bad')
    expect(await checkInclusion({ ...answer, seq: 4 }, leaf_hash)).toBe('bad')
    const other = { ...head, root: toBase64(LEAVES[0]!) }
    expect(await checkInclusion({ ...answer, head: other }, leaf_hash)).toBe('bad')
  })
})
