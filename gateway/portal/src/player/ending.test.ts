import { expect, test } from 'vitest'
import type { Standing } from '../api/types'
import { isFinal, toldBy } from './ending'

const ended: Standing = { id: 's', state: 'ended', end_reason: 'revoked', detail: 'grant_expired', ended_by: '公安局' }

test('says what the gateway says of a session that is over', () => {
  expect(toldBy(ended)).toEqual({ kind: 'said', reason: 'revoked', detail: 'grant_expired', by: '公安局' })
  expect(toldBy({ ...ended, detail: null, ended_by: null })).toEqual({
    kind: 'said',
    reason: 'revoked',
    detail: '',
    by: '',
  })
})

test('calls lost what goes on without this page', () => {
  expect(toldBy({ ...ended, state: 'lost', end_reason: null })).toEqual({ kind: 'lost' })
})

test('asks again after a fault, and never after somebody or some rule ended it', () => {
  for (const reason of ['revoked', 'preempted', 'disputed', 'unconfirmed', 'duty_over', 'logged_in_elsewhere']) {
    expect(isFinal(reason)).toBe(true)
  }
  for (const reason of ['camera_gone', 'worker_lost', 'draining', 'lease_lost', 'slow']) {
    expect(isFinal(reason)).toBe(false)
  }
})
