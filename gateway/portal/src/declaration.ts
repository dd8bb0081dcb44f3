/** A declaration as a form makes it: what it may choose from, what is filled in, and how it reads. */

import { computed, nextTick, ref, useTemplateRef } from 'vue'
import * as gateway from './api/gateway'
import { type Problem, problemOf } from './api/problem'
import type { Camera, DeclaredPurpose, Purpose } from './api/types'
import { language } from './i18n'
import { declared, emptyPurpose, purposesFor } from './purposes'

export function purposeName(purpose: Purpose): string {
  return purpose.text[language()] || purpose.code
}

/** A declared purpose in the reader's words, with its reference. */
export function statedText(stated: { code: string; reference: string | null }, purposes: readonly Purpose[]): string {
  const known = purposes.find((one) => one.code === stated.code)
  return [known ? purposeName(known) : stated.code, stated.reference].filter(Boolean).join(' · ')
}

/** `camera`: the one that it is about, if it is about one. The form's PurposeFields, if it has `ref="fields"`, is focused. */
export function useDeclaration(action: string, camera?: () => Camera) {
  const purposes = ref<Purpose[] | null>(null)
  const draft = ref(emptyPurpose())
  const isChecked = ref(false)
  const problem = ref<Problem | null>(null)
  const fields = useTemplateRef<{ focus(): void }>('fields')

  const choice = computed(() => purposes.value && purposesFor(purposes.value, action, camera?.() ?? null))
  /** Null until known. */
  const offered = computed(() => choice.value?.offered ?? null)
  /** Those that the camera's department does not allow. */
  const withheld = computed(() => choice.value?.withheld ?? [])

  async function begin(): Promise<void> {
    draft.value = emptyPurpose()
    isChecked.value = false
    problem.value = null
    try {
      purposes.value = await gateway.purposes()
    } catch (error) {
      problem.value = problemOf(error)
      return
    }
    await nextTick()
    fields.value?.focus()
  }

  /** What is to be sent, and how it reads; null while something is missing, which the form then says. */
  function declare(): { purpose: DeclaredPurpose; text: string } | null {
    isChecked.value = true
    const purpose = declared(draft.value, offered.value ?? [])
    return purpose && { purpose, text: statedText(purpose, offered.value ?? []) }
  }

  return { draft, isChecked, problem, offered, withheld, begin, declare }
}
