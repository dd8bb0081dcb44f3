import { expect, test } from 'vitest'
import { ASKING_SECONDS, secondsToConfirm } from './confirmation'

test('asks in the last two minutes, and not after the end', () => {
  expect(secondsToConfirm(null)).toBeNull()
  expect(secondsToConfirm(ASKING_SECONDS + 0.1)).toBeNull()
  expect(secondsToConfirm(ASKING_SECONDS)).toBe(ASKING_SECONDS)
  expect(secondsToConfirm(0.2)).toBe(1)
  expect(secondsToConfirm(0)).toBeNull()
  expect(secondsToConfirm(-1)).toBeNull()
})
