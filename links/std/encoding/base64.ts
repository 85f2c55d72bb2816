/**
 * Stand-in for `jsr:@std/encoding/base64`, on the runtime's own base64 methods. Not published.
 *
 * @module
 */
import { fromBase64, toBytes, type Uint8Array_ } from "./bytes.ts";
export type { Uint8Array_ };

/** Bytes (or a text's UTF-8 bytes) as base64 with padding. */
export function encodeBase64(data: string | Uint8Array | ArrayBuffer): string {
  return toBytes(data).toBase64();
}

/**
 * Bytes of base64 text; padding may be missing.
 *
 * @throws {TypeError} when the text is not base64
 */
export function decodeBase64(b64: string): Uint8Array_ {
  return fromBase64(b64, "base64");
}
