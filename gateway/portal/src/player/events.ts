/** A camera's latest analysis events: what is known already, then live over server-sent events. */

import { onBeforeUnmount, onMounted, type Ref, ref } from 'vue'
import { API, analysisEvents } from '../api/gateway'
import { ProblemError } from '../api/problem'
import type { AnalysisEvent } from '../api/types'

const MAX_EVENTS = 20
/** How long a region stays drawn after the last word about its event. */
const FRESH_MILLISECONDS = 4000

export interface CameraEvents {
  /** Newest first; null until known. */
  events: Ref<AnalysisEvent[] | null>
  /** Events whose region is worth drawing over the picture now. */
  fresh: Ref<AnalysisEvent[]>
  isAvailable: Ref<boolean>
}

export function withEvent(events: readonly AnalysisEvent[], event: AnalysisEvent): AnalysisEvent[] {
  return [event, ...events.filter((one) => one.id !== event.id)]
    .sort((a, b) => Date.parse(b.started_at) - Date.parse(a.started_at))
    .slice(0, MAX_EVENTS)
}

export function useCameraEvents(camera: string): CameraEvents {
  const events = ref<AnalysisEvent[] | null>(null)
  const fresh = ref<AnalysisEvent[]>([])
  const isAvailable = ref(true)
  const fading = new Map<number, number>()
  let stream: EventSource | null = null

  function forget(id: number): void {
    window.clearTimeout(fading.get(id))
    fading.delete(id)
    fresh.value = fresh.value.filter((one) => one.id !== id)
  }

  function receive(message: MessageEvent<string>): void {
    const event = JSON.parse(message.data) as AnalysisEvent
    if (event.camera !== camera) return
    events.value = withEvent(events.value ?? [], event)
    forget(event.id)
    if (event.region.length === 0) return
    fresh.value = [...fresh.value, event]
    fading.set(
      event.id,
      window.setTimeout(() => forget(event.id), FRESH_MILLISECONDS),
    )
  }

  async function listen(): Promise<void> {
    // Listening first: nothing that happens while the list is on its way is missed.
    stream = new EventSource(`${API}/events/stream`)
    stream.addEventListener('analysis', receive)
    try {
      const known = await analysisEvents(camera)
      events.value = known.reduceRight(withEvent, events.value ?? [])
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error
      isAvailable.value = false
    }
  }

  /** A browser opens six HTTP/1.1 connections to a host: a page that nobody sees must not hold one. */
  function onVisibility(): void {
    stream?.close()
    stream = null
    if (document.visibilityState === 'visible') void listen()
  }

  onMounted(() => {
    document.addEventListener('visibilitychange', onVisibility)
    onVisibility()
  })
  onBeforeUnmount(() => {
    document.removeEventListener('visibilitychange', onVisibility)
    stream?.close()
    for (const timer of fading.values()) window.clearTimeout(timer)
  })
  return { events, fresh, isAvailable }
}
