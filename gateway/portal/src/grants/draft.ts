/** A grant while somebody fills in the form, and what is sent of it. */

import type { Action, Effect, Entity, NewGrant, WeeklyWindow } from '../api/types'

export interface GrantDraft {
  subject: Entity
  object: Entity
  effect: Effect
  actions: Action[]
  validFrom: Date | null
  validTo: Date | null
  /** None: at any hour. */
  windows: WeeklyWindow[]
  zone: string
  /** None: any purpose. */
  purposes: string[]
  watermark: 'none' | 'visible' | 'burned-in'
  maxMinutes: number | null
  maxConcurrent: number | null
  reason: string
}

export type Mistake = 'subject' | 'object' | 'actions' | 'validity' | 'windows'

/** Actions that a grant can give, the usual ones first. */
export const GRANTABLE: Action[] = [
  'live:view',
  'live:snapshot',
  'frames:consume',
  'ptz:control',
  'camera:read',
  'camera:manage',
  'camera:share',
]
const START = /^([01]\d|2[0-3]):[0-5]\d$/
const END = /^(([01]\d|2[0-3]):[0-5]\d|24:00)$/

export function emptyDraft(object: Entity | null, zone: string): GrantDraft {
  return {
    subject: { kind: 'user', id: '' },
    object: object ?? { kind: 'camera', id: '' },
    effect: 'allow',
    actions: ['live:view'],
    validFrom: null,
    validTo: null,
    windows: [],
    zone,
    purposes: [],
    watermark: 'visible',
    maxMinutes: null,
    maxConcurrent: null,
    reason: '',
  }
}

/** What is missing or contradicts itself; the gateway checks the rest. */
export function mistakesOf(draft: GrantDraft): Set<Mistake> {
  const found = new Set<Mistake>()
  if (!draft.subject.id.trim()) found.add('subject')
  if (!draft.object.id.trim()) found.add('object')
  if (draft.actions.length === 0) found.add('actions')
  if (draft.validFrom && draft.validTo && draft.validFrom >= draft.validTo) found.add('validity')
  if (draft.windows.some((one) => !isWindow(one)) || (draft.windows.length > 0 && !draft.zone.trim())) {
    found.add('windows')
  }
  return found
}

function isWindow({ days, start, end }: WeeklyWindow): boolean {
  return days.length > 0 && START.test(start) && END.test(end)
}

/** The body of the request. A denial carries no obligations of its own. */
export function bodyOf(draft: GrantDraft): NewGrant {
  const isAllow = draft.effect === 'allow'
  return {
    subject: { kind: draft.subject.kind, id: draft.subject.id.trim() },
    object: { kind: draft.object.kind, id: draft.object.id.trim() },
    actions: draft.actions,
    effect: draft.effect,
    valid_from: draft.validFrom?.toISOString() ?? null,
    valid_to: draft.validTo?.toISOString() ?? null,
    schedule:
      draft.windows.length === 0
        ? null
        : {
            zone: draft.zone.trim(),
            windows: draft.windows.map((one) => ({ ...one, days: [...one.days].sort((a, b) => a - b) })),
          },
    purposes: draft.purposes.length === 0 ? null : draft.purposes,
    obligations: isAllow
      ? {
          watermark: draft.watermark,
          max_duration_seconds: draft.maxMinutes === null ? null : draft.maxMinutes * 60,
          max_concurrent: draft.maxConcurrent,
        }
      : {},
    reason: draft.reason.trim(),
  }
}
