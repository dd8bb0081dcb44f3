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

export interface Camera {
  id: string
  name: string
  description: string
  department: Department
  /** False: switched off in the catalogue. */
  enabled: boolean
  status: { state: CameraState; error: string | null }
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

export interface ViewerSession {
  id: string
  camera: { id: string; name: string }
  /** Of the media addresses the portal uses one, with a single-use ticket in it. */
  media: { ws: string }
  expires_at: string | null
  obligations: {
    watermark: 'none' | 'visible' | 'burned-in'
    max_duration_seconds: number | null
    max_height: number | null
  }
  viewer: { display_name: string; department: string }
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
