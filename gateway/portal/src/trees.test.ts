import { expect, test } from 'vitest'
import { treeOf } from './trees'

const entry = (id: string, parent_id: string | null) => ({ id, name: `name of ${id}`, parent_id })

test('puts each under its parent, in the order given', () => {
  const tree = treeOf([entry('b', 'a'), entry('a', null), entry('c', 'a'), entry('d', 'b')])
  expect(tree).toEqual([
    {
      value: 'a',
      label: 'name of a',
      children: [
        { value: 'b', label: 'name of b', children: [{ value: 'd', label: 'name of d', children: [] }] },
        { value: 'c', label: 'name of c', children: [] },
      ],
    },
  ])
})

test('keeps what has no known parent', () => {
  expect(treeOf([entry('a', 'gone'), entry('b', null)]).map((node) => node.value)).toEqual(['a', 'b'])
  expect(treeOf([])).toEqual([])
})
