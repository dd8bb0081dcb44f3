/** A list that the gateway answers in pages. */

import { ref, shallowRef } from 'vue'
import { type Problem, problemOf } from './api/problem'
import type { Page } from './api/types'

/**
 * `ask`: for a page by its token, for the first one by null. `prepare`: what a view needs before its list; it
 * comes first in `begin`, and again when that is tried again.
 */
export function usePages<Item>(ask: (token: string | null) => Promise<Page<Item>>, prepare?: () => Promise<void>) {
  const items = shallowRef<Item[] | null>(null)
  const nextPageToken = ref<string | null>(null)
  const problem = ref<Problem | null>(null)
  const isLoadingMore = ref(false)
  /** Counts the questions asked, so that a late answer to an old one is not taken for the new one's. */
  let asked = 0

  async function show(get: () => Promise<Page<Item>>, shown: Item[]): Promise<void> {
    const mine = ++asked
    problem.value = null
    try {
      const page = await get()
      if (mine !== asked) return
      items.value = [...shown, ...page.items]
      nextPageToken.value = page.next_page_token
    } catch (error) {
      if (mine === asked) problem.value = problemOf(error)
    }
  }

  function load(): Promise<void> {
    return show(() => ask(null), [])
  }

  function begin(): Promise<void> {
    return show(async () => {
      await prepare?.()
      return await ask(null)
    }, [])
  }

  async function loadMore(): Promise<void> {
    isLoadingMore.value = true
    await show(() => ask(nextPageToken.value), items.value ?? [])
    isLoadingMore.value = false
  }

  return { items, nextPageToken, problem, isLoadingMore, begin, load, loadMore }
}
