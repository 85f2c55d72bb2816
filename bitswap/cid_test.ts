import { assert, assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { CID as MultiformatsCid } from "multiformats/cid";
import { fromHex, HtxError, toHex } from "./_core.ts";
import {
  blockKey,
  cidOf,
  digestKey,
  inlineBlock,
  isTrustedCid,
  joinBlock,
  matchesCid,
  multihashHex,
  parseCid,
  RAW_CODEC,
  sha256Of,
  toRawCid,
} from "./cid.ts";
import { sharedVectors } from "./_testing.ts";

interface CidVectors {
  cids: {
    string: string;
    bytes_hex: string;
    version: number;
    codec: number;
    multihash_code: number;
    digest: string;
    base32_v1: string;
  }[];
  cids_from_content: {
    content_hex: string;
    codec: number;
    v1_bytes_hex: string;
    v1_base32: string;
    v0_string?: string;
  }[];
  invalid_cids: { string?: string; bytes_hex?: string; why: string }[];
  multihash_digests: { algorithm: string; bits: number; input_hex: string; multihash: string }[];
  invalid_multihashes: { hex: string; why: string }[];
}

const vectors = sharedVectors<CidVectors>("cid_multihash.json");

Deno.test("parseCid() reads the published CIDs, as text and as bytes", { ignore: !vectors }, () => {
  for (const vector of vectors!.cids) {
    for (const cid of [parseCid(vector.string), parseCid(fromHex(vector.bytes_hex))]) {
      assertEquals(toHex(cid.bytes), vector.bytes_hex);
      assertEquals(cid.version, vector.version as 0 | 1);
      assertEquals(cid.code, vector.codec);
      assertEquals(cid.multihash.code, vector.multihash_code);
      assertEquals(toHex(cid.multihash.digest), vector.digest);
      assertEquals(MultiformatsCid.createV1(cid.code, cid.multihash).toString(), vector.base32_v1);
    }
  }
});

Deno.test("cidOf() makes the published CIDs from their content", { ignore: !vectors }, () => {
  for (const vector of vectors!.cids_from_content) {
    const cid = cidOf(fromHex(vector.content_hex), vector.codec);
    assertEquals(toHex(cid.bytes), vector.v1_bytes_hex);
    assertEquals(cid.toString(), vector.v1_base32);
    if (vector.v0_string) assertEquals(cid.toV0().toString(), vector.v0_string);
  }
});

Deno.test("parseCid() refuses the published invalid CIDs and multihashes", { ignore: !vectors }, () => {
  for (const { string, bytes_hex: hex } of vectors!.invalid_cids) {
    const error = assertThrows(() => parseCid(string ?? fromHex(hex!)), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "cid"]);
  }
  for (const { hex } of vectors!.invalid_multihashes) {
    assertThrows(() => parseCid(fromHex("0155" + hex)), HtxError);
    assertThrows(() => parseCid(hex), HtxError);
  }
});

Deno.test("the published multihashes are reproduced, and only whole sha2-256 is trusted", {
  ignore: !vectors,
}, () => {
  let whole = 0;
  for (const { algorithm, bits, input_hex, multihash } of vectors!.multihash_digests) {
    const input = fromHex(input_hex);
    const cid = parseCid(fromHex("0155" + multihash));
    const name = algorithm.replace("sha2-", "sha").replace("dbl-", "");
    const expected = createHash(name).update(input).digest().subarray(0, bits / 8);
    assertEquals(toHex(cid.multihash.digest), toHex(expected));
    const trusted = algorithm === "sha2-256" && bits === 256;
    assertEquals(isTrustedCid(cid), trusted);
    assertEquals(matchesCid(cid, input), trusted);
    if (!trusted) continue;
    whole++;
    assertEquals(toHex(cidOf(input).multihash.bytes), multihash);
    assert(parseCid(multihash).equals(cidOf(input)));
    assertEquals(multihashHex(cid), multihash);
  }
  assert(whole > 0);
});

// The most important ones, so that a checkout without the shared vectors still has them.
const HELLO = new TextEncoder().encode("hello world");
const HELLO_HEX = "1220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";

Deno.test("the bare multihash in hex is read and printed", () => {
  const cid = parseCid(HELLO_HEX);
  assert(cid.equals(cidOf(HELLO)));
  assertEquals(cid.code, RAW_CODEC);
  assertEquals(cid.toString(), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
  assertEquals(multihashHex(cid), HELLO_HEX);
  assert(parseCid(HELLO_HEX.toUpperCase()).equals(cid));
});

Deno.test("every base spells the same CID", () => {
  const cid = cidOf(HELLO);
  for (
    const text of [
      "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
      "f01551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
    ]
  ) assert(parseCid(text).equals(cid), text);
  assertEquals(blockKey(cidOf(HELLO, 0x70).toV0()), blockKey(cid));
  assertEquals(digestKey(sha256Of(HELLO)), blockKey(cid));
  assert(toRawCid(cidOf(HELLO, 0x70)).equals(cid));
});

Deno.test("parseCid() refuses other spellings of a good CID", () => {
  const good = cidOf(HELLO).toString();
  const refused = [
    "",
    "b",
    good.slice(0, -1),
    good + "a",
    good + "=",
    good.toUpperCase(),
    " " + good,
    HELLO_HEX.slice(0, -2),
    HELLO_HEX + "00",
    "1220" + HELLO_HEX.slice(4).toUpperCase().replace("B", "b"),
    "1114" + "00".repeat(20),
    "z".repeat(10_000),
    // the last character of this length holds two stray bits
    good.slice(0, -1) + "f",
  ];
  for (const text of refused) {
    const error = assertThrows(() => parseCid(text), HtxError, undefined, JSON.stringify(text));
    assertEquals(error.field, "cid");
  }
  for (
    const hex of [
      "0155" + HELLO_HEX + "00",
      "8100" + "55" + HELLO_HEX,
      "01d500" + HELLO_HEX,
      "0155" + "9200" + HELLO_HEX.slice(2),
      "0255" + HELLO_HEX,
      "0155" + "1221" + HELLO_HEX.slice(4) + "00",
    ]
  ) assertThrows(() => parseCid(fromHex(hex)), HtxError, undefined, hex);
});

Deno.test("e-35 matchesCid() is false for a changed, truncated, empty or foreign block", () => {
  const cid = cidOf(HELLO);
  assert(matchesCid(cid, HELLO));
  assert(matchesCid(cid, [HELLO.subarray(0, 3), HELLO.subarray(3)]));
  assert(!matchesCid(cid, HELLO.subarray(1)));
  assert(!matchesCid(cid, new Uint8Array()));
  assert(!matchesCid(cid, HELLO.map((byte, i) => i === 4 ? byte ^ 1 : byte)));
  assert(matchesCid(cidOf(new Uint8Array()), new Uint8Array()));
});

/** Test fixtures of IPIP-512 (https://specs.ipfs.tech/ipips/ipip-0512/): 128 times "B", 129 times "A". CC0. */
const LONGEST_IDENTITY =
  "bafkqbaabijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbee";
const TOO_LONG_IDENTITY =
  "bafkqbaibifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqi";

Deno.test("inlineBlock() gives what an identity CID holds, up to 128 bytes, and nothing for a hash", () => {
  assertEquals(inlineBlock(parseCid("bafkqaaa")), new Uint8Array());
  assertEquals(inlineBlock(parseCid(LONGEST_IDENTITY)), new Uint8Array(128).fill(0x42));
  const error = assertThrows(() => inlineBlock(parseCid(TOO_LONG_IDENTITY)), HtxError);
  assertEquals([error.code, error.field], ["LIMIT_EXCEEDED", "cid"]);
  assertEquals(inlineBlock(cidOf(new Uint8Array(5))), undefined);
});

Deno.test("inlineBlock() gives a copy: whoever changes it changes no CID", () => {
  const cid = parseCid(LONGEST_IDENTITY);
  inlineBlock(cid)!.fill(0);
  assertEquals(inlineBlock(cid), new Uint8Array(128).fill(0x42));
});

Deno.test("parseCid() gives a CID or a MALFORMED error on any input, and what parses prints the same", () => {
  fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: 48 }), fc.string({ maxLength: 70 })), (input) => {
    try {
      const cid = parseCid(input);
      assert(parseCid(cid.bytes).equals(cid));
      assert(parseCid(cid.toString()).equals(cid));
    } catch (error) {
      assert(error instanceof HtxError && error.code === "MALFORMED");
    }
  }));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(5), (data, pieces) => {
    const size = Math.ceil(data.length / (pieces + 1)) || 1;
    const parts = [];
    for (let at = 0; at < data.length; at += size) parts.push(data.subarray(at, at + size));
    assertEquals(joinBlock(parts.length ? parts : [data]), data);
    assertEquals(cidOf(parts).toString(), cidOf(data).toString());
  }));
});
