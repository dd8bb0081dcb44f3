import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { checkInclusion, rootFrom } from './proof'

/** RFC 9162 §2.1.1, from its words: another way than the one under test. */
function tree(leaves: Buffer[]): Buffer {
  if (leaves.length === 1) return leaves[0]!
  const split = 2 ** Math.ceil(Math.log2(leaves.length) - 1)
  return parent(tree(leaves.slice(0, split)), tree(leaves.slice(split)))
}

function parent(left: Buffer, right: Buffer): Buffer {
  return createHash('sha256').update(Buffer.concat([Buffer.from([1]), left, right])).digest()
}

function path(index: number, leaves: Buffer[]): Buffer[] {
  if (leaves.length === 1) return []
  const split = 2 ** Math.ceil(Math.log2(leaves.length) - 1)
  return index < split
    ? [...path(index, leaves.slice(0, split)), tree(leaves.slice(split))]
    : [...path(index - split, leaves.slice(split)), tree(leaves.slice(0, split))]
}

const LEAVES = Array.from({ length: 11 }, (_, n) => createHash('sha256').update(`\0${n}`).digest())
const hex = (hashes: Buffer[]): string[] => hashes.map((hash) => hash.toString('hex'))

describe('an inclusion proof', () => {
  it('leads from every record to the root of every tree', async () => {
    for (let size = 1; size <= LEAVES.length; size++) {
      const leaves = LEAVES.slice(0, size)
      for (let index = 0; index < size; index++) {
        const root = await rootFrom(leaves[index]!.toString('hex'), index, size, hex(path(index, leaves)))
        expect(Buffer.from(root!)).toEqual(tree(leaves))
      }
    }
  })

  it('leads nowhere if it is too short, too long, of no hashes or of no such record', async () => {
    const leaf = LEAVES[3]!.toString('hex')
    const good = hex(path(3, LEAVES))
    expect(await rootFrom(leaf, 3, 11, good.slice(1))).toBeNull()
    expect(await rootFrom(leaf, 3, 11, [...good, good[0]!])).toBeNull()
    expect(await rootFrom(leaf, 3, 11, ['xx', ...good.slice(1)])).toBeNull()
    expect(await rootFrom(leaf, 11, 11, good)).toBeNull()
  })

  it('is good only for the record that is shown and the head that is signed', async () => {
    const leaf_hash = LEAVES[3]!.toString('hex')
    const head = { origin: '', size: 11, previous_size: 0, root: tree(LEAVES).toString('base64'), time: 0, signature: '' }
    const answer = { seq: 3, tree_size: 11, leaf_hash, path: hex(path(3, LEAVES)), head }
    expect(await checkInclusion(answer, leaf_hash)).toBe('good')
    expect(await checkInclusion(answer, LEAVES[4]!.toString('hex'))).toBe('bad')
    expect(await checkInclusion({ ...answer, seq: 4 }, leaf_hash)).toBe('bad')
    expect(await checkInclusion({ ...answer, head: { ...head, root: LEAVES[0]!.toString('base64') } }, leaf_hash)).toBe('bad')
  })
})
