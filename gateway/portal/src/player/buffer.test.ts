import { describe, expect, test } from 'vitest'
import {
  CATCH_UP_RATE,
  KEPT_PLAYED_SECONDS,
  MAX_LAG_SECONDS,
  MAX_PLAYED_SECONDS,
  TARGET_LAG_SECONDS,
  expired,
  pace,
} from './buffer'

describe('pace', () => {
  test('waits while nothing is buffered', () => {
    expect(pace([], 0)).toEqual({ seekTo: null, playbackRate: 1 })
  })

  test('enters a stream whose time does not start at zero', () => {
    expect(pace([{ start: 5000, end: 5000.08 }], 0).seekTo).toBe(5000)
    expect(pace([{ start: 5000, end: 5002 }], 0).seekTo).toBe(5002 - TARGET_LAG_SECONDS)
  })

  test('plays on up to the largest lag, and jumps beyond it', () => {
    expect(pace([{ start: 0, end: 10 }], 10 - MAX_LAG_SECONDS).seekTo).toBeNull()
    expect(pace([{ start: 0, end: 10 }], 9.99 - MAX_LAG_SECONDS).seekTo).toBe(10 - TARGET_LAG_SECONDS)
  })

  test('catches up gently in between', () => {
    expect(pace([{ start: 0, end: 10 }], 9).playbackRate).toBe(CATCH_UP_RATE)
    expect(pace([{ start: 0, end: 10 }], 9.5).playbackRate).toBe(1)
  })

  test('leaves a range that the stream has left', () => {
    const afterAGap = [
      { start: 0, end: 4 },
      { start: 4.5, end: 5 },
    ]
    expect(pace(afterAGap, 4)).toEqual({ seekTo: 5 - TARGET_LAG_SECONDS, playbackRate: 1 })
  })

  test('comes back if the position lies beyond the newest picture', () => {
    expect(pace([{ start: 0, end: 3 }], 8).seekTo).toBe(3 - TARGET_LAG_SECONDS)
  })
})

describe('expired', () => {
  test('keeps what was just shown', () => {
    expect(expired([], 5)).toBeNull()
    expect(expired([{ start: 0, end: 12 }], MAX_PLAYED_SECONDS)).toBeNull()
  })

  test('drops the old, and never the picture being shown', () => {
    const position = MAX_PLAYED_SECONDS + 0.01
    expect(expired([{ start: 0, end: 12 }], position)).toEqual({ start: 0, end: position - KEPT_PLAYED_SECONDS })
  })

  test('holds less than fifteen seconds in all', () => {
    expect(MAX_PLAYED_SECONDS + MAX_LAG_SECONDS).toBeLessThan(15)
  })
})
