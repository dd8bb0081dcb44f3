import { expect, test } from 'vitest'
import { unreachable } from './api/problem'
import type { Page } from './api/types'
import { usePages } from './paging'

const FIRST: Page<number> = { items: [1, 2], next_page_token: 'b' }
const LAST: Page<number> = { items: [3], next_page_token: null }

function late<Value>() {
  let answer: (value: Value) => void = () => {}
  let refuse: (error: Error) => void = () => {}
  const promise = new Promise<Value>((resolve, reject) => {
    answer = resolve
    refuse = reject
  })
  return { promise, answer, refuse }
}

test('pages follow each other; the first one anew takes the place of all', async () => {
  const tokens: (string | null)[] = []
  const pages = usePages<number>(async (token) => {
    tokens.push(token)
    return token === null ? FIRST : LAST
  })
  expect(pages.items.value).toBeNull()
  await pages.load()
  expect([pages.items.value, pages.nextPageToken.value]).toEqual([[1, 2], 'b'])
  await pages.loadMore()
  expect([pages.items.value, pages.nextPageToken.value]).toEqual([[1, 2, 3], null])
  await pages.load()
  expect([pages.items.value, pages.nextPageToken.value]).toEqual([[1, 2], 'b'])
  expect(tokens).toEqual([null, 'b', null])
})

test('a late answer to an old question changes nothing, nor does its failure', async () => {
  const [more, old] = [late<Page<number>>(), late<Page<number>>()]
  const answers = [FIRST, more.promise, old.promise, { items: [7], next_page_token: null }]
  const pages = usePages<number>(async () => answers.shift()!)
  await pages.load()
  const waiting = [pages.loadMore(), pages.load()]
  expect(pages.isLoadingMore.value).toBe(true)
  await pages.load()
  more.answer(LAST)
  old.refuse(unreachable())
  await Promise.all(waiting)
  expect([pages.items.value, pages.nextPageToken.value, pages.problem.value]).toEqual([[7], null, null])
  expect(pages.isLoadingMore.value).toBe(false)
})

test('what fails before the list is told, and is tried again with it', async () => {
  let isReady = false
  const pages = usePages(
    async () => FIRST,
    async () => {
      if (!isReady) throw unreachable()
    },
  )
  await pages.begin()
  expect([pages.items.value, pages.problem.value?.code]).toEqual([null, 'gateway_unreachable'])
  isReady = true
  await pages.begin()
  expect([pages.items.value, pages.problem.value]).toEqual([[1, 2], null])
})

test('a page that fails leaves those before it', async () => {
  const pages = usePages<number>(async (token) => {
    if (token !== null) throw unreachable()
    return FIRST
  })
  await pages.load()
  await pages.loadMore()
  expect([pages.items.value, pages.nextPageToken.value]).toEqual([[1, 2], 'b'])
  expect(pages.problem.value?.code).toBe('gateway_unreachable')
  expect(pages.isLoadingMore.value).toBe(false)
})
