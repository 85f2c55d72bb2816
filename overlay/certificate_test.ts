import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  concat,
  ed25519PublicKey,
  ed25519Sign,
  HtxError,
  selectCrypto,
  toHex,
  u64be,
  utf8,
} from "../core/mod.ts";
import { encodeCbor } from "./cbor.ts";
import {
  decodeQuorumCertificate,
  encodeQuorumCertificate,
  type QuorumCertificate,
  type QuorumRefusal,
  signQuorum,
  verifyQuorumCertificate,
} from "./certificate.ts";

const HASH = selectCrypto().sha256(utf8("payload"));
const EPOCH = 7n;
const key = (n: number) => selectCrypto().sha256(u64be(n));
const publicKey = (n: number) => ed25519PublicKey(key(n));

/** Weights by key number, as the rules give them. */
function rules(weights: readonly number[], minEpoch = 0n) {
  return {
    payloadHash: HASH,
    weights: new Map(weights.map((weight, n) => [toHex(publicKey(n)), weight])),
    minEpoch,
  };
}
function certificate(weights: readonly number[], signers: readonly number[], hash = HASH, epoch = EPOCH) {
  return {
    payloadHash: hash,
    epoch,
    signers: signers.map(publicKey),
    weights: signers.map((n) => weights[n] ?? 1),
    sigs: signers.map((n) => signQuorum(hash, epoch, key(n))),
  } satisfies QuorumCertificate;
}

Deno.test("a certificate has the keys, the order and the signatures of the rules", () => {
  const made = certificate([3, 2.5], [0, 1]);
  const hex = toHex(encodeQuorumCertificate(made));
  const [a, b] = made.signers.map(toHex);
  const [x, y] = made.sigs.map(toHex);
  assertEquals(
    hex,
    "a5" +
      "6b7061796c6f616448617368" + "5820" + toHex(HASH) + // "payloadHash"
      "6565706f6368" + "07" + // "epoch"
      "677369676e657273" + "82" + `5820${a}5820${b}` + // "signers"
      "6777656967687473" + "82" + "03" + "f94100" + // "weights": 3, 2.5
      "6473696773" + "82" + `5840${x}5840${y}`, // "sigs"
  );
  assertEquals(made.sigs[0], ed25519Sign(concat(utf8("bn-aa1"), HASH, u64be(EPOCH)), key(0)));
  assertEquals(decodeQuorumCertificate(encodeQuorumCertificate(made)), made);
});

Deno.test("e-33: 67 % of the effective weight are enough, less is not", () => {
  const rows: [number[], number[], boolean][] = [
    [[67, 33], [0], true],
    [[66, 34], [0], false],
    [[66.999999999, 33.000000001], [0], false],
    [[66.9999, 33.0001], [0], false],
    [[0.67, 0.33], [0], true],
    [[13.4, 6.6], [0], true],
    [[0.67 - 1e-6, 0.33 + 1e-6], [0], false],
    [[6.7e-7, 3.3e-7], [0], true],
    [[6.69999e-7, 3.30001e-7], [0], false],
    [[201, 99], [0], true], // 0.67 * 300 is 201.00000000000003 in floats
    [[1, 1, 1], [0, 1], false],
    [[1, 1, 1], [0, 1, 2], true],
    [[50, 17, 33], [1, 0], true],
    [[0.1, 0.1, 0.1, 0.1, 0.1], [0, 1, 2], false],
    [[0.1, 0.1, 0.1, 0.1, 0.1], [0, 1, 2, 3], true],
    [[0], [0], false],
    [[], [], false],
  ];
  for (const [weights, signers, ok] of rows) {
    const verdict = verifyQuorumCertificate(certificate(weights, signers), rules(weights));
    assertEquals(verdict.ok || verdict.reason, ok || "quorum", weights.join());
  }
});

Deno.test("e-33: a forged certificate is refused for the right reason", () => {
  const weights = [40, 30, 20, 10];
  const good = certificate(weights, [0, 1, 2]);
  const verdict = verifyQuorumCertificate(good, rules(weights));
  assert(verdict.ok);
  assertEquals(verdict.share, 0.9);
  const flipped = (bit: number) => {
    const sig = good.sigs[1]!.slice();
    sig[bit >> 3]! ^= 1 << (bit & 7);
    return { ...good, sigs: [good.sigs[0]!, sig, good.sigs[2]!] };
  };
  const rows: [QuorumCertificate, QuorumRefusal, number?][] = [
    // 30 and 20 of 100, said to be 67.
    [{ ...certificate(weights, [1, 2]), weights: [40, 27] }, "weight-inflated", 0],
    [{ ...good, weights: [40, 30.000001, 20] }, "weight-inflated", 1],
    [{ ...good, weights: [40, 30, 19] }, "weight-understated", 2],
    [{ ...good, weights: [40, 30, 0] }, "weight-understated", 2],
    [certificate(weights, [0, 1, 0]), "duplicate-signer", 2],
    [certificate(weights, [0, 0]), "duplicate-signer", 1],
    [certificate(weights, [0, 1, 9]), "unknown-signer", 2],
    [flipped(0), "signature", 1],
    [flipped(300), "signature", 1],
    [flipped(511), "signature", 1],
    [{ ...good, sigs: good.sigs.toReversed() }, "signature", 0],
    [{ ...good, sigs: certificate(weights, [0, 1, 2], HASH, 8n).sigs }, "signature", 0],
    [{ ...good, sigs: certificate(weights, [0, 1, 2], key(5)).sigs }, "signature", 0],
    [
      { ...good, sigs: good.signers.map((_, n) => ed25519Sign(concat(HASH, u64be(EPOCH)), key(n))) },
      "signature",
      0,
    ],
    [certificate(weights, [0, 1, 2], key(5)), "payload-hash"],
  ];
  for (const [forged, reason, signer] of rows) {
    const verdict = verifyQuorumCertificate(forged, rules(weights));
    assertEquals([verdict.ok, !verdict.ok && verdict.reason, !verdict.ok && verdict.signer], [
      false,
      reason,
      signer,
    ]);
    // And it stays refused after a trip over the wire.
    const again = verifyQuorumCertificate(
      decodeQuorumCertificate(encodeQuorumCertificate(forged)),
      rules(weights),
    );
    assertEquals(again, verdict);
  }
});

Deno.test("e-33: an epoch below the last accepted is refused, the same and a later one are not", () => {
  const weights = [1];
  const at = (epoch: bigint) =>
    verifyQuorumCertificate(certificate(weights, [0], HASH, epoch), rules(weights, EPOCH));
  assertEquals(at(6n), { ok: false, reason: "epoch-too-low" });
  assertEquals(at(7n).ok, true);
  assertEquals(at(2n ** 64n - 1n).ok, true);
});

Deno.test("e-33: a key of small order signs nothing, though it is in the table", () => {
  const identity = new Uint8Array(32);
  identity[0] = 1;
  const sig = concat(identity, new Uint8Array(32));
  const forged = { payloadHash: HASH, epoch: EPOCH, signers: [identity], weights: [1], sigs: [sig] };
  const weak = { payloadHash: HASH, weights: new Map([[toHex(identity), 1]]) };
  assertEquals(verifyQuorumCertificate(forged, weak), { ok: false, reason: "signature", signer: 0 });
});

Deno.test("a weight whose last digits differ between machines is not a forgery", () => {
  const weights = [10 / 3, 1];
  const claimed = { ...certificate(weights, [0, 1]), weights: [3.333333333333333, 1.0000000000000002] };
  assertEquals(verifyQuorumCertificate(claimed, rules(weights)).ok, true);
});

Deno.test("e-32: decodeQuorumCertificate() names the field that is wrong", () => {
  const { payloadHash, signers, sigs } = certificate([1], [0]);
  type Value = Parameters<typeof encodeCbor>[0];
  const good: [string, Value][] = [
    ["payloadHash", payloadHash],
    ["epoch", 7],
    ["signers", [...signers]],
    ["weights", [1]],
    ["sigs", [...sigs]],
  ];
  decodeQuorumCertificate(encodeCbor(new Map(good)));
  const change = (at: number, value: Value) => encodeCbor(new Map(good.with(at, [good[at]![0], value])));
  const rows: [Uint8Array, string][] = [
    [new Uint8Array(0), "cbor"],
    [encodeCbor(new Map(good)).subarray(1), "cbor"],
    [concat(encodeCbor(new Map(good)), Uint8Array.of(0)), "cbor"],
    [encodeCbor(new Map(good.toReversed())), "payloadHash"],
    [encodeCbor(new Map(good.slice(0, 4))), "sigs"],
    [encodeCbor(new Map([...good, ["more", 1]])), "cbor"],
    [change(0, new Uint8Array(31)), "payloadHash"],
    [change(0, "text"), "payloadHash"],
    [change(1, -1), "epoch"],
    [change(1, 1.5), "epoch"],
    [change(2, signers[0]!), "signers"],
    [change(2, [new Uint8Array(33)]), "signers"],
    [change(2, []), "weights"],
    [change(3, []), "weights"],
    [change(3, [-1]), "weights"],
    [change(3, ["1"]), "weights"],
    [change(3, [2n ** 60n]), "weights"],
    [change(4, []), "sigs"],
    [change(4, [new Uint8Array(63)]), "sigs"],
    [change(3, Array(4097).fill(1)), "weights"],
  ];
  for (const [bytes, field] of rows) {
    const error = assertThrows(() => decodeQuorumCertificate(bytes), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", field]);
  }
});

Deno.test("encodeQuorumCertificate() refuses what could not be read back", () => {
  const good = certificate([1], [0]);
  assertThrows(() => encodeQuorumCertificate({ ...good, weights: [] }), TypeError);
  for (const weight of [NaN, -1, Infinity, 2 ** 53]) {
    assertThrows(() => encodeQuorumCertificate({ ...good, weights: [weight] }), RangeError);
  }
  const most = [Number.MAX_SAFE_INTEGER];
  assertEquals(decodeQuorumCertificate(encodeQuorumCertificate({ ...good, weights: most })).weights, most);
  assertThrows(() => encodeQuorumCertificate({ ...good, epoch: -1n }), RangeError);
  assertThrows(() => encodeQuorumCertificate({ ...good, signers: [new Uint8Array(31)] }), TypeError);
  assertEquals(decodeQuorumCertificate(encodeQuorumCertificate({ ...good, weights: [-0] })).weights, [0]);
});

Deno.test("certificates survive the wire, and arbitrary bytes give one or the typed error", () => {
  const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
  const any = fc.array(fc.tuple(bytes(32), fc.double({ min: 0, max: 1e9, noNaN: true }), bytes(64)), {
    maxLength: 4,
  });
  fc.assert(
    fc.property(
      any,
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.nat(),
      fc.nat(255),
      (rows, epoch, at, byte) => {
        const made: QuorumCertificate = {
          payloadHash: HASH,
          epoch,
          signers: rows.map(([signer]) => new Uint8Array(signer)),
          weights: rows.map(([, weight]) => weight + 0),
          sigs: rows.map(([, , sig]) => new Uint8Array(sig)),
        };
        const encoded = encodeQuorumCertificate(made);
        assertEquals(decodeQuorumCertificate(encoded), made);
        assertEquals(verifyQuorumCertificate(made, rules([1, 2])).ok, false);
        encoded[at % encoded.length] = byte;
        for (const input of [encoded, encoded.subarray(0, at % encoded.length)]) {
          try {
            assertEquals(encodeQuorumCertificate(decodeQuorumCertificate(input)), new Uint8Array(input));
          } catch (error) {
            assert(error instanceof HtxError && error.code === "MALFORMED" && error.field !== undefined);
          }
        }
      },
    ),
  );
});
