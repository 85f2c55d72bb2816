/** What this folder uses of core. */
export { concat, fromHex, timingSafeEqual, toHex, utf8 } from "../core/bytes.ts";
export { type Bytes, selectCrypto } from "../core/crypto.ts";
export { type CloseCodeName, HtxError, type HtxErrorCode } from "../core/errors.ts";
