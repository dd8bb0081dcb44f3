import { describe, expect, it } from 'vitest'
import type { RecordEntry } from '../api/oversight-types'
import { erasable, seqOf, withErased } from './erasure'

const ENTRY: RecordEntry = {
  seq: 7,
  at: '2026-01-05T08:00:00Z',
  leaf_hash: '00',
  record: {
    kind: 'login',
    outcome: 'ok',
    content: 'log in',
    actor_id: 'a',
    actor_name: '王建国',
    unit_id: null,
    unit_name: null,
    purpose_code: null,
    purpose_reference: null,
    purpose_note: null,
    action: null,
    resource: null,
    camera_id: null,
    owner_id: null,
    camera_ids: [],
    owner_ids: [],
    session_id: null,
    reason: null,
    rule: null,
    revision: null,
    remote: '10.0.0.1',
    request_id: null,
    detail: {},
  },
  erased: [],
}

describe('an erasure', () => {
  it('can take what the record says about a person, once', () => {
    expect(erasable(ENTRY)).toEqual(['actor_name', 'content', 'remote'])
    const left = withErased(ENTRY, ['actor_name', 'content'])
    expect(left.record).toEqual({ ...ENTRY.record, actor_name: null, content: '' })
    expect(left.erased).toEqual(['actor_name', 'content'])
    expect(erasable(left)).toEqual(['remote'])
    expect(ENTRY.record.actor_name).toBe('王建国')
  })

  it('is of a record whose number is one', () => {
    expect(seqOf(' 12 ')).toBe(12)
    expect(seqOf('0')).toBe(0)
    for (const text of ['', ' ', '-1', '1.5', '1e3', '0x10', 'seven', '9007199254740992']) expect(seqOf(text)).toBeNull()
    expect(seqOf('9007199254740991')).toBe(9007199254740991)
  })
})
