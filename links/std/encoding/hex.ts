/**
 * Stand-in for `jsr:@std/encoding/hex`, on the runtime's own hex methods. Not published.
 *
 * @module
 */
import { toBytes, type Uint8Array_ } from "./bytes.ts";
export type { Uint8Array_ };

/** Bytes (or a text's UTF-8 bytes) as lower-case hexadecimal. */
export function encodeHex(src: string | Uint8Array | ArrayBuffer): string {
  return toBytes(src).toHex();
}

/**
 * Bytes of hexadecimal in either case.
 *
 * @throws {TypeError} at a character that is not hexadecimal
 * @throws {RangeError} when the length is odd
 */
export function decodeHex(src: string): Uint8Array_ {
  const bad = /[^0-9a-fA-F]/u.exec(src);
  if (bad) throw new TypeError(`Invalid byte '${bad[0]}'`);
  if (src.length % 2 === 1) {
    throw new RangeError(
      `Cannot decode the hex string as the input length should be even: length is ${src.length}`,
    );
  }
  return Uint8Array.fromHex(src);
}
