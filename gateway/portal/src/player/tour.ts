/**
 * A tour (轮巡): pictures of several cameras one after another. Each step is a session of its own, hence a decision
 * and a record of its own; one that fails is said and skipped.
 */

import type { Camera, ViewerSession } from '../api/types'

export const MAX_TOUR_CAMERAS = 50
export const MIN_DWELL_SECONDS = 10
export const MAX_DWELL_SECONDS = 120
/** How long the reason why a step failed stands before the next. */
export const FAILED_SECONDS = 5
const MAX_SKIPPED_SHOWN = 10

/** Why a tour is over: its limit in time, nobody confirmed, or a whole round without a picture. */
export type TourEnd = 'expired' | 'unconfirmed' | 'nothing'

export interface Skipped {
  camera: Camera
  why: string
}

export interface TourStatus {
  /** Into the cameras. */
  index: number
  phase: 'opening' | 'showing' | 'failed' | 'over'
  session: ViewerSession | null
  secondsLeft: number
  isPaused: boolean
  /** Newest first. */
  skipped: Skipped[]
  end: TourEnd | null
}

export class Tour {
  private status: TourStatus = {
    index: 0,
    phase: 'opening',
    session: null,
    secondsLeft: 0,
    isPaused: false,
    skipped: [],
    end: null,
  }
  private opening: AbortController | null = null
  private failuresInARow = 0

  /**
   * `open` opens a step's session or rejects; `discard` ends one that is no longer wanted; `say` puts a refusal in
   * words.
   */
  constructor(
    private readonly cameras: readonly Camera[],
    private readonly dwellSeconds: number,
    private readonly open: (camera: Camera, signal: AbortSignal) => Promise<ViewerSession>,
    private readonly discard: (session: ViewerSession) => void,
    private readonly say: (error: unknown) => string,
    private readonly onStatus: (status: TourStatus) => void,
  ) {}

  start(): Promise<void> {
    return this.go(0)
  }

  next(): Promise<void> {
    return this.go((this.status.index + 1) % this.cameras.length)
  }

  pause(isPaused: boolean): void {
    this.tell({ isPaused })
  }

  /** Time passes: `seconds` since the last call. */
  tick(seconds: number): void {
    const { phase, isPaused, secondsLeft } = this.status
    if (isPaused || (phase !== 'showing' && phase !== 'failed')) return
    this.tell({ secondsLeft: secondsLeft - seconds })
    if (this.status.secondsLeft <= 0) void this.next()
  }

  /** The picture of this step ended by itself. */
  stepOver(session: ViewerSession, why: string): void {
    if (this.status.session === session && this.status.phase === 'showing') this.fail(why)
  }

  finish(end: TourEnd | null): void {
    this.opening?.abort()
    this.opening = null
    this.tell({ phase: 'over', session: null, end })
  }

  private async go(index: number): Promise<void> {
    if (this.status.phase === 'over') return
    this.opening?.abort()
    const opening = (this.opening = new AbortController())
    this.tell({ index, phase: 'opening', session: null, secondsLeft: this.dwellSeconds })
    const camera = this.cameras[index]!
    try {
      const session = await this.open(camera, opening.signal)
      if (opening.signal.aborted) this.discard(session)
      else this.show(session)
    } catch (error) {
      const why = this.say(error)
      if (!opening.signal.aborted) this.fail(why)
    }
  }

  private show(session: ViewerSession): void {
    this.failuresInARow = 0
    this.tell({ phase: 'showing', session })
  }

  private fail(why: string): void {
    const camera = this.cameras[this.status.index]!
    const skipped = [{ camera, why }, ...this.status.skipped].slice(0, MAX_SKIPPED_SHOWN)
    this.failuresInARow += 1
    this.tell({ phase: 'failed', secondsLeft: FAILED_SECONDS, skipped })
    if (this.failuresInARow >= this.cameras.length && this.status.session === null) this.finish('nothing')
  }

  private tell(change: Partial<TourStatus>): void {
    this.status = { ...this.status, ...change }
    this.onStatus(this.status)
  }
}
