/** Names of what an answer mentions by id alone: where none is to be had, the id stands in its place. */

import { ref } from 'vue'
import * as gateway from './api/gateway'
import { type Problem, ProblemError } from './api/problem'
import type { Entity } from './api/types'

/** Of one view: it ends with the view, as the next reader may see others. */
export function useCameraNames() {
  const known = ref(new Map<string, string>())

  async function learn(ids: Iterable<string>): Promise<void> {
    for (const id of new Set(ids)) {
      if (known.value.has(id)) continue
      const { answer, problem } = await asked(() => gateway.camera(id))
      if (answer) known.value.set(id, answer.name)
      else if (problem?.status === 404) known.value.set(id, id)
    }
  }

  return { learn, nameOf: (id: string): string => known.value.get(id) ?? id }
}

/** Names of what grants name, as `kind:id`. */
export function useEntityNames() {
  const cameras = useCameraNames()
  const known = ref(new Map<string, string>())

  async function learnAll(entities: Iterable<string>): Promise<void> {
    const unknown = [...new Set(entities)].filter((one) => !known.value.has(one))
    await cameras.learn(unknown.filter((one) => one.startsWith('camera:')).map(idOf))
    await note(unknown, 'user', () => gateway.users(''), (one) => one.display_name)
    await note(unknown, 'department', gateway.departments, (one) => one.name)
    await note(unknown, 'group', gateway.groups, (one) => one.name)
  }

  async function note<Item extends { id: string }>(
    unknown: string[],
    kind: string,
    ask: () => Promise<Item[]>,
    name: (one: Item) => string,
  ): Promise<void> {
    if (!unknown.some((one) => one.startsWith(`${kind}:`))) return
    const { answer } = await asked(ask)
    for (const one of answer ?? []) known.value.set(`${kind}:${one.id}`, name(one))
  }

  function entityName(entity: string): string {
    return entity.startsWith('camera:') ? cameras.nameOf(idOf(entity)) : (known.value.get(entity) ?? idOf(entity))
  }

  return { learnAll, entityName }
}

export function keyOf({ kind, id }: Entity): string {
  return `${kind}:${id}`
}

function idOf(entity: string): string {
  return entity.slice(entity.indexOf(':') + 1)
}

async function asked<Answer>(ask: () => Promise<Answer>): Promise<{ answer?: Answer; problem?: Problem }> {
  try {
    return { answer: await ask() }
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error
    return { problem: error.problem }
  }
}
