/** Names of cameras that an answer mentions by id alone. */

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
