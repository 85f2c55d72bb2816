import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { HtxError } from "../core/errors.ts";
import { fromHex, toHex } from "../core/bytes.ts";
import {
  type CborRefusal,
  type CborValue,
  checkCbor,
  decodeCbor,
  decodeCborMap,
  encodeCbor,
  MAX_CBOR_DEPTH,
  scanCbor,
} from "./cbor.ts";

interface AppendixRow {
  hex: string;
  decoded?: unknown;
  diagnostic?: string;
}

const APPENDIX_A: AppendixRow[] = JSON.parse(
  await Deno.readTextFile(new URL("./testdata/cbor_appendix_a.json", import.meta.url)),
);

/** The rows of appendix A that strict decoding refuses, each with its reason. */
const REFUSED: Record<string, CborRefusal> = {
  // One number, one spelling: whole numbers are integers.
  f90000: "whole-float",
  f98000: "whole-float", // -0.0
  f93c00: "whole-float",
  f97bff: "whole-float",
  fa47c35000: "whole-float",
  fa7f7fffff: "whole-float",
  fb7e37e43c8800759c: "whole-float",
  f9c400: "whole-float",
  // No rule of the overlay has a use for a number that is none.
  f97c00: "not-finite",
  f97e00: "not-finite",
  f9fc00: "not-finite",
  fa7f800000: "not-finite",
  fa7fc00000: "not-finite",
  faff800000: "not-finite",
  fb7ff0000000000000: "not-finite",
  fb7ff8000000000000: "not-finite",
  fbfff0000000000000: "not-finite",
  f7: "undefined",
  f0: "simple-value",
  f818: "simple-value",
  f8ff: "simple-value",
  // Tags, bignums among them: integers end at 64 bits.
  c249010000000000000000: "tag",
  c349010000000000000000: "tag",
  c074323031332d30332d32315432303a30343a30305a: "tag",
  c11a514b67b0: "tag",
  c1fb41d452d9ec200000: "tag",
  d74401020304: "tag",
  d818456449455446: "tag",
  d82076687474703a2f2f7777772e6578616d706c652e636f6d: "tag",
  a201020304: "key-not-text",
  // Definite lengths only.
  "5f42010243030405ff": "indefinite-length",
  "7f657374726561646d696e67ff": "indefinite-length",
  "9fff": "indefinite-length",
  "9f018202039f0405ffff": "indefinite-length",
  "9f01820203820405ff": "indefinite-length",
  "83018202039f0405ff": "indefinite-length",
  "83019f0203ff820405": "indefinite-length",
  "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff": "indefinite-length",
  bf61610161629f0203ffff: "indefinite-length",
  "826161bf61626163ff": "indefinite-length",
  bf6346756ef563416d7421ff: "indefinite-length",
};

/** Rows whose number JSON cannot hold. */
const BIG: Record<string, bigint> = {
  "1bffffffffffffffff": 18446744073709551615n,
  "3bffffffffffffffff": -18446744073709551616n,
};

Deno.test("decodeCbor() meets appendix A of RFC 8949, and refuses the rest of it for a stated reason", () => {
  let accepted = 0;
  for (const row of APPENDIX_A) {
    const bytes = fromHex(row.hex);
    const reason = REFUSED[row.hex];
    if (reason !== undefined) {
      const verdict = checkCbor(bytes);
      assert(!verdict.ok, row.hex);
      assertEquals(verdict.reason, reason, row.hex);
      continue;
    }
    assertEquals(checkCbor(bytes), { ok: true }, row.hex);
    const value = decodeCbor(bytes);
    if (row.hex in BIG) assertEquals(value, BIG[row.hex]);
    else if (row.diagnostic === undefined) assertEquals(plain(value), row.decoded, row.hex);
    else assertEquals(`h'${toHex(value as Uint8Array)}'`, row.diagnostic);
    assertEquals(toHex(encodeCbor(value)), row.hex);
    accepted++;
  }
  assertEquals([APPENDIX_A.length, accepted, Object.keys(REFUSED).length], [82, 41, 41]);
});

/** Appendix A as it stands upstream is the copy in this repository. */
Deno.test("the copied appendix A is the shared one", async () => {
  const url = new URL("../../shared/vectors/cbor_appendix_a.json", import.meta.url);
  let shared: AppendixRow[];
  try {
    shared = JSON.parse(await Deno.readTextFile(url));
  } catch (error) {
    console.log(`skipped: no shared vectors (${(error as Error).name})`);
    return;
  }
  assertEquals(APPENDIX_A, shared);
});

Deno.test("e-32: decodeCbor() refuses what is not the one spelling of its value", () => {
  const cases: [string, CborRefusal][] = [
    ["", "truncated"],
    ["0000", "trailing-bytes"],
    ["a16161", "truncated"],
    ["6261", "truncated"],
    ["5affffffff", "truncated"],
    ["9bffffffffffffffff", "truncated"],
    ["bbffffffffffffffff", "truncated"],
    ["a2616101616102", "duplicate-key"],
    ["1817", "not-shortest"],
    ["1900ff", "not-shortest"],
    ["1a0000ffff", "not-shortest"],
    ["1b00000000ffffffff", "not-shortest"],
    ["3817", "not-shortest"],
    ["580141", "not-shortest"],
    ["780141", "not-shortest"],
    ["980100", "not-shortest"],
    ["b801616100", "not-shortest"],
    ["1c", "reserved"],
    ["1e", "reserved"],
    ["ff", "indefinite-length"],
    ["61ff", "not-utf8"],
    ["63efbbbf", "not-utf8"], // a byte order mark, which decoders drop
    ["62c080", "not-utf8"],
    ["f814", "simple-value"], // false in two bytes
    ["fa3fc00000", "not-shortest"], // 1.5
    ["fb3ff8000000000000", "not-shortest"],
    ["fb3ff8000020000000", "not-shortest"], // a float32 value
    ["a1f600", "key-not-text"],
    ["81".repeat(MAX_CBOR_DEPTH + 1) + "00", "too-deep"],
    ["81".repeat(100_000) + "00", "too-deep"],
  ];
  for (const [hex, reason] of cases) {
    const verdict = checkCbor(fromHex(hex));
    assert(!verdict.ok, hex.slice(0, 40));
    assertEquals(verdict.reason, reason, hex.slice(0, 40));
    const error = assertThrows(() => decodeCbor(fromHex(hex)), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "cbor"]);
  }
  assertEquals(checkCbor(fromHex("81".repeat(MAX_CBOR_DEPTH) + "00")), { ok: true });
});

Deno.test("decodeCborMap() wants just the schema's keys in the schema's order", () => {
  const keys = ["zeta", "a", "B"] as const;
  const encode = (entries: [string, CborValue][]) => encodeCbor(new Map(entries));
  assertEquals(decodeCborMap(encode([["zeta", 1], ["a", 2], ["B", 3]]), keys), { zeta: 1, a: 2, B: 3 });
  assertEquals(toHex(encode([["zeta", 1], ["a", 2]])).slice(0, 12), "a2647a657461");
  const refused: [[string, CborValue][], string][] = [
    [[["a", 2], ["zeta", 1], ["B", 3]], "zeta"],
    [[["zeta", 1], ["a", 2]], "B"],
    [[["zeta", 1], ["B", 3], ["a", 2]], "a"],
    [[["zeta", 1], ["a", 2], ["B", 3], ["c", 4]], "cbor"],
    [[], "zeta"],
  ];
  for (const [entries, field] of refused) {
    assertEquals(assertThrows(() => decodeCborMap(encode(entries), keys), HtxError).field, field);
  }
  assertThrows(() => decodeCborMap(encodeCbor([1]), keys), HtxError);
  // Keys that mean something to JavaScript are keys like any other.
  assertEquals(Object.keys(decodeCborMap(encode([["__proto__", 1]]), ["__proto__"])), ["__proto__"]);
});

const leaf: fc.Arbitrary<CborValue> = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: -(2n ** 64n), max: -(2n ** 53n) }),
  fc.string({ unit: "grapheme" }).filter((text) => !text.startsWith("\ufeff")),
  fc.uint8Array(),
  fc.boolean(),
  fc.constant(null),
  fc.double({ noNaN: true, noDefaultInfinity: true, noInteger: true }),
);
const value: fc.Arbitrary<CborValue> = fc.letrec<{ item: CborValue }>((tie) => ({
  item: fc.oneof(
    { maxDepth: 4 },
    leaf,
    fc.array(tie("item"), { maxLength: 5 }),
    fc.array(fc.tuple(fc.string(), tie("item")), { maxLength: 5 }).map((entries) => new Map(entries)),
  ),
})).item;

Deno.test("what encodeCbor() writes, decodeCbor() reads back, and no proper prefix of it", () => {
  fc.assert(fc.property(value, (value) => {
    const bytes = encodeCbor(value);
    assertEquals(decodeCbor(bytes), value);
    assertEquals(scanCbor(bytes), { ok: true, length: bytes.length });
    for (let i = 0; i < bytes.length; i++) assertEquals(scanCbor(bytes.subarray(0, i)), undefined);
    const odd = new Uint8Array(bytes.length + 4);
    odd.set(bytes, 3);
    assertEquals(decodeCbor(odd.subarray(3, 3 + bytes.length)), value);
  }));
});

Deno.test("every half is written as one and read, and no other form of its value is", () => {
  for (let half = 0; half < 0x1_0000; half++) {
    const exponent = (half >> 10) & 0x1f;
    const magnitude = exponent === 0
      ? (half & 0x3ff) * 2 ** -24
      : (1 + (half & 0x3ff) / 1024) * 2 ** (exponent - 15);
    const value = half & 0x8000 ? -magnitude : magnitude;
    if (exponent === 31 || Number.isInteger(value)) continue; // refused as what they are
    const bytes = Uint8Array.of(0xf9, half >> 8, half & 0xff);
    assertEquals(decodeCbor(bytes), value);
    assertEquals(encodeCbor(value), bytes);
    const single = new Uint8Array(5);
    single[0] = 0xfa;
    new DataView(single.buffer).setFloat32(1, value);
    assertEquals(checkCbor(single), { ok: false, reason: "not-shortest", at: 0 });
  }
});

Deno.test("encodeCbor() refuses what decodeCbor() would not read back", () => {
  const deep = (levels: number): CborValue => levels === 0 ? 0 : [deep(levels - 1)];
  const refused = [
    NaN,
    -Infinity,
    2 ** 53,
    -(2 ** 60),
    1e300,
    2n ** 64n,
    -(2n ** 64n) - 1n,
    deep(17),
    "\ufefftext",
  ];
  for (const value of refused) {
    assertThrows(() => encodeCbor(value), TypeError, "Cannot encode CBOR");
    assertThrows(() => encodeCbor(new Map([["key", [value]]])), TypeError, "Cannot encode CBOR");
  }
  for (const value of [2 ** 53 - 1, 2n ** 53n, 2n ** 64n - 1n, -(2n ** 64n), 5e-324, deep(16)]) {
    assertEquals(decodeCbor(encodeCbor(value)), value);
  }
});

Deno.test("on arbitrary bytes decodeCbor() gives a value that encodes to them, or the typed error", () => {
  const near = fc.tuple(value, fc.nat(), fc.nat(255)).map(([value, at, byte]) => {
    const bytes = encodeCbor(value);
    bytes[at % bytes.length] = byte;
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), near), (bytes) => {
      let value;
      try {
        value = decodeCbor(bytes);
      } catch (error) {
        assert(error instanceof HtxError && error.code === "MALFORMED" && error.field === "cbor");
        assert(!checkCbor(bytes).ok);
        return;
      }
      assertEquals(toHex(encodeCbor(value)), toHex(bytes));
    }),
    { numRuns: 2_000 },
  );
});

function plain(value: CborValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
  return Array.isArray(value) ? value.map(plain) : value;
}
