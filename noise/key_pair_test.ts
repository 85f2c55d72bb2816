import { assert, assertEquals, assertFalse, assertNotEquals, assertThrows } from "@std/assert";
import { inspect } from "node:util";
import { fromHex, selectCrypto, toHex } from "../core/mod.ts";
import { KeyPair, publicKeyFromHex } from "./key_pair.ts";

// RFC 7748 §6.1, Alice's.
const PRIVATE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";

Deno.test("KeyPair: fromHex, fromBytes and export agree with RFC 7748 §6.1", () => {
  for (
    const pair of [
      KeyPair.fromHex(PRIVATE),
      KeyPair.fromHex(PRIVATE.toUpperCase()),
      KeyPair.fromBytes(fromHex(PRIVATE)),
    ]
  ) {
    assertEquals(toHex(pair.publicKey), PUBLIC);
    assertEquals(pair.publicKeyHex, PUBLIC);
    assertEquals(pair.exportPrivateHex(), PRIVATE);
    assertEquals(toHex(pair.exportPrivateBytes()), PRIVATE);
    assertEquals(pair.fingerprint, toHex(selectCrypto().sha256(fromHex(PUBLIC))).slice(0, 16));
  }
});

Deno.test("KeyPair.generate() gives another pair each time; a fixed random source gives a fixed one (e-50)", () => {
  assertNotEquals(KeyPair.generate().publicKeyHex, KeyPair.generate().publicKeyHex);
  assertEquals(KeyPair.generate({ random: () => fromHex(PRIVATE) }).publicKeyHex, PUBLIC);
  assertThrows(() => KeyPair.generate({ random: () => new Uint8Array(31) }), TypeError);
});

Deno.test("KeyPair: no way of printing shows the private half (e-39)", () => {
  const pair = KeyPair.fromHex(PRIVATE);
  pair.dhKey(selectCrypto("native"));
  pair.dhKey(selectCrypto("noble"));
  const decimal = [...fromHex(PRIVATE)].slice(0, 4).join(", ");
  const shown = [
    JSON.stringify(pair),
    JSON.stringify({ nested: [pair] }),
    String(pair),
    `${pair}`,
    pair + "",
    Deno.inspect(pair),
    Deno.inspect({ deep: { pair } }, { depth: 9, showHidden: true }),
    inspect(pair, { depth: 9, showHidden: true }),
    Object.entries(pair).join(),
    Reflect.ownKeys(pair).join(),
    new Error("x", { cause: pair }).stack ?? "",
    Deno.inspect(new Error("x", { cause: pair })),
    JSON.stringify(structuredClone(pair)),
  ];
  for (const text of shown) {
    assertFalse(text.toLowerCase().includes(PRIVATE), text);
    assertFalse(text.includes(PRIVATE.slice(0, 16)), text);
    assertFalse(text.includes(decimal), text);
  }
  assertEquals(JSON.stringify(pair), `{"publicKey":"${PUBLIC}"}`);
  assertEquals(String(pair), `KeyPair(${PUBLIC})`);
});

Deno.test("KeyPair: what is no key is a TypeError that does not repeat it", () => {
  const secret = PRIVATE.slice(0, 62);
  for (const text of [secret, PRIVATE + "00", "zz" + secret, " " + PRIVATE.slice(1), ""]) {
    const error = assertThrows(() => KeyPair.fromHex(text), TypeError, "64 hexadecimal digits");
    assertFalse(text.length > 2 && error.message.includes(text));
  }
  for (const length of [0, 31, 33, 64]) {
    assertThrows(() => KeyPair.fromBytes(new Uint8Array(length)), TypeError);
  }
  // @ts-expect-error: not bytes
  assertThrows(() => KeyPair.fromBytes(PRIVATE), TypeError);
  // @ts-expect-error: not text
  assertThrows(() => KeyPair.fromHex(fromHex(PRIVATE)), TypeError);
});

Deno.test("KeyPair: bytes are copied in and out", () => {
  const bytes = fromHex(PRIVATE);
  const pair = KeyPair.fromBytes(bytes);
  bytes.fill(0);
  pair.publicKey.fill(0);
  pair.exportPrivateBytes().fill(0);
  assertEquals([pair.exportPrivateHex(), pair.publicKeyHex], [PRIVATE, PUBLIC]);
});

Deno.test("KeyPair: the imported key of a backend is made once; after wipe() there is none", () => {
  const pair = KeyPair.fromHex(PRIVATE);
  for (const crypto of [selectCrypto("native"), selectCrypto("noble")]) {
    assert(pair.dhKey(crypto) === pair.dhKey(crypto));
    assertEquals(toHex(pair.dhKey(crypto).publicKey), PUBLIC);
  }
  pair.wipe();
  pair.wipe();
  assertThrows(() => pair.dhKey(selectCrypto()), TypeError, "wiped");
  assertThrows(() => pair.exportPrivateHex(), TypeError, "wiped");
  assertEquals(pair.publicKeyHex, PUBLIC);
});

Deno.test("publicKeyFromHex() takes canonical keys alone", () => {
  assertEquals(toHex(publicKeyFromHex(PUBLIC)), PUBLIC);
  for (
    const text of [
      PUBLIC.slice(2),
      "",
      "zz" + PUBLIC.slice(2),
      "00".repeat(31) + "80",
      "ed" + "ff".repeat(30) + "7f",
    ]
  ) {
    assertThrows(() => publicKeyFromHex(text), TypeError);
  }
});
