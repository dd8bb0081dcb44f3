import { describe, expect, it } from 'vitest'
import { draftOf, particularsOf } from './job'

const JOB = {
  responsible_id: 'li',
  processing: 'counts vehicles',
  recipients: ['Traffic bureau', 'Planning bureau'],
  result_days: 0,
  networks: ['10.20.0.0/24'],
}

describe("a job's particulars", () => {
  it('come back from the form as they went in', () => {
    expect(particularsOf(draftOf(JOB))).toEqual(JOB)
  })

  it('lose blank lines and spaces at the ends', () => {
    const typed = { ...draftOf(JOB), recipients: ' Traffic bureau \n\n Planning bureau\n', processing: ' counts vehicles ' }
    expect(particularsOf(typed)).toEqual(JOB)
  })

  it('are nothing while one is missing', () => {
    expect(particularsOf(draftOf(null))).toBeNull()
    for (const part of [{ responsible: '' }, { processing: ' ' }, { recipients: '\n' }, { resultDays: null }, { networks: '' }]) {
      expect(particularsOf({ ...draftOf(JOB), ...part })).toBeNull()
    }
  })
})
