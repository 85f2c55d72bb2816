/** What this folder takes of the ground floor. */
export * from "../core/bytes.ts";
export * from "../core/crypto.ts";
export type { ByteIo, Duplex } from "../core/duplex.ts";
export { HtxError } from "../core/errors.ts";
export type { HandshakeSecrets } from "../core/keys.ts";
