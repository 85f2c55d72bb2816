/**
 * Waiting with a signal for a dialer that may know nothing of it.
 *
 * @module
 */

import { raced } from "../core/_deferred.ts";
import type { Duplex } from "../core/mod.ts";
import { endDuplex } from "../core/_end_duplex.ts";

/** {@linkcode raced} for what dials: a duplex that comes too late is ended. */
export async function racedDial(dialling: Promise<Duplex>, signal: AbortSignal | undefined): Promise<Duplex> {
  try {
    return await raced(dialling, signal);
  } catch (error) {
    dialling.then(endDuplex, () => {});
    throw error;
  }
}
