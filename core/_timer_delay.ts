/** The longest delay that a timer takes: one above it, and `Infinity`, is over at once. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** The delay for a timer that is to end after `ms`: weeks, where it is to be longer. */
export function timerDelay(ms: number): number {
  return Math.min(ms, MAX_DELAY_MS);
}
