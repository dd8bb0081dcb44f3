import { beforeEach, describe, expect, test, vi } from 'vitest'
import type { Camera, ViewerSession } from '../api/types'
import { FAILED_SECONDS, Tour, type TourStatus } from './tour'

const cameras = ['a', 'b', 'c'].map((id) => ({ id, name: id }) as Camera)
const DWELL = 10

let status: TourStatus
let opened: string[]
let discarded: string[]
let refusing: Set<string>

function tour(): Tour {
  return new Tour(
    cameras,
    DWELL,
    async (camera) => {
      opened.push(camera.id)
      if (refusing.has(camera.id)) throw new Error(`no ${camera.id}`)
      return { id: `${camera.id}${opened.length}` } as ViewerSession
    },
    (session) => discarded.push(session.id),
    (error) => (error as Error).message,
    (told) => (status = told),
  )
}

beforeEach(() => {
  opened = []
  discarded = []
  refusing = new Set()
})

async function settled(): Promise<void> {
  await vi.waitFor(() => expect(status.phase).not.toBe('opening'))
}

describe('a tour', () => {
  test('shows each camera for its time, each by a session of its own, round and round', async () => {
    const running = tour()
    await running.start()
    expect(status.session?.id).toBe('a1')
    running.tick(DWELL - 1)
    expect(status.secondsLeft).toBe(1)
    for (const expected of ['b2', 'c3', 'a4']) {
      running.tick(DWELL)
      expect(status.session).toBeNull()
      await settled()
      expect(status.session?.id).toBe(expected)
    }
  })

  test('stands while it is paused, and goes on by hand all the same', async () => {
    const running = tour()
    await running.start()
    running.pause(true)
    running.tick(100)
    expect(status.index).toBe(0)
    await running.next()
    expect([status.index, status.isPaused]).toEqual([1, true])
    running.pause(false)
    running.tick(DWELL)
    await settled()
    expect(status.index).toBe(2)
  })

  test('says why a step failed, and skips it', async () => {
    refusing.add('b')
    const running = tour()
    await running.start()
    await running.next()
    expect(status.phase).toBe('failed')
    expect(status.skipped).toEqual([{ camera: cameras[1], why: 'no b' }])
    running.tick(FAILED_SECONDS)
    await settled()
    expect([status.index, status.phase]).toEqual([2, 'showing'])
  })

  test('ends after a whole round without a picture, instead of asking for ever', async () => {
    refusing = new Set(['a', 'b', 'c'])
    const running = tour()
    await running.start()
    await running.next()
    expect(status.phase).toBe('failed')
    await running.next()
    expect([status.phase, status.end]).toEqual(['over', 'nothing'])
    await running.next()
    running.tick(1000)
    expect(opened).toHaveLength(3)
  })

  test('goes on after a picture that ended by itself', async () => {
    const running = tour()
    await running.start()
    const session = status.session!
    running.stepOver(session, 'withdrawn')
    expect([status.phase, status.skipped[0]?.why]).toEqual(['failed', 'withdrawn'])
    running.stepOver(session, 'again')
    expect(status.skipped).toHaveLength(1)
    running.tick(FAILED_SECONDS)
    await settled()
    expect(status.index).toBe(1)
  })

  test('ends a session that was opened for nothing', async () => {
    let open: (session: ViewerSession) => void = () => undefined
    const pending = new Promise<ViewerSession>((resolve) => (open = resolve))
    const running = new Tour(
      cameras,
      DWELL,
      () => pending,
      (session) => discarded.push(session.id),
      String,
      (told) => (status = told),
    )
    const started = running.start()
    running.finish(null)
    open({ id: 'late' } as ViewerSession)
    await started
    expect([status.phase, status.session, discarded]).toEqual(['over', null, ['late']])
  })
})
