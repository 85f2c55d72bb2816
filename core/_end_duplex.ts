/**
 * The end of a duplex that nobody will use.
 *
 * @module
 */

import type { Duplex } from "./duplex.ts";

/** Ends a duplex at once, by whatever it has for it. */
export function endDuplex(duplex: Duplex): void {
  if (duplex.close !== undefined) return duplex.close();
  if (duplex.io !== undefined) return duplex.io.close();
  duplex.readable.cancel().catch(() => {}); // the peer may have gone first
  duplex.writable.abort().catch(() => {});
}
