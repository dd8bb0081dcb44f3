/** Names of what an answer mentions by id alone. */

import { ref } from 'vue'
import * as gateway from './api/gateway'
import { ProblemError } from './api/problem'

/** Of one view: it ends with the view, as the next reader may see others. */
export function useCameraNames() {
  const known = ref(new Map<string, string>())

  /** A camera that the reader may not see keeps its id. */
  async function learn(ids: Iterable<string>): Promise<void> {
    for (const id of new Set(ids)) {
      if (known.value.has(id)) continue
      try {
        known.value.set(id, (await gateway.camera(id)).name)
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error
        if (error.problem.status === 404) known.value.set(id, id)
      }
    }
  }

  return { learn, nameOf: (id: string): string => known.value.get(id) ?? id }
}

/** Names of what grants name, as `kind:id`; what the reader may not see keeps its id. */
export function useEntityNames() {
  const cameras = useCameraNames()
  const known = ref(new Map<string, string>())

  async function learnAll(entities: Iterable<string>): Promise<void> {
    const unknown = [...new Set(entities)].filter((one) => !known.value.has(one))
    await cameras.learn(unknown.filter((one) => one.startsWith('camera:')).map(idOf))
    if (unknown.some((one) => one.startsWith('user:'))) note('user', await gateway.users(''), (one) => one.display_name)
    if (unknown.some((one) => one.startsWith('department:'))) note('department', await gateway.departments(), (one) => one.name)
    if (unknown.some((one) => one.startsWith('group:'))) note('group', await gateway.groups(), (one) => one.name)
  }

  function note<Item extends { id: string }>(kind: string, items: Item[], name: (one: Item) => string): void {
    for (const one of items) known.value.set(`${kind}:${one.id}`, name(one))
  }

  function entityName(entity: string): string {
    return entity.startsWith('camera:') ? cameras.nameOf(idOf(entity)) : (known.value.get(entity) ?? idOf(entity))
  }

  return { learnAll, entityName }
}

function idOf(entity: string): string {
  return entity.slice(entity.indexOf(':') + 1)
}
