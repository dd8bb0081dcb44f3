/** RFC 9457 problem documents: the only form in which the gateway says no. */

export interface Problem {
  status: number
  code: string
  title: string
  detail: string
  /** Which rule of the decision refused, where one did. */
  reason: string
  requestId: string
  retryAfterSeconds: number | null
}

export class ProblemError extends Error {
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.title)
    this.problem = problem
  }
}

/** The gateway did not answer at all: no HTTP status, hence no document. */
export function unreachable(): ProblemError {
  return new ProblemError({
    status: 0,
    code: 'gateway_unreachable',
    title: '',
    detail: '',
    reason: '',
    requestId: '',
    retryAfterSeconds: null,
  })
}

/** The problem an unsuccessful response carries; a response without a document keeps its HTTP status. */
export async function readProblem(response: Response): Promise<ProblemError> {
  const body: unknown = await response.json().catch(() => null)
  const document = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {}
  const text = (name: string): string => (typeof document[name] === 'string' ? document[name] : '')
  const retryAfter = Number(response.headers.get('Retry-After') ?? '')
  return new ProblemError({
    status: response.status,
    code: text('code'),
    title: text('title') || `HTTP ${response.status}`,
    detail: text('detail'),
    reason: text('reason'),
    requestId: text('request_id'),
    retryAfterSeconds: retryAfter > 0 ? Math.ceil(retryAfter) : null,
  })
}

/** The problem in `error`; anything else is a bug of the page and goes on its way. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ProblemError) return error.problem
  throw error
}

/** Whether a limit of viewing sessions is full, so that a place may come free. */
export function isFull(problem: Problem): boolean {
  return problem.code === 'limit_bandwidth' || problem.code.startsWith('limit_sessions_')
}
