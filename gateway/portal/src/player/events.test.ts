import { expect, test } from 'vitest'
import type { AnalysisEvent } from '../api/types'
import { withEvent } from './events'

function event(id: string, second: number, ended = false): AnalysisEvent {
  const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, seconds)).toISOString()
  return {
    id,
    camera: 'c',
    kind: 'motion',
    started_at: at(second),
    ended_at: ended ? at(second + 1) : null,
    region: null,
    score: 1,
  }
}

test('keeps the newest first, each event once, in its latest form', () => {
  const events = [event('a', 1), event('b', 3), event('c', 2), event('b', 3, true)].reduce(withEvent, [])
  expect(events.map((one) => one.id)).toEqual(['b', 'c', 'a'])
  expect(events[0]?.ended_at).not.toBeNull()
})

test('is bounded', () => {
  const events = Array.from({ length: 100 }, (_, index) => event(String(index), index)).reduce(withEvent, [])
  expect(events).toHaveLength(20)
  expect(events[0]?.id).toBe('99')
})
