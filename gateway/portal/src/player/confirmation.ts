/** Whether somebody still looks: asked for shortly before the gateway would end the picture. */

import { type Ref, computed, onBeforeUnmount, onMounted, ref } from 'vue'
import { type Problem, problemOf } from '../api/problem'
import { serverClock } from '../clock'

/** How long before the end the question is put. */
export const ASKING_SECONDS = 120
const TICK_MILLISECONDS = 500

/** Whole seconds left to answer, or null while nobody has to. */
export function secondsToConfirm(left: number | null): number | null {
  return left === null || left > ASKING_SECONDS || left <= 0 ? null : Math.ceil(left)
}

export interface Confirmation {
  secondsLeft: Ref<number | null>
  isConfirming: Ref<boolean>
  problem: Ref<Problem | null>
  confirm: () => Promise<void>
}

/**
 * `confirmBy`: the gateway's instant, null if nobody has to confirm. `send` tells the gateway and returns the next.
 * `over` is called once the instant has passed unanswered.
 */
export function useConfirmation(
  first: string | null,
  send: () => Promise<string | null>,
  over: () => void = () => undefined,
): Confirmation {
  const confirmBy = ref(first)
  const left = ref<number | null>(null)
  const isConfirming = ref(false)
  const problem = ref<Problem | null>(null)
  let ticker: number | undefined
  let isOver = false

  function tick(): void {
    left.value = confirmBy.value === null ? null : serverClock.secondsUntil(confirmBy.value)
    if (left.value !== null && left.value <= 0 && !isOver) {
      isOver = true
      over()
    }
  }

  async function confirm(): Promise<void> {
    isConfirming.value = true
    problem.value = null
    try {
      confirmBy.value = await send()
      tick()
    } catch (error) {
      problem.value = problemOf(error)
    }
    isConfirming.value = false
  }

  onMounted(() => {
    tick()
    ticker = window.setInterval(tick, TICK_MILLISECONDS)
  })
  onBeforeUnmount(() => window.clearInterval(ticker))
  return { secondsLeft: computed(() => secondsToConfirm(left.value)), isConfirming, problem, confirm }
}
