import { describe, expect, it } from 'vitest'
import { keySpans } from './keys'

const head = { origin: '', size: 0, previous_size: 0, root: '', signature: '' }
const at = (day: number): Date => new Date(Date.UTC(2026, 0, day))
const item = (public_key: string, after_size: number, day: number) => ({
  public_key,
  after_size,
  head: { ...head, size: after_size, time: at(day).getTime() * 1000 },
})

describe('signing keys', () => {
  it('sign everything while there is one', () => {
    expect(keySpans({ public_key: 'a', items: [] })).toEqual([
      { publicKey: 'a', from: 0, to: null, since: null, until: null },
    ])
  })

  it('follow each other without a gap, the one in force first', () => {
    expect(keySpans({ public_key: 'a', items: [item('b', 10, 5), item('c', 25, 9)] })).toEqual([
      { publicKey: 'c', from: 25, to: null, since: at(9), until: null },
      { publicKey: 'b', from: 10, to: 24, since: at(5), until: at(9) },
      { publicKey: 'a', from: 0, to: 9, since: null, until: at(5) },
    ])
  })
})
