/** The portal's two languages, the choice between them, and how problems and times read in each. */

import { createI18n } from 'vue-i18n'
import type { Problem } from '../api/problem'
import { en } from './en'
import { zh } from './zh'

export type Language = 'zh' | 'en'

const STORAGE_KEY = 'custos.language'
const TAGS: Record<Language, string> = { zh: 'zh-CN', en: 'en' }

function preferredLanguage(): Language {
  const remembered = localStorage.getItem(STORAGE_KEY)
  if (remembered === 'zh' || remembered === 'en') return remembered
  return navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'
}

export const i18n = createI18n({
  legacy: false,
  locale: preferredLanguage(),
  fallbackLocale: 'en',
  messages: { zh, en },
})

const { t, locale } = i18n.global
document.documentElement.lang = TAGS[locale.value as Language]

export function language(): Language {
  return locale.value as Language
}

export function setLanguage(chosen: Language): void {
  locale.value = chosen
  localStorage.setItem(STORAGE_KEY, chosen)
  document.documentElement.lang = TAGS[chosen]
}

/** Words for codes that the gateway gives. */
const TABLES = {
  problems: en.problems,
  'purpose.referenceHints': en.purpose.referenceHints,
  'cameras.faults': en.cameras.faults,
  'cameras.directions': en.cameras.directions,
  'grants.actionNames': en.grants.actionNames,
  'grants.void': en.grants.void,
  'watch.reasons': en.watch.reasons,
  'watch.details': en.watch.details,
  'events.kinds': en.events.kinds,
  'sessions.protocols': en.sessions.protocols,
  'sessions.states': en.sessions.states,
  'purposes.actionNames': en.purposes.actionNames,
  'ledger.kinds': en.ledger.kinds,
  'ledger.fields': en.ledger.fields,
  'trust.rowKinds': en.trust.rowKinds,
  'duty.refusals': en.duty.refusals,
}
type Table = keyof typeof TABLES

/** The sentence for a stable code of ours, or null: codes come from the gateway, and a newer one knows more. */
export function sentence(table: Table, code: string): string | null {
  return Object.hasOwn(TABLES[table], code) ? t(`${table}.${code}`) : null
}

/** A problem in the reader's language; one that the portal does not know, in the gateway's own words. */
export function problemText(problem: Problem): string {
  if (problem.code === 'login_throttled' && problem.retryAfterSeconds !== null) {
    return t('problems.login_throttled_seconds', { seconds: problem.retryAfterSeconds })
  }
  return known(problem) ?? [problem.title, problem.detail].filter(Boolean).join(': ')
}

export function isKnown(problem: Problem): boolean {
  return known(problem) !== null
}

/** The reason of a decision says more than the code, which only says that it was one. */
function known(problem: Problem): string | null {
  return sentence('problems', problem.reason) ?? sentence('problems', problem.code)
}

/** "8 hours": in the largest unit that says it without a fraction. */
export function durationText(seconds: number): string {
  const [value, unit] =
    seconds % 3600 === 0 ? [seconds / 3600, 'hour'] : seconds % 60 === 0 ? [seconds / 60, 'minute'] : [seconds, 'second']
  return new Intl.NumberFormat(TAGS[language()], { style: 'unit', unit, unitDisplay: 'long' }).format(value)
}

/** Time of day, or date and time, of the reader's zone; year first in both languages: 03/04 has two meanings. */
export function timeText(instant: Date, style: 'time' | 'date-time'): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const time = [instant.getHours(), instant.getMinutes(), instant.getSeconds()].map(two).join(':')
  if (style === 'time') return time
  return `${instant.getFullYear()}-${two(instant.getMonth() + 1)}-${two(instant.getDate())} ${time}`
}
