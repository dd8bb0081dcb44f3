/** What the gateway's public API under /api/v1 says, as far as the portal reads it. */

export interface Department {
  id: string
  name: string
}

export interface User {
  id: string
  username: string
  display_name: string
  department: Department
  roles: string[]
  locale: string | null
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

export interface Camera {
  id: string
  name: string
  description: string
  department: Department
  /** False: switched off in the catalogue. */
  enabled: boolean
  /** Whether there is a second, smaller stream of it. */
  has_sub_stream: boolean
  status: CameraStatus
  actions: string[]
}

export interface Page<Item> {
  items: Item[]
  next_page_token: string | null
  total: number
}

export interface Purpose {
  code: string
  text: { zh: string; en: string }
  needs_reference: boolean
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
  department: Department
  action: string
  purpose: DeclaredPurpose
  priority: number
  state: 'opened' | 'active' | 'lost'
  protocol: string | null
  opened_at: string
  bytes_sent: number
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
