/**
 * The handshake of HTX 1.1: Noise XK, and its hybrid post-quantum form XKhfs with ML-KEM-768.
 *
 * {@linkcode initiate} and {@linkcode respond} run it over any byte stream; {@linkcode HandshakeState} is the
 * machine inside, without sockets or clock. The initiator must know the responder's public key beforehand, and the
 * responder learns the initiator's, so both ends are proven and the initiator's key is hidden from everyone else.
 *
 * What it does not do: it hides neither that a handshake takes place nor the lengths of its messages. On hostile
 * networks it runs inside TLS, WebSocket or QUIC.
 *
 * This module is browser compatible.
 *
 * @example Two ends of an in-memory duplex
 * ```ts
 * import { initiate, KeyPair, ReplayGuard, respond } from "@betanet/htx/noise";
 * import { memoryDuplexPair } from "@betanet/htx/transport";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const client = KeyPair.generate();
 * const server = KeyPair.generate();
 * const [near, far] = memoryDuplexPair();
 * assert(near.io && far.io);
 *
 * const [dialed, accepted] = await Promise.all([
 *   initiate(near.io, { keyPair: client, remoteStatic: server.publicKey }),
 *   respond(far.io, { keyPair: server, replayGuard: new ReplayGuard() }),
 * ]);
 * assert(dialed.hybrid);
 * assertEquals(dialed.hash, accepted.hash);
 * assertEquals(accepted.remoteStatic, client.publicKey);
 * ```
 *
 * @module
 */

export { CipherState } from "./cipher_state.ts";
export {
  checkInitiateOptions,
  checkRespondOptions,
  type HandshakeOptions,
  HandshakeResult,
  initiate,
  type InitiateOptions,
  type PreparedInitiator,
  prepareInitiator,
  respond,
  type RespondOptions,
} from "./handshake.ts";
export { type HandshakeRole, HandshakeState, type HandshakeStateOptions } from "./handshake_state.ts";
export { KeyPair, type KeyPairGenerateOptions, publicKeyFromHex } from "./key_pair.ts";
export { type NoisePattern, type NoiseToken, XK, XKhfs } from "./patterns.ts";
export { ReplayGuard, type ReplayGuardOptions } from "./replay_guard.ts";
export {
  CloseCode,
  type CloseCodeName,
  HtxError,
  type HtxErrorCode,
  type HtxErrorOptions,
} from "../core/mod.ts";
