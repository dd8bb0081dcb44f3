/** Which key signs for which of the ledger's records. */

import type { KeyEntry, KeyList } from '../api/oversight-types'

/** Heads that end with the records `from` to `to`, by number from 0; what is null has no bound. `since`, `until`: when it was handed over to and from. */
export interface KeySpan {
  publicKey: string
  from: number
  to: number | null
  since: Date | null
  until: Date | null
}

interface Change {
  publicKey: string
  after: number
  at: Date | null
}

/** The key in force first, the ledger's first key last. */
export function keySpans({ public_key: first, items }: KeyList): KeySpan[] {
  const keys: Change[] = [{ publicKey: first, after: 0, at: null }, ...items.map(changed)]
  const spans = keys.map(({ publicKey, after, at }, index) => {
    const next = keys[index + 1]
    return { publicKey, from: after, to: next ? next.after - 1 : null, since: at, until: next?.at ?? null }
  })
  return spans.reverse()
}

/** The head that the key before signed last: it was handed over then. */
function changed({ public_key: publicKey, after_size: after, head }: KeyEntry): Change {
  return { publicKey, after, at: new Date(head.time / 1000) }
}
