import { assert, assertEquals, assertThrows } from "@std/assert";
import { ED25519_TORSION_SUBGROUP } from "@noble/curves/ed25519.js";
import fc from "fast-check";
import { fromHex, toHex } from "../core/bytes.ts";
import { ed25519PublicKey } from "../core/crypto.ts";
import { HtxError } from "../core/errors.ts";
import {
  VRF_OUTPUT_LENGTH,
  VRF_PROOF_LENGTH,
  vrfProofToHash,
  vrfProve,
  type VrfSuite,
  vrfVerify,
} from "./vrf.ts";

interface Row {
  example: number;
  suite: VrfSuite;
  sk: string;
  pk: string;
  alpha: string;
  pi: string;
  beta: string;
}

const ROWS: Row[] =
  JSON.parse(await Deno.readTextFile(new URL("./testdata/rfc9381_ecvrf.json", import.meta.url))).vectors;

for (const row of ROWS) {
  Deno.test(`example ${row.example} of RFC 9381 (${row.suite}): proof, output and verdict, all bytes`, () => {
    const { suite } = row;
    const [sk, pk, alpha, pi] = [row.sk, row.pk, row.alpha, row.pi].map(fromHex) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    assertEquals(toHex(ed25519PublicKey(sk)), row.pk);
    assertEquals(toHex(vrfProve(sk, alpha, { suite })), row.pi);
    assertEquals(toHex(vrfProofToHash(pi, { suite })), row.beta);
    assertEquals(vrfVerify(pk, alpha, pi, { suite }), { ok: true, beta: fromHex(row.beta) });
    assertEquals([pi.length, row.beta.length / 2], [VRF_PROOF_LENGTH, VRF_OUTPUT_LENGTH]);
    // Another input, another key, the other suite.
    const other = ROWS.find((candidate) => candidate.pk !== row.pk)!;
    assertEquals(vrfVerify(pk, fromHex("00"), pi, { suite }), { ok: false, reason: "proof" });
    assertEquals(vrfVerify(fromHex(other.pk), alpha, pi, { suite }), { ok: false, reason: "proof" });
    assertEquals(vrfVerify(pk, alpha, pi, { suite: suite === "TAI" ? "ELL2" : "TAI" }).ok, false);
  });
}

Deno.test("vrfVerify() refuses a proof with any one byte changed, and any other length", () => {
  const { pk, alpha, pi } = ROWS[3]!;
  const proof = fromHex(pi);
  for (let i = 0; i < proof.length; i++) {
    const changed = proof.slice();
    changed[i]! ^= 1 << (i % 8);
    assertEquals(vrfVerify(fromHex(pk), fromHex(alpha), changed).ok, false, `byte ${i}`);
  }
  for (const length of [0, 32, 79]) {
    assertEquals(vrfVerify(fromHex(pk), fromHex(alpha), proof.slice(0, length)), {
      ok: false,
      reason: "proof-encoding",
    });
  }
});

Deno.test("vrfVerify() refuses s + q, a second spelling of the same scalar", () => {
  const { pk, alpha, pi } = ROWS[3]!;
  const proof = fromHex(pi);
  const q = 2n ** 252n + 27742317777372353535851937790883648493n;
  let s = 0n;
  for (let i = 79; i >= 48; i--) s = (s << 8n) | BigInt(proof[i]!);
  s += q;
  for (let i = 48; i < 80; i++, s >>= 8n) proof[i] = Number(s & 0xffn);
  assertEquals(vrfVerify(fromHex(pk), fromHex(alpha), proof), { ok: false, reason: "proof-encoding" });
});

Deno.test("vrfVerify() refuses keys of small order, second spellings and points off the curve", () => {
  const { alpha, pi } = ROWS[3]!;
  const bad = [
    ...ED25519_TORSION_SUBGROUP,
    "0200000000000000000000000000000000000000000000000000000000000000", // off the curve
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p, that is 0
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = p + 1
    "0100000000000000000000000000000000000000000000000000000000000080", // x = 0 with a sign
    "00",
  ];
  for (const pk of bad) {
    assertEquals(
      vrfVerify(fromHex(pk), fromHex(alpha), fromHex(pi)),
      { ok: false, reason: "public-key" },
      pk,
    );
  }
});

Deno.test("vrfProofToHash() throws the typed error on what is no proof", () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(80).fill(0xff), new Uint8Array(81)]) {
    const error = assertThrows(() => vrfProofToHash(bytes), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "proof"]);
  }
  assertThrows(() => vrfProve(new Uint8Array(31), new Uint8Array()), TypeError);
});

Deno.test("a proof verifies under its key and input only, in both suites", () => {
  const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
  fc.assert(
    fc.property(
      bytes(32),
      bytes(32),
      fc.uint8Array({ maxLength: 80 }),
      fc.constantFrom<VrfSuite>("TAI", "ELL2"),
      (
        key,
        otherKey,
        alpha,
        suite,
      ) => {
        const proof = vrfProve(key, alpha, { suite });
        assertEquals(vrfProve(key, alpha, { suite }), proof, "the output is a function of key and input");
        const verdict = vrfVerify(ed25519PublicKey(key), alpha, proof, { suite });
        assert(verdict.ok);
        assertEquals(verdict.beta, vrfProofToHash(proof, { suite }));
        fc.pre(toHex(key) !== toHex(otherKey));
        assertEquals(vrfVerify(ed25519PublicKey(otherKey), alpha, proof, { suite }).ok, false);
      },
    ),
    { numRuns: 15 },
  );
});

Deno.test("on arbitrary bytes vrfVerify() answers and does not throw", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 34 }),
      fc.uint8Array(),
      fc.uint8Array({ minLength: 78, maxLength: 82 }),
      (
        key,
        alpha,
        proof,
      ) => {
        assertEquals(vrfVerify(key, alpha, proof).ok, false);
      },
    ),
    { numRuns: 100 },
  );
});
