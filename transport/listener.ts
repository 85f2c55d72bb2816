/**
 * What a server accepts connections from.
 *
 * @module
 */

import type { Duplex, DuplexAddr } from "../core/mod.ts";

/** A source of incoming duplexes: TCP, TLS, QUIC, or a gateway's upgraded WebSockets. */
export interface DuplexListener {
  /** Where it listens. */
  readonly addr: DuplexAddr;
  /** The next one; `undefined` once the listener was closed. Rejects where listening itself broke. */
  accept(): Promise<Duplex | undefined>;
  /** Takes no more; what was accepted lives on. Idempotent. */
  close(): void;
}
