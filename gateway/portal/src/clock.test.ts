import { afterEach, expect, test, vi } from 'vitest'
import { serverClock } from './clock'

const AT = Date.parse('2026-01-01T00:00:00Z')

afterEach(() => {
  serverClock.note(new Date().toUTCString())
  vi.useRealTimers()
})

test("counts in the gateway's time, however wrong the viewer's clock is", () => {
  vi.useFakeTimers({ now: AT })
  serverClock.note(new Date(AT + 600_000).toUTCString())
  expect(serverClock.secondsUntil('2026-01-01T00:11:00Z')).toBeCloseTo(59.5, 3)
})

test('takes no offence at an answer without a date, nor at a second of rounding', () => {
  vi.useFakeTimers({ now: AT })
  serverClock.note(new Date(AT).toUTCString())
  const before = serverClock.now()
  serverClock.note(null)
  serverClock.note('soon')
  serverClock.note(new Date(AT + 400).toUTCString())
  expect(serverClock.now()).toBe(before)
})
