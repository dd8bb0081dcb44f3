import { expect, test } from 'vitest'
import { narrowedBy, noFilter, placeOnEarth } from './catalogue'

test('counts the filters and not the words', () => {
  expect(narrowedBy(noFilter('gate'))).toBe(0)
  expect(narrowedBy({ ...noFilter(), network: 'government-extranet', point_class: 1 })).toBe(2)
})

test('writes coordinates with their hemispheres', () => {
  expect(placeOnEarth(31.230416, 121.4737)).toBe('31.230416° N, 121.473700° E')
  expect(placeOnEarth(-33.5, -70)).toBe('33.500000° S, 70.000000° W')
})
