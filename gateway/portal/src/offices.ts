/** What somebody may do by office, hence what the page offers him. The gateway decides each time again. */

import { ref } from 'vue'
import * as gateway from './api/gateway'
import type { Role, User } from './api/types'

/** The pages that one can go to. */
export type Place = 'cameras' | 'grants' | 'sessions' | 'ledger' | 'trust' | 'purposes' | 'undertaking' | 'accounts' | 'account'

export type Office =
  | 'audit:read'
  | 'camera:share'
  | 'purpose:manage'
  | 'security:manage'
  | 'session:end'
  | 'user:manage'

/** Which offices lead to a page; to the others everybody may go. */
const NEEDED: Partial<Record<Place, Office[]>> = {
  ledger: ['audit:read', 'security:manage'],
  undertaking: ['security:manage'],
  trust: ['camera:share', 'security:manage', 'audit:read'],
  purposes: ['purpose:manage', 'camera:share', 'audit:read'],
  accounts: ['user:manage'],
}

const held = ref<ReadonlySet<string>>(new Set())

/** The actions of the roles that somebody holds, wherever he holds them. */
export function actionsOf(roles: readonly Role[], names: readonly string[]): Set<string> {
  return new Set(roles.filter(({ name }) => names.includes(name)).flatMap((role) => [...role.department, ...role.installation]))
}

export function placesFor(actions: ReadonlySet<string>): Place[] {
  const places: Place[] = ['cameras', 'grants', 'sessions', 'ledger', 'trust', 'purposes', 'undertaking', 'accounts']
  return places.filter((place) => NEEDED[place]?.some((office) => actions.has(office)) ?? true)
}

/** At a login, and at its end; without roles nothing is asked. */
export async function learnOffices(user: User | null): Promise<void> {
  const hasAny = user !== null && !user.must_enrol && user.roles.length > 0
  held.value = hasAny ? actionsOf(await gateway.roles(), user.roles) : new Set()
}

export function holds(office: Office): boolean {
  return held.value.has(office)
}

export function ownPlaces(): Place[] {
  return placesFor(held.value)
}
