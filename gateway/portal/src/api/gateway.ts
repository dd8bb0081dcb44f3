/** Calls of the gateway's API. The login session is an HttpOnly cookie: no script ever holds a token. */

import { readProblem, unreachable } from './problem'
import type {
  AnalysisEvent,
  Camera,
  DeclaredPurpose,
  Page,
  Purpose,
  SessionEntry,
  StreamKind,
  User,
  ViewerSession,
} from './types'

export const API = '/api/v1'
const CAMERAS_PER_PAGE = 50

/** Fires `lost` when the gateway no longer knows the caller: expired, disabled or signed out elsewhere. */
export const loginSession = new EventTarget()

type Options = Pick<RequestInit, 'keepalive' | 'signal'>

async function call(method: string, path: string, body?: unknown, options: Options = {}): Promise<Response> {
  const init: RequestInit = { method, ...options, credentials: 'same-origin', cache: 'no-store' }
  if (body !== undefined) {
    init.body = JSON.stringify(body)
    init.headers = { 'Content-Type': 'application/json' }
  }
  let response: Response
  try {
    response = await fetch(API + path, init)
  } catch {
    // fetch rejects only if there was no response at all: the network's fault, or the caller has cancelled.
    throw unreachable()
  }
  if (response.status === 401 && path !== '/login') loginSession.dispatchEvent(new Event('lost'))
  if (!response.ok) throw await readProblem(response)
  return response
}

async function json<Answer>(method: string, path: string, body?: unknown, options?: Options): Promise<Answer> {
  const response = await call(method, path, body, options)
  return (await response.json()) as Answer
}

export async function login(username: string, password: string): Promise<User> {
  const answer = await json<{ user: User }>('POST', '/login', { username, password, cookie: true })
  return answer.user
}

export async function logout(): Promise<void> {
  await call('POST', '/logout')
}

export function me(): Promise<User> {
  return json('GET', '/me')
}

export function cameras(query: string, pageToken: string | null): Promise<Page<Camera>> {
  const parameters = new URLSearchParams({ page_size: String(CAMERAS_PER_PAGE) })
  if (query) parameters.set('q', query)
  if (pageToken) parameters.set('page_token', pageToken)
  return json('GET', `/cameras?${parameters}`)
}

export async function camera(id: string): Promise<Camera> {
  return (await json<{ camera: Camera }>('GET', `/cameras/${encodeURIComponent(id)}`)).camera
}

export async function purposes(): Promise<Purpose[]> {
  return (await json<{ items: Purpose[] }>('GET', '/purposes')).items
}

/** `wait`: how long to wait for a place if a limit is full, and what cancels the waiting. */
export function openViewerSession(
  camera: string,
  purpose: DeclaredPurpose,
  stream: StreamKind,
  wait?: { seconds: number; signal: AbortSignal },
): Promise<ViewerSession> {
  const body = { camera, purpose, stream, wait_s: wait?.seconds ?? 0 }
  return json('POST', '/sessions', body, wait && { signal: wait.signal })
}

export async function viewerSessions(): Promise<SessionEntry[]> {
  return (await json<{ items: SessionEntry[] }>('GET', '/sessions')).items
}

/** Fresh media addresses for a running session: the decision is taken again. */
export function renewTicket(session: string): Promise<ViewerSession> {
  return json('POST', `/sessions/${encodeURIComponent(session)}/ticket`)
}

/** Ends the session; `keepalive` lets the request outlive the page. */
export async function endViewerSession(session: string, keepalive = false): Promise<void> {
  await call('DELETE', `/sessions/${encodeURIComponent(session)}`, undefined, { keepalive })
}

export async function analysisEvents(camera: string): Promise<AnalysisEvent[]> {
  const parameters = new URLSearchParams({ camera })
  return (await json<{ items: AnalysisEvent[] }>('GET', `/events?${parameters}`)).items
}
