/** A job's particulars as somebody types them: lists are lines of text. */

import type { JobParticulars } from '../api/oversight-types'

export interface JobDraft {
  responsible: string
  processing: string
  recipients: string
  resultDays: number | null
  networks: string
}

export function draftOf(job: JobParticulars | null): JobDraft {
  return {
    responsible: job?.responsible_id ?? '',
    processing: job?.processing ?? '',
    recipients: (job?.recipients ?? []).join('\n'),
    resultDays: job?.result_days ?? null,
    networks: (job?.networks ?? []).join('\n'),
  }
}

/** What is to be sent, or null while something is missing. The gateway judges the networks. */
export function particularsOf(draft: JobDraft): JobParticulars | null {
  const recipients = linesOf(draft.recipients)
  const networks = linesOf(draft.networks)
  const processing = draft.processing.trim()
  if (!draft.responsible || !processing || draft.resultDays === null) return null
  if (recipients.length === 0 || networks.length === 0) return null
  return { responsible_id: draft.responsible, processing, recipients, result_days: draft.resultDays, networks }
}

function linesOf(text: string): string[] {
  return text.split('\n').map((line) => line.trim()).filter(Boolean)
}
