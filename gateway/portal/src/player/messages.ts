/** The text messages of the gateway's media WebSocket; pictures come as binary ones between them. */

export type MediaMessage =
  | { type: 'media'; mime: string }
  | { type: 'end'; reason: string; detail: string; by: string }

/** The message in `text`, or null for a type that this page does not know (a newer gateway may add some). */
export function parseMediaMessage(text: string): MediaMessage | null {
  let message: unknown
  try {
    message = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof message !== 'object' || message === null) return null
  const { type, mime, reason, detail, by } = message as Record<string, unknown>
  if (type === 'media' && typeof mime === 'string') return { type, mime }
  if (type === 'end' && typeof reason === 'string') {
    return {
      type,
      reason,
      detail: typeof detail === 'string' ? detail : '',
      by: typeof by === 'string' ? by : '',
    }
  }
  return null
}

/**
 * The WebSocket address of `media` at the page's own origin. The gateway writes the address by which it knows
 * itself; the page may have come by another name or through a proxy with TLS, and its policy allows no other origin.
 */
export function webSocketAddress(media: string, page: string): string {
  const { pathname, search } = new URL(media, page)
  const address = new URL(pathname + search, page)
  address.protocol = address.protocol.replace(/^http/, 'ws')
  return address.href
}

/** Whether an RFC 6381 media type names a sound track. */
export function hasSound(mime: string): boolean {
  return /[",]\s*mp4a\./.test(mime)
}

/** "H.264" or "H.265" for an RFC 6381 media type; else the codec's own string. */
export function codecName(mime: string): string {
  const codec = /codecs="?([^",]+)/.exec(mime)?.[1] ?? mime
  if (/^avc[13]/.test(codec)) return 'H.264'
  if (/^(hvc1|hev1)/.test(codec)) return 'H.265'
  return codec
}
