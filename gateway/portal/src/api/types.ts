/** What the gateway's public API under /api/v1 says, as far as the portal reads it. */

export interface Department {
  id: string
  name: string
}

/** A department or a group in its tree. */
export interface TreePlace extends Department {
  parent_id: string | null
}

export interface User {
  id: string
  username: string
  display_name: string
  department: Department
  /** A wall is a screen that people sign on at; a job is a program. */
  kind: 'person' | 'wall' | 'job'
  roles: string[]
  locale: string | null
  second_factor: boolean
  /** Nothing else is open before a second factor is set up. */
  must_enrol: boolean
  undertaking: { version: number; accepted: boolean }
  on_duty: { id: string; person_name: string; ends_at: string } | null
}

/** What everybody accepts, once per version, before he sees a picture. */
export interface Undertaking {
  version: number
  text: { zh: string; en: string }
  accepted: boolean
}

/** For an authenticator app, told once. `qr`: a data URI of an image that says the same as `uri`. */
export interface OfferedFactor {
  secret: string
  uri: string
  qr: string
}

/** Somebody's account, in a list of them. */
export interface Account {
  id: string
  username: string
  display_name: string
}

export type CameraState = 'idle' | 'connecting' | 'live' | 'backing_off' | 'failed'

export type StreamKind = 'main' | 'sub'

/** `error`: why there is no picture; `fault`: what is wrong with one that comes; both stable codes. */
export interface CameraStatus {
  state: CameraState
  error: string | null
  fault: string | null
  /** RTP packets, since somebody watches the camera. */
  lost_packets: number
}

export type Network = 'government-extranet' | 'video-private-network' | 'internet-private-line'

export type SharingMode = 'unconditional' | 'conditional' | 'not-shared'

export interface Camera {
  id: string
  name: string
  description: string
  department: Department
  /** GB/T 28181: 20 digits. */
  code: string | null
  civil_code: string | null
  /** 1, 2 or 3. */
  point_class: number | null
  network: Network | null
  place: string
  /** Degrees, WGS 84; both or none. */
  longitude: number | null
  latitude: number | null
  direction: string | null
  management_unit: string
  retention_days: number | null
  tags: string[]
  sharing: {
    mode: SharingMode
    departments: string[]
    scope: string
    purpose: string
    frequency: string
    until: string | null
    /** Codes of the purposes that its department allows; null: any. */
    purposes: string[] | null
  }
  /** False: switched off in the catalogue. */
  enabled: boolean
  /** Whether there is a second, smaller stream of it. */
  has_sub_stream: boolean
  status: CameraStatus
  actions: string[]
}

/** What a listing of cameras is narrowed to; what is empty narrows nothing. */
export interface CameraFilter {
  q: string
  department: string
  group: string
  tag: string
  network: Network | ''
  point_class: number | ''
  sharing_mode: SharingMode | ''
}

export interface Page<Item> {
  items: Item[]
  next_page_token: string | null
}

export interface CountedPage<Item> extends Page<Item> {
  total: number
}

export interface Purpose {
  code: string
  text: { zh: string; en: string }
  needs_reference: boolean
  /** For the people of that department and those below it; null: for all. */
  department_id: string | null
  /** What may be done for it; null: whatever asks for a purpose. */
  actions: string[] | null
  /** A use for it ends after so long; null: when others do. */
  max_seconds: number | null
  enabled: boolean
}

/** What the viewer declares; the ledger keeps it as it stands. */
export interface DeclaredPurpose {
  code: string
  reference: string | null
  note: string | null
}

/** Players that the gateway serves besides its own page. */
export type OutsideContainer = 'flv' | 'hls' | 'rtsp' | 'mjpeg'

export interface ViewerSession {
  id: string
  camera: { id: string; name: string }
  /** Addresses with one single-use ticket in them; null where the gateway does not serve the container. */
  media: { ws: string } & Record<OutsideContainer, string | null>
  expires_at: string | null
  /** It ends then unless the viewer says that he still looks; null: nobody has to. */
  confirm_by: string | null
  obligations: {
    watermark: 'none' | 'visible' | 'burned-in'
    max_duration_seconds: number | null
    max_height: number | null
  }
  viewer: { display_name: string; department: string }
}

/** Somebody's session that is not over: as its owner, or who administers the camera, sees it. */
export interface SessionEntry {
  id: string
  camera: string
  stream: StreamKind
  user: { id: string; name: string }
  /** Of a wall's session: the person who answers for it. */
  on_duty: { id: string; name: string } | null
  department: Department
  action: string
  purpose: DeclaredPurpose
  priority: number
  state: 'opened' | 'active' | 'lost'
  protocol: string | null
  opened_at: string
  expires_at: string | null
  confirm_by: string | null
  bytes_sent: number
}

/** How a session stands; for some minutes after its end too. Stable codes, and the unit of who ended it. */
export interface Standing {
  id: string
  state: 'opened' | 'active' | 'lost' | 'ended'
  end_reason: string | null
  detail: string | null
  ended_by: string | null
}

/** Something an analyser saw. `region` is a polygon, normalised to 0..1 of the picture's size; `score` is 0..1. */
export interface AnalysisEvent {
  id: number
  camera: string
  kind: string
  started_at: string
  ended_at: string | null
  region: [number, number][]
  score: number
}

export type Action =
  | 'live:view'
  | 'live:snapshot'
  | 'frames:consume'
  | 'ptz:control'
  | 'camera:read'
  | 'camera:manage'
  | 'camera:share'

export type Effect = 'allow' | 'deny'

/** Whom or what a grant names. */
export type EntityKind = 'user' | 'role' | 'department' | 'camera' | 'group' | 'tag'

export interface Entity {
  kind: EntityKind
  id: string
}

/** `days`: 1 is Monday. `start` and `end`: HH:MM; an end that is not after the start is on the next day. */
export interface WeeklyWindow {
  days: number[]
  start: string
  end: string
}

export interface Schedule {
  zone: string
  windows: WeeklyWindow[]
}

export interface NewGrant {
  subject: Entity
  object: Entity
  actions: Action[]
  effect: Effect
  valid_from: string | null
  valid_to: string | null
  schedule: Schedule | null
  /** Null: any purpose. */
  purposes: string[] | null
  obligations: {
    watermark?: 'none' | 'visible' | 'burned-in'
    max_duration_seconds?: number | null
    max_height?: number | null
    max_concurrent?: number | null
  }
  reason: string
}

export interface Grant extends NewGrant {
  id: string
  /** The grant by which the giver could give it; null if he could by office. */
  parent: string | null
  created_by: string
  created_at: string
  /** Why it allows nothing now, whatever its conditions: a reason's code; null if it counts. */
  void: string | null
}

export interface GrantFilter {
  subject: Entity
  object: Entity
  active: boolean
}

/** `count` of all; the first hundred in `items`. */
export interface AccessChanges {
  count: number
  items: { user: string; camera: string; action: string }[]
}

/** What a change would do. `truncated`: it reaches more people than were asked about. */
export interface Rehearsal {
  gains: AccessChanges
  losses: AccessChanges
  sessions: { id: string; user: string; user_name: string; camera: string }[]
  session_count: number
  truncated: boolean
}

export interface Role {
  name: string
  department: string[]
  installation: string[]
}

/** `text`: the decision and why, for people. */
export interface Explanation {
  decision: { effect: Effect; reason: string }
  text: { zh: string; en: string }
}
