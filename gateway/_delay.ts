/** What refusals wait at most, in ms (HTX 1.1 §6: "0..2 ms"). */
export const MAX_REFUSAL_DELAY_MS = 2;

/**
 * Waits for a uniformly random part of {@linkcode MAX_REFUSAL_DELAY_MS}. Timers count in whole milliseconds, which would
 * leave the fractions, where the traces of the work are, as they were: the last one is waited for turn by turn of the
 * event loop.
 */
export async function refusalDelay(): Promise<void> {
  const drawn = crypto.getRandomValues(new Uint32Array(1))[0]! / 2 ** 32 * MAX_REFUSAL_DELAY_MS;
  const end = performance.now() + drawn;
  // Not imported from node:timers: who bundles `@betanet/htx` for a browser would import it there, too.
  const { setImmediate = setTimeout } = globalThis as { setImmediate?: (callback: () => void) => unknown };
  while (performance.now() < end) await new Promise<void>((resolve) => setImmediate(resolve));
}
