/** How the player stays live and keeps its memory bounded: decisions over times in seconds, no DOM. */

export interface TimeRange {
  start: number
  end: number
}

/** Further behind the newest picture than this, the player jumps. */
export const MAX_LAG_SECONDS = 1.5
/** Where it jumps to: enough pictures ahead to ride out the network's jitter. */
export const TARGET_LAG_SECONDS = 0.4
/** Between target and jump it catches up by playing a little faster, which the eye does not notice. */
export const CATCH_UP_LAG_SECONDS = 0.8
export const CATCH_UP_RATE = 1.08
/** What has been shown is dropped once this much lies behind; a removal costs, so it is not done for less. */
export const MAX_PLAYED_SECONDS = 10
export const KEPT_PLAYED_SECONDS = 3

export interface Pace {
  seekTo: number | null
  playbackRate: number
}

/** Where to play next, given what is buffered (ascending, disjoint) and where the player is. */
export function pace(buffered: readonly TimeRange[], position: number): Pace {
  const newest = buffered.at(-1)
  if (newest === undefined) return { seekTo: null, playbackRate: 1 }
  const lag = newest.end - position
  const isOutside = position < newest.start || position > newest.end
  if (isOutside || lag > MAX_LAG_SECONDS) {
    return { seekTo: Math.max(newest.start, newest.end - TARGET_LAG_SECONDS), playbackRate: 1 }
  }
  return { seekTo: null, playbackRate: lag > CATCH_UP_LAG_SECONDS ? CATCH_UP_RATE : 1 }
}

/** What to remove from the buffer now, or null. Never touches the picture being shown. */
export function expired(buffered: readonly TimeRange[], position: number): TimeRange | null {
  const oldest = buffered[0]
  if (oldest === undefined || position - oldest.start <= MAX_PLAYED_SECONDS) return null
  return { start: oldest.start, end: position - KEPT_PLAYED_SECONDS }
}

export function rangesOf(buffered: TimeRanges): TimeRange[] {
  return Array.from({ length: buffered.length }, (_, index) => ({
    start: buffered.start(index),
    end: buffered.end(index),
  }))
}
