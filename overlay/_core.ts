// What this room uses of core, in one place.
export { concat, copyOf, fromHex, fromUtf8, timingSafeEqual, toHex, u64be, utf8 } from "../core/bytes.ts";
export { ed25519PublicKey, ed25519Sign, ed25519Verify, selectCrypto } from "../core/crypto.ts";
export type { Bytes } from "../core/crypto.ts";
export { HtxError } from "../core/errors.ts";
