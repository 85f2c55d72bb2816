import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { decodeVarint, encodeVarint, MAX_VARINT, varintLength, writeVarint } from "./varint.ts";
import { fromHex, toHex } from "./bytes.ts";
import { HtxError } from "./errors.ts";

// RFC 9000 A.1, without the 8-byte example that passes 2^53, and the edges of each size.
const VALUES: [number, string][] = [
  [0, "00"],
  [37, "25"],
  [63, "3f"],
  [64, "4040"],
  [15293, "7bbd"],
  [16383, "7fff"],
  [16384, "80004000"],
  [494878333, "9d7f3e7d"],
  [1073741823, "bfffffff"],
  [1073741824, "c000000040000000"],
  [9007199254740991, "c01fffffffffffff"],
];

Deno.test("encodeVarint() and decodeVarint() give the values of RFC 9000 A.1 and every edge", () => {
  for (const [value, hex] of VALUES) {
    assertEquals(toHex(encodeVarint(value)), hex);
    assertEquals(decodeVarint(fromHex(hex)), { value, length: hex.length / 2 });
  }
});

Deno.test("decodeVarint() takes non-minimal forms in every size (e-26)", () => {
  for (const hex of ["25", "4025", "80000025", "c000000000000025"]) {
    assertEquals(decodeVarint(fromHex(hex)), { value: 37, length: hex.length / 2 });
  }
});

Deno.test("decodeVarint() asks for more at every prefix", () => {
  for (const [, hex] of VALUES) {
    const bytes = fromHex(hex);
    for (let n = 0; n < bytes.length; n++) assertEquals(decodeVarint(bytes.subarray(0, n)), undefined);
  }
});

Deno.test("decodeVarint() refuses 2^53 and above, and never rounds", () => {
  for (const hex of ["c020000000000000", "c020000000000001", "ffffffffffffffff", "c2197c5eff14e88c"]) {
    const error = assertThrows(() => decodeVarint(fromHex(hex)), HtxError);
    assertEquals(error.code, "MALFORMED");
  }
});

Deno.test("varintLength() refuses what is no integer from 0 to 2^53-1", () => {
  for (const value of [-1, 0.5, NaN, Infinity, MAX_VARINT + 1]) {
    assertThrows(() => varintLength(value), RangeError);
  }
});

Deno.test("writeVarint() refuses to write past the end", () => {
  assertThrows(() => writeVarint(64, new Uint8Array(4), 3), RangeError);
});

Deno.test("varints survive a round trip at any offset", () => {
  fc.assert(fc.property(fc.maxSafeNat(), fc.nat(9), (value, offset) => {
    const bytes = new Uint8Array(offset + 8);
    const length = writeVarint(value, bytes, offset);
    assertEquals(decodeVarint(bytes, offset), { value, length });
    assertEquals(length, varintLength(value));
  }));
});
