/** What somebody declares before a use: which purposes he may choose from, and what is wrong with the choice. */

import type { Camera, DeclaredPurpose, Purpose } from './api/types'

export interface PurposeDraft {
  code: string
  reference: string
  note: string
}

/** Every declaration starts anew: nothing is remembered from the one before. */
export function emptyPurpose(): PurposeDraft {
  return { code: '', reference: '', note: '' }
}

/** The purposes that serve for an action; `withheld` are those that the camera's department does not allow. */
export function purposesFor(
  purposes: readonly Purpose[],
  action: string,
  camera: Camera | null,
): { offered: Purpose[]; withheld: Purpose[] } {
  const allowed = camera?.sharing.purposes ?? null
  const serving = purposes.filter((one) => one.actions === null || one.actions.includes(action))
  const isAllowed = (one: Purpose): boolean => allowed === null || allowed.includes(one.code)
  return { offered: serving.filter(isAllowed), withheld: serving.filter((one) => !isAllowed(one)) }
}

/** What is to be sent, or null while something is missing. */
export function declared(draft: PurposeDraft, purposes: readonly Purpose[]): DeclaredPurpose | null {
  const purpose = purposes.find((one) => one.code === draft.code)
  if (purpose === undefined || isReferenceMissing(draft, purposes)) return null
  return {
    code: purpose.code,
    reference: (purpose.needs_reference && draft.reference.trim()) || null,
    note: draft.note.trim() || null,
  }
}

export function isReferenceMissing(draft: PurposeDraft, purposes: readonly Purpose[]): boolean {
  const purpose = purposes.find((one) => one.code === draft.code)
  return purpose?.needs_reference === true && !draft.reference.trim()
}
