/** Something asked of the gateway from a page: that it is on its way, and the problem if it failed. */

import { type Ref, ref } from 'vue'
import { type Problem, problemOf } from './api/problem'

export interface Attempts {
  isBusy: Ref<boolean>
  problem: Ref<Problem | null>
  /** Whether it went well. */
  attempt: (act: () => Promise<void>) => Promise<boolean>
}

export function useAttempts(): Attempts {
  const isBusy = ref(false)
  const problem = ref<Problem | null>(null)

  async function attempt(act: () => Promise<void>): Promise<boolean> {
    isBusy.value = true
    problem.value = null
    try {
      await act()
    } catch (error) {
      problem.value = problemOf(error)
    }
    isBusy.value = false
    return problem.value === null
  }

  return { isBusy, problem, attempt }
}
