import { describe, expect, it } from 'vitest'
import { actionsOf, placesFor } from './offices'

const ROLES = [
  { name: 'auditor', department: ['audit:read', 'session:read'], installation: [] },
  { name: 'system-administrator', department: [], installation: ['user:manage', 'camera:read'] },
]

describe('offices', () => {
  it('come from the roles that somebody holds', () => {
    expect(actionsOf(ROLES, ['auditor'])).toEqual(new Set(['audit:read', 'session:read']))
    expect(actionsOf(ROLES, ['system-administrator', 'unknown'])).toEqual(new Set(['user:manage', 'camera:read']))
    expect(actionsOf(ROLES, [])).toEqual(new Set())
  })

  it('lead to the pages that need them, and to no others', () => {
    expect(placesFor(new Set())).toEqual(['cameras', 'grants', 'sessions'])
    expect(placesFor(new Set(['audit:read']))).toEqual(['cameras', 'grants', 'sessions', 'ledger', 'trust', 'purposes'])
    expect(placesFor(new Set(['purpose:manage', 'security:manage']))).toEqual([
      'cameras',
      'grants',
      'sessions',
      'ledger',
      'trust',
      'purposes',
      'undertaking',
    ])
    expect(placesFor(new Set(['user:manage']))).toEqual(['cameras', 'grants', 'sessions', 'accounts'])
  })
})
