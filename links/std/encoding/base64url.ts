/**
 * Stand-in for `jsr:@std/encoding/base64url`, on the runtime's own base64 methods. Not published.
 *
 * @module
 */
import { fromBase64, toBytes, type Uint8Array_ } from "./bytes.ts";
export type { Uint8Array_ };

/** Bytes (or a text's UTF-8 bytes) as base64url without padding. */
export function encodeBase64Url(data: string | Uint8Array | ArrayBuffer): string {
  return toBytes(data).toBase64({ alphabet: "base64url", omitPadding: true });
}

/**
 * Bytes of base64url text; padding may be missing. Not strict: callers that need one spelling per value compare the
 * re-encoding.
 *
 * @throws {TypeError} when the text is not base64url
 */
export function decodeBase64Url(b64url: string): Uint8Array_ {
  return fromBase64(b64url, "base64url");
}
