/**
 * Strict, deterministic CBOR (RFC 8949): one spelling per value, everything else refused.
 *
 * Accepted are unsigned and negative integers, byte and text strings, arrays, maps with text keys, false, true, null,
 * and finite floats that are not whole numbers; lengths and numbers in their shortest forms, definite lengths, UTF-8
 * text, no key twice, nothing after the item. The order of map keys is not that of RFC 8949 §4.2.1 but the one the
 * format names: a decoder keeps the order it finds, and {@linkcode decodeCborMap} compares it with the schema's.
 *
 * Decoding is done by cborg after a scan of the structure, and is followed by encoding the value again: bytes that do
 * not come out equal are refused.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { decode } from "cborg";
import { ByteCollector, fromUtf8, utf8 } from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { malformed } from "./_malformed.ts";

/** Arrays and maps inside one another; deeper ones are refused before anything recurses. */
export const MAX_CBOR_DEPTH = 16;

/** A value that strict CBOR can carry. Integers past 2^53-1 either way are bigint. */
export type CborValue =
  | number
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | CborValue[]
  | Map<string, CborValue>;

/** Why bytes are not strict CBOR. */
export type CborRefusal =
  | "truncated"
  | "trailing-bytes"
  | "indefinite-length"
  | "not-shortest"
  | "reserved"
  | "tag"
  | "undefined"
  | "simple-value"
  | "not-finite"
  | "whole-float"
  | "key-not-text"
  | "duplicate-key"
  | "not-utf8"
  | "too-deep";

/** What {@linkcode checkCbor} says. */
export type CborVerdict =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: CborRefusal; readonly at: number };

/** What {@linkcode scanCbor} says: how long the first item is, or why it is none; `undefined` needs more bytes. */
export type CborScan =
  | { readonly ok: true; readonly length: number }
  | { readonly ok: false; readonly reason: CborRefusal; readonly at: number };

const MAJOR_UNSIGNED = 0;
const MAJOR_NEGATIVE = 1;
const MAJOR_BYTES = 2;
const MAJOR_TEXT = 3;
const MAJOR_ARRAY = 4;
const MAJOR_MAP = 5;
const MAJOR_TAG = 6;

/** Length of the argument after the first byte, by its low five bits (RFC 8949 §3). */
const ARGUMENT_LENGTH: Readonly<Record<number, number>> = { 24: 1, 25: 2, 26: 4, 27: 8 };
/** Smallest argument that needs that many bytes (RFC 8949 §4.2.1: preferred serialization). */
const LEAST_ARGUMENT: Readonly<Record<number, bigint>> = {
  24: 24n,
  25: 0x100n,
  26: 0x1_0000n,
  27: 0x1_0000_0000n,
};

/**
 * Measures the item at the start of `bytes` without decoding it; what follows is not looked at. The structure is
 * checked as far as heads show it; {@linkcode checkCbor} checks the rest.
 *
 * @returns the item's length, the reason why it is refused, or `undefined` when it does not end within `bytes`
 */
export function scanCbor(bytes: Uint8Array): CborScan | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  // Items still to come, per level; a map counts its keys and values, and an even rest means that a key comes next.
  const levels: { left: number; isMap: boolean }[] = [{ left: 1, isMap: false }];
  while (levels.length > 0) {
    const level = levels[levels.length - 1]!;
    if (level.left === 0) {
      levels.pop();
      continue;
    }
    const isKey = level.isMap && level.left % 2 === 0;
    level.left--;
    const start = at;
    const refuse = (reason: CborRefusal): CborScan => ({ ok: false, reason, at: start });
    if (at >= bytes.length) return undefined;
    const major = bytes[at]! >> 5;
    const info = bytes[at]! & 0x1f;
    at++;
    if (isKey && major !== MAJOR_TEXT) return refuse("key-not-text");
    if (info === 31) return refuse("indefinite-length");
    if (info > 27) return refuse("reserved");
    let argument = BigInt(info);
    const extra = ARGUMENT_LENGTH[info] ?? 0;
    if (extra > 0) {
      if (at + extra > bytes.length) return undefined;
      argument = extra === 1
        ? BigInt(view.getUint8(at))
        : extra === 2
        ? BigInt(view.getUint16(at))
        : extra === 4
        ? BigInt(view.getUint32(at))
        : view.getBigUint64(at);
      at += extra;
    }
    if (major <= MAJOR_TAG && extra > 0 && argument < LEAST_ARGUMENT[info]!) return refuse("not-shortest");
    switch (major) {
      case MAJOR_UNSIGNED:
      case MAJOR_NEGATIVE:
        break;
      case MAJOR_BYTES:
      case MAJOR_TEXT:
        if (argument > BigInt(bytes.length - at)) return undefined;
        at += Number(argument);
        if (major === MAJOR_TEXT && !isText(bytes.subarray(at - Number(argument), at))) {
          return refuse("not-utf8");
        }
        break;
      case MAJOR_ARRAY:
      case MAJOR_MAP: {
        if (levels.length > MAX_CBOR_DEPTH) return refuse("too-deep");
        const items = major === MAJOR_MAP ? 2n * argument : argument;
        // Every item takes a byte, so a count past the bytes there are cannot end within them.
        if (items > BigInt(bytes.length - at)) return undefined;
        levels.push({ left: Number(items), isMap: major === MAJOR_MAP });
        break;
      }
      case MAJOR_TAG:
        return refuse("tag");
      default:
        if (info === 23) return refuse("undefined");
        if (info < 20 || info === 24) return refuse("simple-value");
        if (extra > 0) {
          const value = readFloat(view, at - extra, extra);
          if (!Number.isFinite(value)) return refuse("not-finite");
          if (Number.isInteger(value)) return refuse("whole-float");
          if (extra === 8 && Math.fround(value) === value) return refuse("not-shortest");
        }
    }
  }
  return { ok: true, length: at };
}

/** Tells whether `bytes` are exactly one strict CBOR item, and if not, why. Never throws. */
export function checkCbor(bytes: Uint8Array): CborVerdict {
  const read = readCbor(bytes);
  return read.ok ? { ok: true } : read;
}

/**
 * Decodes exactly one strict CBOR item. Maps keep the order of their keys.
 *
 * @param what what the bytes should be, for the error's message
 * @throws {HtxError} `MALFORMED`, field `cbor`, when {@linkcode checkCbor} refuses the bytes
 */
export function decodeCbor(bytes: Uint8Array, what = "CBOR"): CborValue {
  const read = readCbor(bytes);
  if (!read.ok) throw malformed(what, "cbor", `is not strict CBOR: ${read.reason} at byte ${read.at}`);
  return read.value;
}

/**
 * Encodes a value in the one form that {@linkcode decodeCbor} accepts; map keys in the order they are given.
 *
 * @throws {TypeError} when it has none: a number that is not finite, or whole and past 2^53-1 without being a bigint;
 * an integer of more than 64 bits; text that is no Unicode, or begins with a byte order mark; arrays and maps too deep
 */
export function encodeCbor(value: CborValue): Bytes {
  const out = new ByteCollector();
  write(value, out, 0);
  return out.take();
}

/**
 * Decodes a map that has just the given keys in just the given order.
 *
 * @throws {HtxError} `MALFORMED` with the first offending key as `field`, or `cbor`
 */
export function decodeCborMap<const Key extends string>(
  bytes: Uint8Array,
  keys: readonly Key[],
  what = "CBOR",
): Record<Key, CborValue> {
  const map = decodeCbor(bytes, what);
  if (!(map instanceof Map)) throw malformed(what, "cbor", "is not a map");
  const found = [...map.keys()];
  for (const [i, key] of keys.entries()) {
    if (found[i] === key) continue;
    throw malformed(what, key, map.has(key) ? "stands out of order" : "is missing");
  }
  if (found.length > keys.length) {
    throw malformed(what, "cbor", `has ${found.length} keys, not ${keys.length}`);
  }
  return Object.fromEntries(map) as Record<Key, CborValue>;
}

function readCbor(
  bytes: Uint8Array,
): { ok: true; value: CborValue } | { ok: false; reason: CborRefusal; at: number } {
  const scan = scanCbor(bytes);
  if (scan === undefined) return { ok: false, reason: "truncated", at: bytes.length };
  if (!scan.ok) return scan;
  if (scan.length < bytes.length) return { ok: false, reason: "trailing-bytes", at: scan.length };
  let value: CborValue;
  try {
    value = decode(bytes, {
      strict: true,
      allowIndefinite: false,
      allowUndefined: false,
      allowNaN: false,
      allowInfinity: false,
      allowBigInt: true,
      useMaps: true,
      rejectDuplicateMapKeys: true,
    });
  } catch {
    // All else was found by the scan.
    return { ok: false, reason: "duplicate-key", at: 0 };
  }
  const again = encodeCbor(value);
  const at = bytes.findIndex((byte, i) => byte !== again[i]);
  if (at < 0 && again.length === bytes.length) return { ok: true, value };
  // What is left are floats that a shorter form holds.
  return { ok: false, reason: "not-shortest", at: Math.max(at, 0) };
}

/** By hand, since cborg writes most halves below 2^-14 as singles. */
function write(value: CborValue, out: ByteCollector, depth: number): void {
  if (typeof value === "number" && !Number.isInteger(value)) out.push(float(value));
  else if (typeof value === "number" || typeof value === "bigint") out.push(integer(value));
  else if (value === false || value === true || value === null) {
    out.push(Uint8Array.of(value === null ? 0xf6 : value ? 0xf5 : 0xf4)); // RFC 8949 §3.3
  } else if (typeof value === "string") {
    const text = utf8(value);
    if (value.startsWith("\ufeff") || fromUtf8(text) !== value) throw noForm("such text");
    out.push(head(MAJOR_TEXT, text.length));
    out.push(text);
  } else if (value instanceof Uint8Array) {
    out.push(head(MAJOR_BYTES, value.length));
    out.push(value);
  } else {
    if (depth >= MAX_CBOR_DEPTH) throw noForm("what is nested so deep");
    if (value instanceof Map) {
      out.push(head(MAJOR_MAP, value.size));
      for (const entry of value) for (const part of entry) write(part, out, depth + 1);
    } else if (Array.isArray(value)) {
      out.push(head(MAJOR_ARRAY, value.length));
      for (const item of value) write(item, out, depth + 1);
    } else throw noForm(`a value of type ${typeof value}`);
  }
}

function integer(value: number | bigint): Bytes {
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw noForm("a number so large");
  const whole = BigInt(value);
  return whole < 0n ? head(MAJOR_NEGATIVE, -1n - whole) : head(MAJOR_UNSIGNED, whole);
}

/** The first byte and the shortest argument (RFC 8949 §3). */
function head(major: number, argument: number | bigint): Bytes {
  let rest = BigInt(argument);
  if (rest > 0xffff_ffff_ffff_ffffn) throw noForm("an integer of more than 64 bits");
  const info = [27, 26, 25, 24].find((info) => rest >= LEAST_ARGUMENT[info]!);
  if (info === undefined) return Uint8Array.of((major << 5) | Number(rest));
  const out = new Uint8Array(1 + ARGUMENT_LENGTH[info]!);
  out[0] = (major << 5) | info;
  for (let at = out.length - 1; at > 0; at--) {
    out[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return out;
}

/** The shortest float that holds a number that is not whole. */
function float(value: number): Bytes {
  if (!Number.isFinite(value)) throw noForm(`${value}`);
  const view = new DataView(new ArrayBuffer(9));
  view.setFloat32(1, value);
  const single = view.getUint32(1);
  const exponent = ((single >>> 23) & 0xff) - 127;
  const sign = (single >>> 16) & 0x8000;
  // A half has 10 bits after the point and exponents from -14; below that it counts in units of 2^-24.
  const half = exponent < -14
    ? Math.abs(value) * 2 ** 24
    : exponent > 15
    ? NaN
    : ((exponent + 15) << 10) | ((single >>> 13) & 0x3ff);
  view.setUint16(1, sign | half);
  if (readFloat(view, 1, 2) === value) {
    view.setUint8(0, 0xf9);
    return new Uint8Array(view.buffer, 0, 3);
  }
  view.setFloat32(1, value);
  if (view.getFloat32(1) === value) {
    view.setUint8(0, 0xfa);
    return new Uint8Array(view.buffer, 0, 5);
  }
  view.setUint8(0, 0xfb);
  view.setFloat64(1, value);
  return new Uint8Array(view.buffer);
}

function noForm(what: string): TypeError {
  return new TypeError(`Cannot encode CBOR: ${what} has no strict form`);
}

/** UTF-8, and without the byte order mark in front that decoders drop. */
function isText(bytes: Uint8Array): boolean {
  try {
    return !fromUtf8(bytes).startsWith("\ufeff");
  } catch {
    return false;
  }
}

/** RFC 8949 appendix D for halves. */
function readFloat(view: DataView, at: number, length: number): number {
  if (length === 8) return view.getFloat64(at);
  if (length === 4) return view.getFloat32(at);
  const half = view.getUint16(at);
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 31) return fraction === 0 ? Infinity : NaN;
  const sign = half & 0x8000 ? -1 : 1;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (fraction + 1024) * 2 ** (exponent - 25));
}
