/** The undertaking stands before every picture; one dialog of the page asks for it (App.vue shows it). */

import { ref } from 'vue'

/** Whether somebody is being asked; the dialog's model. */
export const isAskingForUndertaking = ref(false)

let answer: ((accepted: boolean) => void) | null = null

/** Show the undertaking; resolves to whether it was accepted. */
export function askForUndertaking(): Promise<boolean> {
  answer?.(false)
  isAskingForUndertaking.value = true
  return new Promise((resolve) => (answer = resolve))
}

/** What the reader chose. "Later" (false) leaves no picture. */
export function answerUndertaking(accepted: boolean): void {
  isAskingForUndertaking.value = false
  answer?.(accepted)
  answer = null
}
