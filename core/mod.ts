/**
 * The ground floor of HTX: varints, frames, keys, the session engine and the connection on top of it. No sockets,
 * no `Deno.*`: this module is browser compatible.
 *
 * @example A session engine on each side, and nothing between them but bytes
 * ```ts
 * import { HtxSession, MAX_FILL_LENGTH } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const keys = () => ({
 *   client: new Uint8Array(32).fill(1), // a handshake gives these
 *   server: new Uint8Array(32).fill(2),
 *   handshakeHash: new Uint8Array(32).fill(3),
 * });
 * const client = new HtxSession({ role: "client", keys: keys() });
 * let received = "";
 * const server = new HtxSession({
 *   role: "server",
 *   keys: keys(),
 *   events: { stream: (stream) => queueMicrotask(() => received = new TextDecoder().decode(stream.take() ?? undefined)) },
 * });
 *
 * client.openStream()!.put(new TextEncoder().encode("hello"), true);
 * const wire = new Uint8Array(MAX_FILL_LENGTH);
 * server.receive(wire.subarray(0, client.fill(wire)));
 * await Promise.resolve();
 * assertEquals(received, "hello");
 * ```
 *
 * @module
 */

export * from "./bytes.ts";
export { MAX_REASON_LENGTH } from "./close.ts";
export {
  type Clock,
  type ConnectionInit,
  type ConnectionOptions,
  type ConnectionStats,
  type HandshakeInfo,
  HtxConnection,
} from "./connection.ts";
export * from "./crypto.ts";
export type { ByteIo, Duplex, DuplexAddr } from "./duplex.ts";
export * from "./errors.ts";
export * from "./frame.ts";
export {
  deriveSessionKeys,
  type Direction,
  type HandshakeSecrets,
  type SessionKeys,
  TrafficKeys,
} from "./keys.ts";
export {
  INITIAL_WINDOW,
  MAX_BYTES_PER_KEY,
  MAX_FRAMES_PER_KEY,
  MAX_KEY_AGE_MS,
  MAX_WINDOW,
  type RekeyLimits,
  type ResolvedLimits,
  resolveLimits,
  type SessionLimits,
  type UniformRange,
} from "./limits.ts";
export {
  HtxSession,
  MAX_FILL_LENGTH,
  MAX_PING_DATA_LENGTH,
  MAX_QUESTIONS,
  MIN_FILL_LENGTH,
} from "./session.ts";
export { CONTROL_STREAM_ID, SessionStream } from "./session_stream.ts";
export type { CloseInfo, SessionEvents, SessionOptions, SessionStats } from "./session_types.ts";
export { loadSodium } from "./sodium.ts";
export { HtxStream, type StreamWriteOptions } from "./stream.ts";
export { StreamIo } from "./stream_io.ts";
export * from "./varint.ts";
