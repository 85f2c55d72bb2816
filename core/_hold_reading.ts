/**
 * Back-pressure of TLS on Node's modules.
 *
 * @module
 */

import { property } from "./_property.ts";

/**
 * Has the TCP socket below one of `node:tls` read no more, or go on. A TLS socket of Deno 2.9.6 that is paused itself goes on
 * reading from its carrier and keeps all that comes, and the carrier's own `pause()` does not reach what reads from it.
 * Whether it could be done.
 */
export function holdReading(carrier: unknown, held: boolean): boolean {
  const handle = property(carrier, "_handle");
  const change = property(handle, held ? "readStop" : "readStart");
  if (typeof change !== "function") return false;
  Reflect.apply(change, handle, []);
  return true;
}
