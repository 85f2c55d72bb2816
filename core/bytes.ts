/**
 * Small helpers on byte arrays.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";

const encoder = /* @__PURE__ */ new TextEncoder();
const strictDecoder = /* @__PURE__ */ new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Joins the parts into one new array. */
export function concat(...parts: Uint8Array[]): Bytes {
  return concatAll(parts);
}

/** {@linkcode concat} of any number of parts: so many arguments as a peer may send pieces do not fit a stack. */
export function concatAll(parts: readonly Uint8Array[]): Bytes {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Gathers bytes that come in pieces, of which tiny ones cost no more than their bytes. */
export class ByteCollector {
  /** Bytes gathered. */
  size = 0;
  #bytes: Bytes;

  /** With room for `expected` bytes: no more need to be moved then. */
  constructor(expected = 0) {
    this.#bytes = new Uint8Array(expected);
  }

  /** Copies a piece behind the others. */
  push(piece: Uint8Array): void {
    const end = this.size + piece.length;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(end, 2 * this.#bytes.length));
      larger.set(this.#bytes.subarray(0, this.size));
      this.#bytes = larger;
    }
    this.#bytes.set(piece, this.size);
    this.size = end;
  }

  /** All of them, on a buffer of their own; begins anew. */
  take(): Bytes {
    const { size } = this;
    const bytes = this.#bytes.length === size ? this.#bytes : this.#bytes.slice(0, size);
    this.#bytes = new Uint8Array(0);
    this.size = 0;
    return bytes;
  }
}

/** A copy on a buffer of its own. */
export function copyOf(bytes: Uint8Array): Bytes {
  return new Uint8Array(bytes);
}

/** Fewer bytes than this are left to the garbage collector: giving them back costs a microsecond, too. */
const WORTH_RELEASING = 4096;

/**
 * Gives memory back at once where `bytes` is all there is on it and it is much; nobody may look at it any more. Frames of
 * 64 KiB that are left to the garbage collector make it mark the whole heap ten times a second.
 */
export function releaseBytes(bytes: Uint8Array): void {
  const { buffer, byteLength } = bytes;
  if (byteLength < WORTH_RELEASING || buffer.byteLength !== byteLength) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer?.(0);
}

/** Compares without an early exit, so that the time taken tells only the lengths (which are not secret). */
export function timingSafeEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

/** The UTF-8 bytes of a string. */
export function utf8(text: string): Bytes {
  return encoder.encode(text);
}

/**
 * The string of UTF-8 bytes; a byte order mark is kept.
 *
 * @throws {TypeError} when the bytes are not UTF-8
 */
export function fromUtf8(bytes: Uint8Array): string {
  return strictDecoder.decode(bytes);
}

/**
 * 64-bit big-endian.
 *
 * @throws {RangeError} when `value` is negative, fractional or does not fit
 */
export function u64be(value: number | bigint): Bytes {
  const big = BigInt(value);
  if (big < 0n || big > 0xffff_ffff_ffff_ffffn) {
    throw new RangeError(`Cannot encode uint64: ${value} is out of range`);
  }
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, big);
  return out;
}

const HEX = /* @__PURE__ */ Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));

/** Lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  let out = "";
  for (const byte of bytes) out += HEX[byte];
  return out;
}

/**
 * Bytes of a hexadecimal string, in either case. The input stands in no message: it may be a key.
 *
 * @throws {TypeError} when the text is not an even number of hexadecimal digits
 */
export function fromHex(text: string): Bytes {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) {
    throw new TypeError("Cannot decode hex: the text is not an even number of hexadecimal digits");
  }
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}
