import { expect, test } from 'vitest'
import { type GrantDraft, bodyOf, emptyDraft, mistakesOf } from './draft'

const draft = (changed: Partial<GrantDraft> = {}): GrantDraft => ({
  ...emptyDraft({ kind: 'camera', id: 'gate' }, 'Asia/Shanghai'),
  subject: { kind: 'user', id: 'ann' },
  ...changed,
})
const hours = { days: [5, 1], start: '22:00', end: '06:00' }

test('an empty form lacks a subject and an object', () => {
  expect([...mistakesOf(emptyDraft(null, 'UTC'))]).toEqual(['subject', 'object'])
  expect(mistakesOf(draft()).size).toBe(0)
})

test.each<[Partial<GrantDraft>, string]>([
  [{ actions: [] }, 'actions'],
  [{ subject: { kind: 'user', id: '  ' } }, 'subject'],
  [{ validFrom: new Date(2), validTo: new Date(2) }, 'validity'],
  [{ windows: [{ ...hours, days: [] }] }, 'windows'],
  [{ windows: [{ ...hours, start: '24:00' }] }, 'windows'],
  [{ windows: [{ ...hours, end: '24:01' }] }, 'windows'],
  [{ windows: [{ ...hours, end: '' }] }, 'windows'],
  [{ windows: [hours], zone: ' ' }, 'windows'],
])('%j is a mistake of its %s', (changed, field) => {
  expect([...mistakesOf(draft(changed))]).toEqual([field])
})

test('sends what is meant, and nothing for what is not limited', () => {
  expect(bodyOf(draft())).toEqual({
    subject: { kind: 'user', id: 'ann' },
    object: { kind: 'camera', id: 'gate' },
    actions: ['live:view'],
    effect: 'allow',
    valid_from: null,
    valid_to: null,
    schedule: null,
    purposes: null,
    obligations: { watermark: 'visible', max_duration_seconds: null, max_concurrent: null },
    reason: '',
  })
  const body = bodyOf(
    draft({
      windows: [{ ...hours, end: '24:00' }],
      validTo: new Date(Date.UTC(2030, 0, 1)),
      purposes: ['patrol'],
      maxMinutes: 30,
      maxConcurrent: 2,
      reason: ' joint patrol ',
    }),
  )
  expect(body.schedule).toEqual({
    zone: 'Asia/Shanghai',
    windows: [{ days: [1, 5], start: '22:00', end: '24:00' }],
  })
  expect(body.valid_to).toBe('2030-01-01T00:00:00.000Z')
  expect(body.purposes).toEqual(['patrol'])
  expect(body.obligations).toEqual({ watermark: 'visible', max_duration_seconds: 1800, max_concurrent: 2 })
  expect(body.reason).toBe('joint patrol')
})

test('a denial obliges nobody to anything', () => {
  expect(bodyOf(draft({ effect: 'deny', maxMinutes: 5 })).obligations).toEqual({})
})
