/**
 * QUIC variable-length integers (RFC 9000 §16), kept to what a JavaScript number holds exactly.
 *
 *     prefix   bytes   values
 *     00       1       0 .. 63
 *     01       2       0 .. 16 383
 *     10       4       0 .. 1 073 741 823
 *     11       8       0 .. 2^53 - 1 here; the format goes on to 2^62 - 1
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";
import { HtxError } from "./errors.ts";

/** The largest value that is read or written: past it a number would be rounded (HTX 1.1, conventions). */
export const MAX_VARINT: number = Number.MAX_SAFE_INTEGER;

const MAX_1 = 63;
const MAX_2 = 16_383;
const MAX_4 = 1_073_741_823;

/** A decoded value and the bytes it took. */
export interface Varint {
  /** The value. */
  readonly value: number;
  /** How many bytes it stood in: 1, 2, 4 or 8; more than {@linkcode varintLength} where the form was not minimal. */
  readonly length: number;
}

/**
 * How many bytes the shortest form of `value` takes.
 *
 * @throws {RangeError} when `value` is negative, fractional or above {@linkcode MAX_VARINT}
 */
export function varintLength(value: number): 1 | 2 | 4 | 8 {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`Cannot encode varint: ${value} is not an integer from 0 to 2^53-1`);
  }
  return value <= MAX_1 ? 1 : value <= MAX_2 ? 2 : value <= MAX_4 ? 4 : 8;
}

/**
 * Writes the shortest form of `value` at `offset` and returns the bytes written.
 *
 * @throws {RangeError} when `value` cannot be encoded or `into` has no room
 */
export function writeVarint(value: number, into: Uint8Array, offset: number): 1 | 2 | 4 | 8 {
  const length = varintLength(value);
  if (offset < 0 || offset + length > into.length) {
    throw new RangeError(
      `Cannot write varint: ${length} bytes do not fit at offset ${offset} of ${into.length}`,
    );
  }
  switch (length) {
    case 1:
      into[offset] = value;
      break;
    case 2:
      into[offset] = 0x40 | (value >>> 8);
      into[offset + 1] = value;
      break;
    case 4:
      into[offset] = 0x80 | (value >>> 24);
      into[offset + 1] = value >>> 16;
      into[offset + 2] = value >>> 8;
      into[offset + 3] = value;
      break;
    case 8: {
      const high = Math.floor(value / 0x1_0000_0000);
      into[offset] = 0xc0 | (high >>> 24);
      into[offset + 1] = high >>> 16;
      into[offset + 2] = high >>> 8;
      into[offset + 3] = high;
      into[offset + 4] = value >>> 24;
      into[offset + 5] = value >>> 16;
      into[offset + 6] = value >>> 8;
      into[offset + 7] = value;
      break;
    }
  }
  return length;
}

/**
 * The shortest form of `value`.
 *
 * @example Encoding
 * ```ts
 * import { encodeVarint } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(encodeVarint(15_293), new Uint8Array([0x7b, 0xbd]));
 * ```
 *
 * @throws {RangeError} when `value` is negative, fractional or above {@linkcode MAX_VARINT}
 */
export function encodeVarint(value: number): Bytes {
  const out = new Uint8Array(varintLength(value));
  writeVarint(value, out, 0);
  return out;
}

/**
 * Reads one value at `offset`; forms longer than need be mean the same. `undefined` when more bytes are needed.
 *
 * @throws {HtxError} `MALFORMED` when the value is above {@linkcode MAX_VARINT}
 */
export function decodeVarint(bytes: Uint8Array, offset = 0): Varint | undefined {
  const first = bytes[offset];
  if (first === undefined) return undefined;
  const length = 1 << (first >>> 6);
  if (offset + length > bytes.length) return undefined;
  let value = first & 0x3f;
  for (let i = 1; i < length; i++) value = value * 256 + bytes[offset + i]!;
  // Up to 2^62-1 here: sums above 2^53-1 are inexact, but never at or below it, so the comparison is right.
  if (value > MAX_VARINT) {
    throw new HtxError("MALFORMED", "Cannot decode varint: the value is above 2^53-1", { field: "varint" });
  }
  return { value, length };
}
