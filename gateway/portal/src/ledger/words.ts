/** How records and ages read in the reader's language. */

import { i18n, sentence } from '../i18n'

const { t } = i18n.global

const UNITS: [seconds: number, name: 'days' | 'hours' | 'minutes'][] = [
  [86_400, 'days'],
  [3_600, 'hours'],
  [60, 'minutes'],
]

/** "3 minutes": the largest unit alone, rounded down. */
export function ageText(seconds: number): string {
  const [size, name] = UNITS.find(([length]) => seconds >= length) ?? ([1, 'seconds'] as const)
  const n = Math.max(0, Math.floor(seconds / size))
  return t(`ledger.ages.${name}`, { n }, n)
}

/** A kind of record; one that a newer gateway knows keeps its code. */
export function kindText(kind: string): string {
  return sentence('ledger.kinds', kind) ?? kind
}
