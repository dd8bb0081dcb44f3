/** What the API says about who may what, who answers for it, and what was done. */

import type { DeclaredPurpose } from './types'

/** Somebody or something that an answer names. */
export interface Ref {
  id: string
  name: string
}

/** One happening. Names of fields as the ledger has them; what was erased is empty. */
export interface AuditEvent {
  kind: string
  outcome: 'allow' | 'deny' | 'ok' | 'error'
  content: string
  actor_id: string | null
  actor_name: string | null
  unit_id: string | null
  unit_name: string | null
  purpose_code: string | null
  purpose_reference: string | null
  purpose_note: string | null
  action: string | null
  resource: string | null
  camera_id: string | null
  /** Of a record about several cameras. */
  camera_ids: string[]
  owner_id: string | null
  /** Of a record about cameras of several departments. */
  owner_ids: string[]
  session_id: string | null
  reason: string | null
  rule: string | null
  revision: number | null
  remote: string | null
  request_id: string | null
  detail: Record<string, string | number | boolean | null | string[]>
}

/** `leaf_hash` in hexadecimal; `erased`: the fields that were recorded and are no more. */
export interface RecordEntry {
  seq: number
  at: string
  leaf_hash: string
  record: AuditEvent
  erased: string[]
}

/** What of a record is about a person; it can be erased. */
export type SensitiveField = 'actor_name' | 'content' | 'purpose_note' | 'purpose_reference' | 'remote'

export interface RecordPage {
  items: RecordEntry[]
  next_before: number | null
}

/** What records are narrowed to; what is empty narrows nothing. */
export interface RecordFilter {
  kind: string
  actor: string
  unit: string
  camera: string
  owner: string
  session: string
}

/** `root` and `signature` in base64, `time` in microseconds since the epoch. */
export interface SignedHead {
  origin: string
  size: number
  previous_size: number
  root: string
  time: number
  signature: string
}

export interface HeadList {
  public_key: string
  items: SignedHead[]
  /** The time, signed over the newest head. */
  alive: { size: number; root: string; time: number } | null
}

/** Heads of more than `after_size` records are signed with this key; `head` is the last of the key before. */
export interface KeyEntry {
  after_size: number
  public_key: string
  head: SignedHead
}

/** The ledger's first key, and every change of it, the oldest first. */
export interface KeyList {
  public_key: string
  items: KeyEntry[]
}

/** Hashes in hexadecimal. */
export interface InclusionAnswer {
  seq: number
  tree_size: number
  leaf_hash: string
  path: string[]
  head: SignedHead
}

export type ExportFormat = 'jsonl' | 'csv'

/** The ledger is read for a purpose, as a camera is watched for one. */
export type ReadingPurpose = DeclaredPurpose

export interface PolicyStatus {
  frozen_since: string | null
  unconfirmed: number
  file: { sha256: string; is_accepted: boolean; changed_roles: string[] }
  /** By kind: how many rows counted for nothing at the last start. */
  void: Record<string, number>
}

export type DisputeOutcome = 'upheld' | 'dismissed'

/** `subject` and `object`: `kind:id` of the grant's. */
export interface Dispute {
  id: string
  grant: string
  subject: string
  object: string
  reason: string
  opened_by: Ref
  opened_at: string
  outcome: DisputeOutcome | 'revoked' | null
  closed_by: Ref | null
  closed_at: string | null
  closing_reason: string | null
}

export type AccountKind = 'person' | 'job' | 'wall'

/** What a job is for, and who answers for it. `networks` in CIDR notation. */
export interface JobParticulars {
  responsible_id: string
  processing: string
  recipients: string[]
  result_days: number
  networks: string[]
}

export interface ManagedAccount {
  id: string
  username: string
  display_name: string
  department_id: string
  kind: AccountKind
  enabled: boolean
  locale: 'zh' | 'en' | null
  roles: string[]
  job: JobParticulars | null
  key_expires_at: string | null
}

export interface NewAccount {
  username: string
  display_name: string
  department_id: string
  kind: AccountKind
  roles: string[]
  job: JobParticulars | null
}

export type AccountChange = Partial<Pick<ManagedAccount, 'display_name' | 'enabled' | 'roles' | 'job'>>

export interface Duty {
  id: string
  wall: Ref
  person: Ref
  started_at: string
  ends_at: string
}

export interface SignOn {
  username: string
  password: string
  totp: string | null
  ends_at: string
}

