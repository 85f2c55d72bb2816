// What this room uses of core, in one place.
export {
  ByteCollector,
  concat,
  copyOf,
  ed25519Sign,
  ed25519Verify,
  fromHex,
  fromUtf8,
  HtxError,
  selectCrypto,
  timingSafeEqual,
  toHex,
  u64be,
  utf8,
} from "../core/mod.ts";
export { tell } from "../core/_tell.ts";
export { timerDelay } from "../core/_timer_delay.ts";
export type { Bytes } from "../core/mod.ts";
