/** The gateway's time, which decides when something ends; a viewer's own clock may be minutes off. */

class ServerClock {
  private offsetMilliseconds = 0

  /** Of an answer's `Date` header (RFC 9110 §6.6.1), which is cut to whole seconds. */
  note(date: string | null): void {
    const told = Date.parse(date ?? '')
    if (Number.isNaN(told)) return
    const offset = told + 500 - Date.now()
    if (Math.abs(offset - this.offsetMilliseconds) > 1000) this.offsetMilliseconds = offset
  }

  now(): number {
    return Date.now() + this.offsetMilliseconds
  }

  /** Until an instant of the gateway's (ISO 8601); negative once it is over. */
  secondsUntil(instant: string): number {
    return (Date.parse(instant) - this.now()) / 1000
  }
}

export const serverClock = new ServerClock()
