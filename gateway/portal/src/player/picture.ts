/** One run of pictures of one codec, fed into a <video> through Media Source Extensions. */

import { expired, pace, rangesOf } from './buffer'

/** What may wait to be appended: beyond it the decoder has fallen behind for good. */
const MAX_QUEUED_BYTES = 16 * 1024 * 1024

export function isPlayable(mime: string): boolean {
  return 'MediaSource' in window && MediaSource.isTypeSupported(mime)
}

export class Picture {
  private readonly source = new MediaSource()
  private readonly address = URL.createObjectURL(this.source)
  private buffer: SourceBuffer | null = null
  private queue: ArrayBuffer[] = []
  private queuedBytes = 0
  private isClosed = false

  /** `onFailure` is called at most once: the run is over and a new one must be opened. */
  constructor(
    private readonly video: HTMLVideoElement,
    mime: string,
    private readonly onFailure: () => void,
  ) {
    this.source.addEventListener('sourceopen', () => this.open(mime), { once: true })
    video.addEventListener('error', this.fail)
    video.src = this.address
    // Muted video may start by itself; a browser that still refuses leaves it paused, and the page offers a button.
    video.play().catch(() => undefined)
  }

  /** Takes the init segment, then fragments, in the order of the wire. */
  append(bytes: ArrayBuffer): void {
    if (this.isClosed) return
    this.queue.push(bytes)
    this.queuedBytes += bytes.byteLength
    if (this.queuedBytes > MAX_QUEUED_BYTES) this.fail()
    else this.pump()
  }

  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.queue = []
    this.video.removeEventListener('error', this.fail)
    this.video.removeAttribute('src')
    this.video.load()
    URL.revokeObjectURL(this.address)
  }

  private open(mime: string): void {
    if (this.isClosed) return
    const buffer = this.source.addSourceBuffer(mime)
    buffer.addEventListener('updateend', () => {
      this.follow()
      this.pump()
    })
    buffer.addEventListener('error', this.fail)
    this.buffer = buffer
    this.pump()
  }

  private readonly fail = (): void => {
    if (this.isClosed) return
    this.close()
    this.onFailure()
  }

  /** One removal or one append at a time: a SourceBuffer does its work asynchronously. */
  private pump(): void {
    const buffer = this.buffer
    if (this.isClosed || buffer === null || buffer.updating || this.source.readyState !== 'open') return
    const old = expired(rangesOf(buffer.buffered), this.video.currentTime)
    if (old !== null) {
      buffer.remove(old.start, old.end)
      return
    }
    const next = this.queue.shift()
    if (next === undefined) return
    this.queuedBytes -= next.byteLength
    try {
      buffer.appendBuffer(next)
    } catch {
      // QuotaExceededError: the buffer is full in spite of the removals; InvalidStateError: the source was closed.
      this.fail()
    }
  }

  private follow(): void {
    const buffer = this.buffer
    if (this.isClosed || buffer === null || this.video.seeking) return
    const { seekTo, playbackRate } = pace(rangesOf(buffer.buffered), this.video.currentTime)
    if (seekTo !== null) this.video.currentTime = seekTo
    if (this.video.playbackRate !== playbackRate) this.video.playbackRate = playbackRate
  }
}
