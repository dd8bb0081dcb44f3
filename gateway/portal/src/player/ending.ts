/** Why a picture is over, as far as the person watching needs to know. */

import { standing } from '../api/gateway'
import { type Problem, problemOf } from '../api/problem'
import type { Standing } from '../api/types'

/** Why the gateway ended it: two stable codes, and the name of the unit that did; empty if no unit did. */
export interface Said {
  reason: string
  detail: string
  by: string
}

export type Ending =
  | ({ kind: 'said' } & Said) // the gateway said so on the media connection
  | { kind: 'refused'; problem: Problem } // it refused to go on when asked for a new ticket
  | { kind: 'lost' } // the connection could not be restored, or its place is gone
  | { kind: 'codec'; codec: string } // this browser cannot decode the camera's video
  | { kind: 'own' } // the person watching ended it

/** Why a session is over that this page has lost: the gateway tells it for some minutes. */
export async function endingOf(session: string): Promise<Ending> {
  try {
    return toldBy(await standing(session))
  } catch (error) {
    problemOf(error)
    return { kind: 'lost' }
  }
}

export function toldBy({ state, end_reason, detail, ended_by }: Standing): Ending {
  if (state !== 'ended' || end_reason === null) return { kind: 'lost' }
  return { kind: 'said', reason: end_reason, detail: detail ?? '', by: ended_by ?? '' }
}

/** Reasons after which asking again is pointless or not wanted: somebody or some rule ended the session. */
const FINAL_REASONS = new Set([
  'revoked',
  'expired',
  'ended',
  'ended_by_administrator',
  'replaced',
  'preempted',
  'disputed',
  'unconfirmed',
  'duty_over',
  'logged_in_elsewhere',
  'ledger_unavailable',
])

export function isFinal(reason: string): boolean {
  return FINAL_REASONS.has(reason)
}
