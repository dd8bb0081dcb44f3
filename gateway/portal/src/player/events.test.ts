import { expect, test } from 'vitest'
import type { AnalysisEvent } from '../api/types'
import { withEvent } from './events'

function event(id: number, second: number, ended = false): AnalysisEvent {
  const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, seconds)).toISOString()
  return {
    id,
    camera: 'c',
    kind: 'motion',
    started_at: at(second),
    ended_at: ended ? at(second + 1) : null,
    region: [],
    score: 1,
  }
}

test('keeps the newest first, each event once, in its latest form', () => {
  const events = [event(1, 1), event(2, 3), event(3, 2), event(2, 3, true)].reduce(withEvent, [])
  expect(events.map((one) => one.id)).toEqual([2, 3, 1])
  expect(events[0]?.ended_at).not.toBeNull()
})

test('is bounded', () => {
  const events = Array.from({ length: 100 }, (_, index) => event(index, index)).reduce(withEvent, [])
  expect(events).toHaveLength(20)
  expect(events[0]?.id).toBe(99)
})
