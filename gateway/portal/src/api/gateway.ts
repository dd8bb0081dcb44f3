/** Calls of the gateway's API. The login session is an HttpOnly cookie: no script ever holds a token. */

import { serverClock } from '../clock'
import { type Problem, readProblem, unreachable } from './problem'
import type {
  Account,
  AnalysisEvent,
  Camera,
  CameraFilter,
  CountedPage,
  DeclaredPurpose,
  Explanation,
  Grant,
  GrantFilter,
  NewGrant,
  OfferedFactor,
  Page,
  Purpose,
  Rehearsal,
  Role,
  SessionEntry,
  Standing,
  StreamKind,
  TreePlace,
  Undertaking,
  User,
  ViewerSession,
} from './types'

export const API = '/api/v1'
const PER_PAGE = 50
const USERS_AT_ONCE = 500

/**
 * Fires `lost`, with the problem, when the gateway no longer knows the caller: expired, disabled, or logged in
 * elsewhere. Fires `must-enrol` when it asks him for a second factor first.
 */
export const loginSession = new EventTarget()

type Options = Pick<RequestInit, 'keepalive' | 'signal'>

export async function call(method: string, path: string, body?: unknown, options: Options = {}): Promise<Response> {
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
  serverClock.note(response.headers.get('Date'))
  if (response.ok) return response
  const error = await readProblem(response)
  tellOf(error.problem)
  throw error
}

function tellOf(problem: Problem): void {
  if (problem.code === 'not_authenticated') {
    loginSession.dispatchEvent(new CustomEvent<Problem>('lost', { detail: problem }))
  }
  if (problem.code === 'second_factor_enrolment_required') loginSession.dispatchEvent(new Event('must-enrol'))
}

export async function json<Answer>(method: string, path: string, body?: unknown, options?: Options): Promise<Answer> {
  const response = await call(method, path, body, options)
  return (await response.json()) as Answer
}

/** `totp`: six digits or a recovery code, once the gateway has asked for one (`second_factor_required`). */
export async function login(username: string, password: string, totp: string | null): Promise<User> {
  const answer = await json<{ user: User }>('POST', '/login', { username, password, totp, cookie: true })
  return answer.user
}

export async function logout(): Promise<void> {
  await call('POST', '/logout')
}

export function me(): Promise<User> {
  return json('GET', '/me')
}

export function offerSecondFactor(): Promise<OfferedFactor> {
  return json('POST', '/me/second-factor', {})
}

/** The recovery codes, told once. */
export async function confirmSecondFactor(code: string): Promise<string[]> {
  return (await json<{ recovery_codes: string[] }>('POST', '/me/second-factor/confirm', { code })).recovery_codes
}

export async function removeSecondFactor(code: string): Promise<void> {
  await call('DELETE', '/me/second-factor', { code })
}

export function undertaking(): Promise<Undertaking> {
  return json('GET', '/undertaking')
}

export async function acceptUndertaking(version: number): Promise<void> {
  await call('POST', '/undertaking/accept', { version })
}

export function cameras(filter: Partial<CameraFilter>, pageToken: string | null): Promise<CountedPage<Camera>> {
  return json('GET', `/cameras?${parametersOf({ ...filter, page_size: PER_PAGE, page_token: pageToken })}`)
}

/** Without what is null or empty. */
export function parametersOf(values: Record<string, string | number | boolean | null | undefined>): URLSearchParams {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== '')
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)]))
}

export async function camera(id: string): Promise<Camera> {
  return (await json<{ camera: Camera }>('GET', `/cameras/${encodeURIComponent(id)}`)).camera
}

export async function departments(): Promise<TreePlace[]> {
  return (await json<{ items: TreePlace[] }>('GET', '/departments')).items
}

export async function groups(): Promise<TreePlace[]> {
  return (await json<{ items: TreePlace[] }>('GET', '/groups')).items
}

export async function roles(): Promise<Role[]> {
  return (await json<{ items: Role[] }>('GET', '/roles')).items
}

/** The first of those whose name contains the query. */
export async function users(query: string): Promise<Account[]> {
  const page = await json<Page<Account>>('GET', `/users?${parametersOf({ q: query, page_size: USERS_AT_ONCE })}`)
  return page.items
}

export function grants(filter: GrantFilter, pageToken: string | null): Promise<Page<Grant>> {
  const { subject, object, active } = filter
  const parameters = parametersOf({
    subject_kind: subject.id && subject.kind,
    subject: subject.id,
    object_kind: object.id && object.kind,
    object: object.id,
    active,
    page_size: PER_PAGE,
    page_token: pageToken,
  })
  return json('GET', `/grants?${parameters}`)
}

export function createGrant(grant: NewGrant): Promise<Grant> {
  return json('POST', '/grants', grant)
}

export function rehearseGrant(grant: NewGrant): Promise<Rehearsal> {
  return json('POST', '/grants?dry_run=1', grant)
}

export async function revokeGrant(id: string, reason: string): Promise<void> {
  await call('DELETE', `/grants/${encodeURIComponent(id)}?${parametersOf({ reason })}`)
}

export function rehearseRevocation(id: string): Promise<Rehearsal> {
  return json('DELETE', `/grants/${encodeURIComponent(id)}?dry_run=1`)
}

export function explain(camera: string, principal: string, action: string, purpose: string): Promise<Explanation> {
  return json('GET', `/explain?${parametersOf({ camera, principal, action, purpose })}`)
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

export function standing(session: string): Promise<Standing> {
  return json('GET', `/sessions/${encodeURIComponent(session)}`)
}

/** The viewer still looks. Until when he need not say so again; null: never. */
export async function confirmViewerSession(session: string): Promise<string | null> {
  const answer = await json<{ confirm_by: string | null }>('POST', `/sessions/${encodeURIComponent(session)}/confirm`)
  return answer.confirm_by
}

/** Ends the session; `keepalive` lets the request outlive the page. */
export async function endViewerSession(session: string, keepalive = false): Promise<void> {
  await call('DELETE', `/sessions/${encodeURIComponent(session)}`, undefined, { keepalive })
}

export async function analysisEvents(camera: string): Promise<AnalysisEvent[]> {
  const parameters = new URLSearchParams({ camera })
  return (await json<{ items: AnalysisEvent[] }>('GET', `/events?${parameters}`)).items
}
