/** What a grant says, in the reader's language. */

import type { Grant, Purpose, Schedule, WeeklyWindow } from '../api/types'
import { statedText } from '../declaration'
import { i18n, timeText } from '../i18n'

const { t } = i18n.global

/** Days as ranges: "Mon–Fri", "Sat, Sun". */
export function daysText(days: readonly number[]): string {
  const sorted = [...new Set(days)].sort((a, b) => a - b)
  const ranges: [number, number][] = []
  for (const day of sorted) {
    const last = ranges.at(-1)
    if (last && last[1] === day - 1) last[1] = day
    else ranges.push([day, day])
  }
  const name = (day: number): string => t(`grants.dayNames.${day}`)
  const rangeText = ([first, last]: [number, number]): string[] =>
    last - first > 1 ? [`${name(first)}–${name(last)}`] : first === last ? [name(first)] : [name(first), name(last)]
  return ranges.flatMap(rangeText).join(t('common.comma'))
}

function windowText({ days, start, end }: WeeklyWindow): string {
  return `${daysText(days)} ${start}–${end}`
}

export function scheduleText({ windows, zone }: Schedule): string {
  return `${windows.map(windowText).join(t('common.comma'))} (${zone})`
}

export function validityText(grant: Grant): string {
  const at = (instant: string): string => timeText(new Date(instant), 'date-time')
  if (grant.valid_from && grant.valid_to) return `${at(grant.valid_from)} – ${at(grant.valid_to)}`
  if (grant.valid_from) return t('grants.since', { at: at(grant.valid_from) })
  return grant.valid_to ? t('grants.until', { at: at(grant.valid_to) }) : t('grants.noEnd')
}

export function purposesText(codes: readonly string[] | null, purposes: readonly Purpose[]): string {
  if (codes === null) return t('grants.anyPurpose')
  return codes.map((code) => statedText({ code, reference: null }, purposes)).join(t('common.comma'))
}

/** The limits that bind whoever uses the grant; a visible watermark is the usual one and not mentioned. */
export function obligationsText({ effect, obligations }: Grant): string {
  const { watermark, max_duration_seconds: seconds, max_concurrent: concurrent } = obligations
  return [
    effect === 'allow' && watermark && watermark !== 'visible' && t(`grants.watermarks.${watermark}`),
    seconds && t('grants.atMostMinutes', { n: Math.round(seconds / 60) }),
    concurrent && t('grants.atMostSessions', { n: concurrent }),
  ]
    .filter(Boolean)
    .join(t('common.comma'))
}
