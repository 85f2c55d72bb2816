/**
 * The later of two times, in whatever unit. Time does not go back, and a clock that gives no number leaves it where it is:
 * compared as it comes, a NaN would never be past anything again, and open what time keeps shut.
 */
export function latest(known: number, now: number): number {
  return now > known && Number.isFinite(now) ? now : known;
}
