/**
 * Waiting with a signal for what may know nothing of it.
 *
 * @module
 */

import type { Duplex } from "../core/mod.ts";
import { endDuplex } from "./_end_duplex.ts";

/** Settles as `promise` does, or rejects with the signal's reason when it aborts first. */
export function raced<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** {@linkcode raced} for what dials: a duplex that comes too late is ended. */
export async function racedDial(dialling: Promise<Duplex>, signal: AbortSignal | undefined): Promise<Duplex> {
  try {
    return await raced(dialling, signal);
  } catch (error) {
    dialling.then(endDuplex, () => {});
    throw error;
  }
}
