/** Light or dark: the system's preference until the person chooses. */

import { ref } from 'vue'

const STORAGE_KEY = 'custos.theme'

function prefersDark(): boolean {
  const remembered = localStorage.getItem(STORAGE_KEY)
  if (remembered !== null) return remembered === 'dark'
  return matchMedia('(prefers-color-scheme: dark)').matches
}

export const isDark = ref(prefersDark())

function apply(): void {
  document.documentElement.classList.toggle('dark', isDark.value)
}

export function toggleTheme(): void {
  isDark.value = !isDark.value
  localStorage.setItem(STORAGE_KEY, isDark.value ? 'dark' : 'light')
  apply()
}

apply()
