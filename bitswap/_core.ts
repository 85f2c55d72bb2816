/** What this folder uses of core. */
export { ByteCollector, concat, fromHex, timingSafeEqual, toHex, utf8 } from "../core/mod.ts";
export { type Bytes, selectCrypto } from "../core/mod.ts";
export { deferred, raced } from "../core/_deferred.ts";
export { tell } from "../core/_tell.ts";
export { timerDelay } from "../core/_timer_delay.ts";
export { HtxError, type HtxErrorCode } from "../core/mod.ts";
