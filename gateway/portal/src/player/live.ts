/** A viewer session's live picture: connects, plays, reconnects with a new ticket, and says how it stands. */

import { endViewerSession, renewTicket } from '../api/gateway'
import { type Problem, problemOf } from '../api/problem'
import type { ViewerSession } from '../api/types'
import { rangesOf } from './buffer'
import { type Ending, type Said, endingOf, isFinal } from './ending'
import { codecName, hasSound, parseMediaMessage, webSocketAddress } from './messages'
import { Picture, isPlayable } from './picture'

/** Pauses before each attempt to come back after a lost connection; then the player gives up, and says so. */
const RECONNECT_PAUSES_SECONDS = [0.5, 1, 2, 4, 8]
/** A connection that lived this long was a good one: the next loss starts from the first pause again. */
const HEALTHY_SECONDS = 15
/** No picture for this long is shown as waiting; a connection silent for longer than the second is given up. */
const WAITING_AFTER_SECONDS = 3
const SILENT_AFTER_SECONDS = 20
const TICK_MILLISECONDS = 500
/** Weight of the newest measurement of the bit rate: keyframes come in bursts. */
const BIT_RATE_WEIGHT = 0.2

export type Phase = 'connecting' | 'live' | 'waiting' | 'reconnecting' | 'ended'

export interface LiveStatus {
  phase: Phase
  ending: Ending | null
  /** The attempt to reconnect that is under way, counted from one; 0 if none is. */
  attempt: number
  attempts: number
  /** How far the picture shown is behind the newest one received. */
  lagSeconds: number | null
  bitsPerSecond: number
  width: number
  height: number
  hasSound: boolean
  /** The browser wants a gesture before it plays. */
  isPaused: boolean
}

export function initialStatus(): LiveStatus {
  return {
    phase: 'connecting',
    ending: null,
    attempt: 0,
    attempts: RECONNECT_PAUSES_SECONDS.length,
    lagSeconds: null,
    bitsPerSecond: 0,
    width: 0,
    height: 0,
    hasSound: false,
    isPaused: false,
  }
}

export class LivePicture {
  private readonly status = initialStatus()
  private socket: WebSocket | null = null
  private picture: Picture | null = null
  private said: Said | null = null
  private failedAttempts = 0
  private connectedAt = 0
  private receivedAt = 0
  private receivedBytes = 0
  private tickedAt = 0
  private readonly ticker: number
  private pause: number | undefined

  constructor(
    private readonly session: ViewerSession,
    private readonly video: HTMLVideoElement,
    private readonly onStatus: (status: LiveStatus) => void,
  ) {
    this.tickedAt = performance.now()
    this.ticker = window.setInterval(() => this.tick(), TICK_MILLISECONDS)
    this.connect(session.media.ws)
  }

  /** Ends the session at the gateway. `keepalive` while the page is being left: the request outlives it. */
  end(keepalive = false): void {
    if (!this.isEnded()) this.finish({ kind: 'own' }, keepalive)
  }

  private connect(media: string): void {
    this.said = null
    const socket = new WebSocket(webSocketAddress(media, location.href))
    socket.binaryType = 'arraybuffer'
    socket.onmessage = (message: MessageEvent<string | ArrayBuffer>) => this.receive(message.data)
    socket.onclose = () => this.lose()
    this.socket = socket
    this.connectedAt = this.receivedAt = performance.now()
  }

  private receive(data: string | ArrayBuffer): void {
    if (typeof data !== 'string') {
      this.receivedAt = performance.now()
      this.receivedBytes += data.byteLength
      this.picture?.append(data)
      return
    }
    const message = parseMediaMessage(data)
    if (message?.type === 'media') this.show(message.mime)
    if (message?.type === 'end') this.said = { reason: message.reason, detail: message.detail, by: message.by }
  }

  /**
   * A new run of pictures: at the start of each connection, and whenever the camera's codec or tracks change. A
   * SourceBuffer takes no other set of tracks than its first (MSE §3.5.8), so each run has a MediaSource of its own.
   */
  private show(mime: string): void {
    this.picture?.close()
    this.picture = null
    this.status.hasSound = hasSound(mime)
    if (isPlayable(mime)) this.picture = new Picture(this.video, mime, () => this.lose())
    else this.finish({ kind: 'codec', codec: codecName(mime) })
  }

  /** The connection or the decoder is gone: over for good if the gateway said so, else back with a new ticket. */
  private lose(): void {
    if (this.isEnded()) return
    this.disconnect()
    if (this.said !== null && isFinal(this.said.reason)) {
      this.finish({ kind: 'said', ...this.said })
      return
    }
    if (performance.now() - this.connectedAt > HEALTHY_SECONDS * 1000) this.failedAttempts = 0
    const seconds = RECONNECT_PAUSES_SECONDS[this.failedAttempts]
    if (seconds === undefined) {
      this.giveUp()
      return
    }
    this.failedAttempts += 1
    this.tell({ phase: 'reconnecting', attempt: this.failedAttempts, lagSeconds: null, bitsPerSecond: 0 })
    this.pause = window.setTimeout(() => void this.reconnect(), seconds * 1000)
  }

  private async reconnect(): Promise<void> {
    let renewed: ViewerSession
    try {
      renewed = await renewTicket(this.session.id)
    } catch (error) {
      this.refuse(problemOf(error))
      return
    }
    // Ended while the answer was on its way: the gateway knows already.
    if (!this.isEnded()) this.connect(renewed.media.ws)
  }

  /** A gateway that is away or full may be asked again; any other is its last word. 404 and 409: the session is over. */
  private refuse(problem: Problem): void {
    if (this.isEnded()) return
    if (problem.status === 0 || problem.status >= 500) this.lose()
    else if (problem.status === 404 || problem.status === 409) this.giveUp()
    else this.finish({ kind: 'refused', problem })
  }

  private giveUp(): void {
    if (this.said === null) void this.askWhy()
    else this.finish({ kind: 'said', ...this.said })
  }

  private async askWhy(): Promise<void> {
    const ending = await endingOf(this.session.id)
    if (!this.isEnded()) this.finish(ending)
  }

  private isEnded(): boolean {
    return this.status.phase === 'ended'
  }

  private disconnect(): void {
    if (this.socket !== null) {
      this.socket.onmessage = this.socket.onclose = null
      this.socket.close()
      this.socket = null
    }
    this.picture?.close()
    this.picture = null
  }

  private finish(ending: Ending, keepalive = false): void {
    window.clearInterval(this.ticker)
    window.clearTimeout(this.pause)
    this.disconnect()
    this.tell({ phase: 'ended', ending, attempt: 0, lagSeconds: null, bitsPerSecond: 0 })
    // The gateway frees the place at once. If it cannot be told it does so by itself, 15 s after the loss.
    if (ending.kind !== 'said') endViewerSession(this.session.id, keepalive).catch(problemOf)
  }

  private tick(): void {
    const now = performance.now()
    const elapsed = now - this.tickedAt
    const measured = (this.receivedBytes * 8000) / elapsed
    const previous = this.status.bitsPerSecond || measured
    const bitsPerSecond = previous + BIT_RATE_WEIGHT * (measured - previous)
    this.tickedAt = now
    this.receivedBytes = 0
    if (this.socket === null) return
    const silent = (now - this.receivedAt) / 1000
    if (silent > SILENT_AFTER_SECONDS) {
      this.lose()
      return
    }
    const newest = rangesOf(this.video.buffered).at(-1)
    const isShowing = this.video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && newest !== undefined
    this.tell({
      phase: silent > WAITING_AFTER_SECONDS ? 'waiting' : isShowing ? 'live' : this.phaseBeforePicture(),
      attempt: isShowing ? 0 : this.status.attempt,
      lagSeconds: isShowing ? Math.max(0, newest.end - this.video.currentTime) : null,
      bitsPerSecond,
      width: this.video.videoWidth,
      height: this.video.videoHeight,
      isPaused: this.video.paused,
    })
  }

  private phaseBeforePicture(): Phase {
    return this.status.attempt > 0 ? 'reconnecting' : 'connecting'
  }

  private tell(change: Partial<LiveStatus>): void {
    Object.assign(this.status, change)
    this.onStatus({ ...this.status })
  }
}
