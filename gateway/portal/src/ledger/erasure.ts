/** What of a record is about a person, hence can be forgotten while the proof of the record stays good. */

import type { RecordEntry, SensitiveField } from '../api/oversight-types'

export const SENSITIVE: SensitiveField[] = ['actor_name', 'content', 'purpose_reference', 'purpose_note', 'remote']

/** The fields that a record still says. */
export function erasable({ record, erased }: RecordEntry): SensitiveField[] {
  return SENSITIVE.filter((field) => record[field] !== null && !erased.includes(field))
}

/** The record as the gateway shows it from now on. */
export function withErased(entry: RecordEntry, fields: readonly SensitiveField[]): RecordEntry {
  const record = { ...entry.record }
  for (const field of fields) {
    if (field === 'content') record.content = ''
    else record[field] = null
  }
  return { ...entry, record, erased: [...entry.erased, ...fields] }
}

/** The number of a record as somebody writes it, or null. */
export function seqOf(text: string): number | null {
  const seq = /^\d+$/.test(text.trim()) ? Number(text) : null
  return Number.isSafeInteger(seq) ? seq : null
}
