import { describe, expect, test } from 'vitest'
import type { Camera, Purpose } from './api/types'
import { declared, emptyPurpose, isReferenceMissing, purposesFor } from './purposes'

function purpose(code: string, change: Partial<Purpose> = {}): Purpose {
  return {
    code,
    text: { zh: code, en: code },
    needs_reference: false,
    department_id: null,
    actions: null,
    max_seconds: null,
    enabled: true,
    ...change,
  }
}

const patrol = purpose('patrol', { needs_reference: true, actions: ['live:view'] })
const audit = purpose('audit', { actions: ['audit:read'] })
const any = purpose('any')
const all = [patrol, audit, any]

function camera(purposes: string[] | null): Camera {
  return { sharing: { purposes } } as Camera
}

describe('purposesFor', () => {
  test('offers what serves for the action', () => {
    expect(purposesFor(all, 'live:view', null)).toEqual({ offered: [patrol, any], withheld: [] })
    expect(purposesFor(all, 'audit:read', null).offered).toEqual([audit, any])
  })

  test('withholds what the department does not allow, and names no other', () => {
    expect(purposesFor(all, 'live:view', camera(null)).withheld).toEqual([])
    expect(purposesFor(all, 'live:view', camera(['any', 'audit']))).toEqual({ offered: [any], withheld: [patrol] })
    expect(purposesFor(all, 'live:view', camera([]))).toEqual({ offered: [], withheld: [patrol, any] })
  })
})

describe('declared', () => {
  test('needs a purpose of the list, and its reference', () => {
    expect(declared(emptyPurpose(), all)).toBeNull()
    expect(declared({ code: 'gone', reference: 'x', note: '' }, all)).toBeNull()
    const draft = { code: 'patrol', reference: '  ', note: '' }
    expect(isReferenceMissing(draft, all)).toBe(true)
    expect(declared(draft, all)).toBeNull()
  })

  test('sends what was asked for, and nothing that a purpose chosen before had asked for', () => {
    const draft = { code: 'patrol', reference: ' roster 7 ', note: ' gate ' }
    expect(declared(draft, all)).toEqual({ code: 'patrol', reference: 'roster 7', note: 'gate' })
    expect(declared({ ...draft, code: 'any', note: ' ' }, all)).toEqual({ code: 'any', reference: null, note: null })
  })
})
