/** Calls about purposes, accounts and the ledger: for who answers for what others do. */

import { call, json, parametersOf } from './gateway'
import type {
  AccountChange,
  Dispute,
  DisputeOutcome,
  Duty,
  ExportFormat,
  HeadList,
  InclusionAnswer,
  KeyEntry,
  KeyList,
  ManagedAccount,
  NewAccount,
  PolicyStatus,
  ReadingPurpose,
  RecordFilter,
  RecordPage,
  SensitiveField,
  SignOn,
} from './oversight-types'
import type { Camera, Page, Purpose, Undertaking } from './types'

const PER_PAGE = 50
const KEYS_AT_ONCE = 500

/** All purposes in use; for who manages them, those out of use too. */
export async function allPurposes(): Promise<Purpose[]> {
  return (await json<{ items: Purpose[] }>('GET', '/purposes?all=true')).items
}

export async function createPurpose(purpose: Purpose): Promise<void> {
  await call('POST', '/purposes', purpose)
}

export async function changePurpose(code: string, change: Partial<Purpose>): Promise<void> {
  await call('PATCH', `/purposes/${encodeURIComponent(code)}`, change)
}

/** The owner's terms are written as a whole. */
export async function changeSharing(camera: string, sharing: Camera['sharing']): Promise<Camera> {
  const path = `/cameras/${encodeURIComponent(camera)}`
  return (await json<{ camera: Camera }>('PATCH', path, { sharing })).camera
}

function declared({ code, reference, note }: ReadingPurpose): Record<string, string | null> {
  return { purpose: code, reference, note }
}

export function records(
  purpose: ReadingPurpose,
  filter: RecordFilter,
  before: number | null,
): Promise<RecordPage> {
  const parameters = parametersOf({ ...declared(purpose), ...filter, before, page_size: PER_PAGE })
  return json('GET', `/audit/records?${parameters}`)
}

export function inclusion(purpose: ReadingPurpose, seq: number): Promise<InclusionAnswer> {
  return json('GET', `/audit/proofs/${seq}?${parametersOf(declared(purpose))}`)
}

export function newestHead(): Promise<HeadList> {
  return json('GET', '/audit/heads?page_size=1')
}

/** The whole ledger as a file. */
export async function ledgerFile(purpose: ReadingPurpose, format: ExportFormat): Promise<Blob> {
  const response = await call('GET', `/audit/export?${parametersOf({ ...declared(purpose), format })}`)
  return await response.blob()
}

/** The purpose is one for which the ledger may be read. */
export async function eraseFields(
  purpose: ReadingPurpose,
  seq: number,
  fields: SensitiveField[],
  reason: string,
): Promise<void> {
  await call('POST', `/audit/records/${seq}/erasure`, { fields, reason, purpose })
}

export async function signingKeys(): Promise<KeyList> {
  const items: KeyEntry[] = []
  for (;;) {
    const parameters = parametersOf({ after: items.at(-1)?.after_size, page_size: KEYS_AT_ONCE })
    const page = await json<KeyList>('GET', `/audit/keys?${parameters}`)
    items.push(...page.items)
    if (page.items.length < KEYS_AT_ONCE) return { ...page, items }
  }
}

export function newSigningKey(): Promise<KeyEntry> {
  return json('POST', '/audit/keys')
}

/** Everybody has to accept it before the next picture. */
export function publishUndertaking(text: Undertaking['text']): Promise<Pick<Undertaking, 'version' | 'text'>> {
  return json('POST', '/undertakings', { text })
}

export function policyStatus(): Promise<PolicyStatus> {
  return json('GET', '/policy')
}

/** How many grants on cameras of the department, and below it, stand again. */
export async function confirmGrants(department: string): Promise<number> {
  return (await json<{ confirmed: number }>('POST', '/policy/confirm', { department_id: department })).confirmed
}

export async function acceptPolicyFile(sha256: string): Promise<void> {
  await call('POST', '/policy/file/accept', { sha256 })
}

export function disputes(isOpen: boolean, pageToken: string | null): Promise<Page<Dispute>> {
  const parameters = parametersOf({ open: isOpen || null, page_size: PER_PAGE, page_token: pageToken })
  return json('GET', `/disputes?${parameters}`)
}

export async function openDispute(grant: string, reason: string): Promise<void> {
  await call('POST', '/disputes', { grant, reason })
}

export async function closeDispute(id: string, outcome: DisputeOutcome, reason: string): Promise<void> {
  await call('POST', `/disputes/${encodeURIComponent(id)}/close`, { outcome, reason })
}

export function accounts(query: string, pageToken: string | null): Promise<Page<ManagedAccount>> {
  return json('GET', `/users?${parametersOf({ q: query, page_size: PER_PAGE, page_token: pageToken })}`)
}

/** The account, and its generated password: a job's key. It cannot be asked for again. */
export function createAccount(account: NewAccount): Promise<{ user: ManagedAccount; password: string }> {
  return json('POST', '/users', account)
}

export function changeAccount(id: string, change: AccountChange): Promise<ManagedAccount> {
  return json('PATCH', `/users/${encodeURIComponent(id)}`, change)
}

export function issueKey(id: string): Promise<{ password: string; expires_at: string }> {
  return json('POST', `/users/${encodeURIComponent(id)}/key`)
}

export async function resetSecondFactor(id: string): Promise<void> {
  await call('DELETE', `/users/${encodeURIComponent(id)}/second-factor`)
}

export async function duties(): Promise<Duty[]> {
  return (await json<{ items: Duty[] }>('GET', '/duty')).items
}

/** By a wall's login: takes over from who is on duty. */
export function signOn(person: SignOn): Promise<Duty> {
  return json('POST', '/duty', person)
}

export async function signOff(): Promise<void> {
  await call('DELETE', '/duty')
}
