import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ed25519PublicKey, ed25519Sign, fromHex, HtxError, selectCrypto, toHex, u64be } from "../core/mod.ts";
import { type QuorumCertificate, signQuorum } from "./certificate.ts";
import {
  aliasPayload,
  aliasPayloadHash,
  type AliasRecord,
  type AliasState,
  type ChainEvidence,
  type ChainName,
  evaluateAlias,
  evaluateFinality,
  finalChains,
  formatAlias,
  formatServiceUri,
  parseAlias,
  parseServiceUri,
  resolveAlias,
  serviceId,
  signAlias,
  verifyServiceKey,
} from "./naming.ts";

const NOW = 1_800_000_000;
const DAY = 86_400;
const KEY = new Uint8Array(32).fill(1);
const PK = ed25519PublicKey(KEY);

Deno.test("a service id is SHA-256 of the key, and certifies it", () => {
  const id = serviceId(PK);
  const text = `betanet://${toHex(id)}`;
  assertEquals(parseServiceUri(text), { id });
  assertEquals(parseServiceUri(`${text}/`), { id, resource: "" });
  assertEquals(parseServiceUri(`${text}/a/b?c=%20#d`), { id, resource: "a/b?c=%20#d" });
  for (const tail of ["", "/", "/x", "//"]) {
    assertEquals(formatServiceUri(parseServiceUri(text + tail)), text + tail);
  }
  assertEquals(verifyServiceKey(parseServiceUri(text), PK), { ok: true });
  for (const key of [ed25519PublicKey(new Uint8Array(32)), new Uint8Array(0), PK.subarray(1)]) {
    assertEquals(verifyServiceKey(parseServiceUri(text), key), { ok: false, reason: "other-key" });
  }
});

Deno.test("parseServiceUri() refuses every other spelling", () => {
  const hex = "ab".repeat(32);
  for (
    const text of [
      "",
      "betanet://",
      `betanet://${hex.slice(1)}`,
      `betanet://${hex}0`,
      `betanet://${hex.toUpperCase()}`,
      `BETANET://${hex}`,
      `betanet:${hex}`,
      `betanet://${hex}?x`,
      `betanet://${hex}/a b`,
      `betanet://${hex}/\n`,
      `betanet://${hex}\n`,
      `betanet://${hex}/ä`,
      ` betanet://${hex}`,
      `betanet://${hex}/${"a".repeat(9_000)}`,
    ]
  ) {
    const error = assertThrows(() => parseServiceUri(text), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "uri"], text.slice(0, 90));
  }
  assertThrows(() => formatServiceUri({ id: new Uint8Array(32), resource: "a b" }), TypeError);
  assertThrows(() => formatServiceUri({ id: new Uint8Array(31) }), TypeError);
});

const record = (seq: bigint, change: Partial<AliasRecord> = {}, key = KEY): AliasRecord =>
  signAlias({ pk: ed25519PublicKey(key), seq, exp: BigInt(NOW + DAY), ...change }, key);

Deno.test("an alias record is one line, and its signature covers the line without sig=", () => {
  const made = record(5n);
  const sig = btoa(String.fromCharCode(...made.sig));
  const line = `betanet1 pk=${toHex(PK)} seq=5 sig=${sig} exp=${NOW + DAY}`;
  assertEquals(formatAlias(made), line);
  assertEquals(parseAlias(line), made);
  const payload = `betanet1 pk=${toHex(PK)} seq=5 exp=${NOW + DAY}`;
  assertEquals(new TextDecoder().decode(aliasPayload(made)), payload);
  assertEquals(made.sig, ed25519Sign(new TextEncoder().encode(payload), KEY));
  assertEquals(aliasPayloadHash(made), selectCrypto().sha256(new TextEncoder().encode(payload)));
});

Deno.test("parseAlias() is strict: order, single spaces, ranges, no extra fields", () => {
  const pk = `pk=${"ab".repeat(32)}`;
  const sig = `sig=${"A".repeat(85)}A==`;
  const rows: [string, string][] = [
    ["", "alias"],
    ["betanet1", "pk"],
    [`betanet2 ${pk} seq=1 ${sig} exp=1`, "alias"],
    [` betanet1 ${pk} seq=1 ${sig} exp=1`, "alias"],
    [`betanet1  ${pk} seq=1 ${sig} exp=1`, "pk"],
    [`betanet1 seq=1 ${pk} ${sig} exp=1`, "pk"],
    [`betanet1 ${pk} ${sig} seq=1 exp=1`, "seq"],
    [`betanet1 ${pk} seq=1 exp=1 ${sig}`, "sig"],
    [`betanet1 ${pk} seq=1 ${sig}`, "exp"],
    [`betanet1 ${pk} seq=1 ${sig} exp=1 `, "alias"],
    [`betanet1 ${pk} seq=1 ${sig} exp=1 more=1`, "alias"],
    [`betanet1 ${pk} seq=1 ${sig} exp=1\n`, "exp"],
    [`betanet1\t${pk} seq=1 ${sig} exp=1`, "alias"],
    [`betanet1 ${pk.toUpperCase()} seq=1 ${sig} exp=1`, "pk"],
    [`betanet1 ${pk.slice(0, -1)} seq=1 ${sig} exp=1`, "pk"],
    [`betanet1 ${pk}00 seq=1 ${sig} exp=1`, "pk"],
    [`betanet1 ${pk.replace("abab", "ABAB")} seq=1 ${sig} exp=1`, "pk"],
    ...["", "01", "-1", "+1", "1.0", "1e3", "0x1", "18446744073709551616", "99999999999999999999", "９"]
      .flatMap((
        n,
      ): [string, string][] => [
        [`betanet1 ${pk} seq=${n} ${sig} exp=1`, "seq"],
        [`betanet1 ${pk} seq=1 ${sig} exp=${n}`, "exp"],
      ]),
    ...["", "A", `${"A".repeat(86)}`, `${"A".repeat(85)}B==`, `${"A".repeat(85)}A=`, `${"-".repeat(85)}A==`]
      .map((
        text,
      ): [string, string] => [`betanet1 ${pk} seq=1 sig=${text} exp=1`, "sig"]),
  ];
  for (const [line, field] of rows) {
    const error = assertThrows(() => parseAlias(line), HtxError, undefined, line);
    assertEquals([error.code, error.field], ["MALFORMED", field], line);
  }
  const largest = parseAlias(`betanet1 ${pk} seq=18446744073709551615 ${sig} exp=18446744073709551615`);
  assertEquals([largest.seq, largest.exp], [2n ** 64n - 1n, 2n ** 64n - 1n]);
  assertThrows(() => signAlias({ pk: PK, seq: 2n ** 64n, exp: 0n }, KEY), RangeError);
  assertThrows(() => formatAlias({ ...record(1n), sig: new Uint8Array(63) }), TypeError);
});

Deno.test("what parsers of names read, they write; anything else is the typed error", () => {
  const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const bytes = (length: number) =>
    fc.uint8Array({ minLength: length, maxLength: length }).map((b) => new Uint8Array(b));
  const records = fc.record({ pk: bytes(32), seq: u64, sig: bytes(64), exp: u64 });
  fc.assert(fc.property(records, (made) => assertEquals(parseAlias(formatAlias(made)), made)));
  const near = fc.tuple(records, fc.nat(), fc.string({ maxLength: 2 })).map(([made, at, text]) => {
    const line = formatAlias(made);
    return line.slice(0, at % line.length) + text + line.slice((at % line.length) + 1);
  });
  fc.assert(fc.property(fc.oneof(fc.string(), near), (line) => {
    for (
      const roundTrip of [
        (t: string) => formatAlias(parseAlias(t)),
        (t: string) => formatServiceUri(parseServiceUri(t)),
      ]
    ) {
      try {
        assertEquals(roundTrip(line), line);
      } catch (error) {
        assert(error instanceof HtxError && error.code === "MALFORMED" && error.field !== undefined);
      }
    }
  }));
});

const on = (chain: ChainName, payloadHash: Uint8Array): ChainEvidence =>
  chain === "handshake"
    ? { chain, payloadHash, confirmations: 12, quietSeconds: 3_600 }
    : { chain, payloadHash, finalized: true };
const final = (made: AliasRecord, chains: ChainName[] = ["handshake", "filecoin"]) =>
  chains.map((chain) => on(chain, aliasPayloadHash(made)));

Deno.test("a chain's finality is its own rule: 12 confirmations and a quiet hour, or finalized", () => {
  const payloadHash = new Uint8Array(32);
  const rows: [number, number, string][] = [
    [11, 3_600, "confirmations"],
    [12, 3_599, "reorg"],
    [12, 3_600, "ok"],
    [13, 3_601, "ok"],
    [1_000, 0, "reorg"],
    [NaN, 3_600, "confirmations"],
  ];
  const outcome = (evidence: ChainEvidence) => {
    const verdict = evaluateFinality(evidence);
    return verdict.ok ? "ok" : verdict.reason;
  };
  for (const [confirmations, quietSeconds, expected] of rows) {
    assertEquals(outcome({ chain: "handshake", payloadHash, confirmations, quietSeconds }), expected);
  }
  for (const chain of ["filecoin", "ethereum-l2"] as const) {
    assertEquals(outcome({ chain, payloadHash, finalized: true }), "ok");
    assertEquals(outcome({ chain, payloadHash, finalized: false }), "not-finalized");
  }
});

Deno.test("a record is valid when its payload is final on 2 of 3 chains, each counted once", () => {
  const made = record(1n);
  const hash = aliasPayloadHash(made);
  const other = aliasPayloadHash(record(2n));
  const rows: [ChainEvidence[], number][] = [
    [[], 0],
    [[on("handshake", hash)], 1],
    [[on("handshake", hash), on("handshake", hash)], 1],
    [[on("handshake", hash), on("filecoin", other)], 1],
    [[on("handshake", hash), on("filecoin", hash)], 2],
    [[on("filecoin", hash), on("ethereum-l2", hash)], 2],
    [[on("filecoin", hash), on("ethereum-l2", hash), on("handshake", hash)], 3],
    [[on("filecoin", hash), { chain: "ethereum-l2", payloadHash: hash, finalized: false }], 1],
  ];
  for (const [evidence, chains] of rows) {
    assertEquals(finalChains(hash, evidence).length, chains);
    const verdict = evaluateAlias(undefined, made, { now: NOW, evidence });
    assertEquals(verdict.ok || verdict.reason, chains >= 2 || "not-final");
    const finality = verdict.conditions.find(({ name }) => name === "finality");
    assertEquals([finality?.value, finality?.bound, finality?.held], [chains, 2, chains >= 2]);
  }
});

Deno.test("a chain of another name makes nothing final, though untyped evidence calls it finalized", () => {
  const made = record(1n);
  const payloadHash = aliasPayloadHash(made);
  for (const chain of ["bitcoin", "Filecoin", "", "__proto__", null]) {
    // As it comes from a file or a wire, where types are only hoped for.
    const foreign: ChainEvidence = {
      ...JSON.parse(JSON.stringify({ chain, finalized: true, confirmations: 99, quietSeconds: 9_999 })),
      payloadHash,
    };
    assertEquals(evaluateFinality(foreign), { ok: false, reason: "unknown-chain" });
    const evidence = [on("filecoin", payloadHash), foreign];
    assertEquals(finalChains(payloadHash, evidence), ["filecoin"]);
    const verdict = evaluateAlias(undefined, made, { now: NOW, evidence });
    assertEquals(verdict.ok || verdict.reason, "not-final");
  }
});

/** The state after a record made final. */
function settled(seq: bigint, change: Partial<AliasRecord> = {}): AliasState {
  const made = record(seq, change);
  const verdict = evaluateAlias(undefined, made, { now: NOW, evidence: final(made) });
  assert(verdict.ok);
  return verdict.state;
}

Deno.test("e-33: only a strictly higher seq replaces a record", () => {
  const state = settled(5n);
  const rows: [bigint, boolean][] = [[0n, false], [4n, false], [5n, false], [6n, true], [
    2n ** 64n - 1n,
    true,
  ]];
  for (const [seq, ok] of rows) {
    const made = record(seq, { exp: BigInt(NOW + 2 * DAY) });
    const verdict = evaluateAlias(state, made, { now: NOW, evidence: final(made) });
    assertEquals(verdict.ok || verdict.reason, ok || "seq", `${seq}`);
    assertEquals(verdict.state?.record.seq, ok ? seq : 5n);
  }
});

Deno.test("e-33: expired records and bad signatures are refused, also with finality", () => {
  for (const [exp, ok] of [[NOW - 1, false], [NOW, false], [NOW + 1, true]] as const) {
    const made = record(1n, { exp: BigInt(exp) });
    const verdict = evaluateAlias(undefined, made, { now: NOW, evidence: final(made) });
    assertEquals(verdict.ok || verdict.reason, ok || "expired");
  }
  const good = record(1n);
  const bad: AliasRecord[] = [
    { ...good, sig: new Uint8Array(64) },
    { ...good, seq: 2n },
    { ...good, exp: good.exp + 1n },
    { ...good, pk: ed25519PublicKey(new Uint8Array(32)) },
    signAlias({ ...good }, new Uint8Array(32)),
    { ...good, pk: fromHex("01" + "00".repeat(31)), sig: fromHex("01" + "00".repeat(63)) }, // a key of small order
  ];
  for (const made of bad) {
    const verdict = evaluateAlias(undefined, made, { now: NOW, evidence: final(made) });
    assertEquals(verdict.ok || verdict.reason, "signature");
  }
  const other = record(9n, {}, new Uint8Array(32).fill(2));
  const verdict = evaluateAlias(settled(1n), other, { now: NOW, evidence: final(other) });
  assertEquals(verdict.ok || verdict.reason, "other-key");
});

Deno.test("resolveAlias() refuses a record that has expired since, and its seq stays remembered", () => {
  const state = settled(5n);
  assertEquals(resolveAlias(undefined, NOW), { ok: false, reason: "unknown" });
  assertEquals(resolveAlias(state, NOW + DAY - 1), { ok: true, record: state.record, via: "finality" });
  assertEquals(resolveAlias(state, NOW + DAY), { ok: false, reason: "expired" });
  const late = record(5n, { exp: BigInt(NOW + 9 * DAY) });
  const verdict = evaluateAlias(state, late, { now: NOW + 2 * DAY, evidence: final(late) });
  assertEquals(verdict.ok || verdict.reason, "seq");
});

const SIGNERS = [1, 2, 3].map((n) => selectCrypto().sha256(u64be(n)));
const WEIGHTS = new Map(SIGNERS.map((key, i) => [toHex(ed25519PublicKey(key)), [67, 30, 3][i]!]));
function certificate(made: AliasRecord, signers = [0], epoch = 3n): QuorumCertificate {
  const payloadHash = aliasPayloadHash(made);
  return {
    payloadHash,
    epoch,
    signers: signers.map((n) => ed25519PublicKey(SIGNERS[n]!)),
    weights: signers.map((n) => [67, 30, 3][n]!),
    sigs: signers.map((n) => signQuorum(payloadHash, epoch, SIGNERS[n]!)),
  };
}
function emergency(
  made: AliasRecord,
  lastFinality: Partial<Record<ChainName, number>> = {},
  cert = certificate(made),
) {
  return { now: NOW, emergency: { lastFinality, certificate: cert, weights: WEIGHTS } };
}

Deno.test("an emergency advance needs 14 days in which fewer than 2 chains gave finality", () => {
  const made = record(1n);
  const ago = (days: number) => NOW - days * DAY;
  const rows: [Partial<Record<ChainName, number>>, boolean][] = [
    [{}, true],
    [{ handshake: NOW }, true],
    [{ handshake: NOW, filecoin: ago(14) }, true],
    [{ handshake: NOW, filecoin: ago(14) + 1 }, false],
    [{ filecoin: ago(14), "ethereum-l2": ago(14), handshake: ago(14) }, true],
    [{ filecoin: ago(1), "ethereum-l2": ago(13), handshake: ago(900) }, false],
    [{ filecoin: NOW, "ethereum-l2": NOW, handshake: NOW }, false],
    [{ filecoin: NOW + 60, "ethereum-l2": NOW + 60 }, false],
  ];
  for (const [lastFinality, ok] of rows) {
    const verdict = evaluateAlias(undefined, made, emergency(made, lastFinality));
    assertEquals(verdict.ok || verdict.reason, ok || "no-outage", JSON.stringify(lastFinality));
    if (verdict.ok) assertEquals([verdict.state.via, verdict.state.epoch], ["emergency", 3n]);
  }
});

Deno.test("an emergency advance needs a good certificate, and all that a record needs otherwise", () => {
  const made = record(6n);
  const other = record(7n);
  const good = certificate(made, [0, 1]);
  const state: AliasState = { ...settled(5n), epoch: 3n };
  const rows: [AliasRecord, QuorumCertificate, string][] = [
    [made, good, "ok"],
    [made, certificate(made, [0]), "ok"], // exactly 67 %
    [made, certificate(made, [1, 2]), "quorum"],
    [made, certificate(made, [0], 2n), "epoch-too-low"],
    [made, certificate(other), "payload-hash"],
    [made, certificate(made, [0, 0]), "duplicate-signer"],
    [made, { ...good, weights: [67, 33] }, "weight-inflated"],
    [made, { ...good, sigs: [good.sigs[0]!, new Uint8Array(64)] }, "signature"],
    [record(5n), certificate(record(5n)), "seq"],
    [record(6n, { exp: BigInt(NOW) }), certificate(record(6n, { exp: BigInt(NOW) })), "expired"],
  ];
  for (const [made, cert, expected] of rows) {
    const verdict = evaluateAlias(state, made, emergency(made, {}, cert));
    assertEquals(verdict.ok ? "ok" : verdict.reason, expected);
    if (!verdict.ok) assertEquals(verdict.state, state);
  }
});

Deno.test("when finality resumes, the first final record with seq at or above supersedes an emergency one", () => {
  const urgent = record(7n);
  const advanced = evaluateAlias(settled(5n), urgent, emergency(urgent));
  assert(advanced.ok);
  const again = evaluateAlias(advanced.state, record(7n, { exp: BigInt(NOW + 5 * DAY) }), emergency(urgent));
  assertEquals(again.ok || again.reason, "seq", "an emergency record does not replace its equal");
  for (const [seq, ok] of [[6n, false], [7n, true], [8n, true]] as const) {
    const made = record(seq, { exp: BigInt(NOW + 3 * DAY) });
    const verdict = evaluateAlias(advanced.state, made, { now: NOW, evidence: final(made) });
    assertEquals(verdict.ok || verdict.reason, ok || "seq");
    if (!verdict.ok) continue;
    assertEquals([verdict.state.via, verdict.state.epoch], ["finality", 3n]);
    const second = record(seq, { exp: BigInt(NOW + 4 * DAY) });
    const next = evaluateAlias(verdict.state, second, { now: NOW, evidence: final(second) });
    assertEquals(next.ok || next.reason, "seq", "only the first one");
  }
});

Deno.test("alias evaluation is monotonic whatever the order of arrival", () => {
  const arrival = fc.record({
    seq: fc.bigInt({ min: 0n, max: 12n }),
    exp: fc.constantFrom(NOW - 5, NOW + DAY, NOW + 2 * DAY),
    chains: fc.subarray<ChainName>(["handshake", "filecoin", "ethereum-l2"]),
    urgent: fc.boolean(),
  });
  const made = new Map<string, AliasRecord>();
  const recordOf = (seq: bigint, exp: number) => {
    const key = `${seq} ${exp}`;
    if (!made.has(key)) made.set(key, record(seq, { exp: BigInt(exp) }));
    return made.get(key)!;
  };
  fc.assert(
    fc.property(
      fc.array(arrival, { maxLength: 8 }).chain((all) =>
        fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length }))
      ),
      ([one, two]) => {
        const ends = [one, two].map((order) => {
          let state: AliasState | undefined;
          for (const { seq, exp, chains, urgent } of order) {
            const made = recordOf(seq, exp);
            const facts = { now: NOW, evidence: final(made, chains) };
            const verdict = evaluateAlias(state, made, urgent ? { ...facts, ...emergency(made) } : facts);
            if (verdict.ok) {
              const [before, after] = [state?.record.seq ?? -1n, verdict.state.record.seq];
              assert(
                after > before ||
                  (after === before && state?.via === "emergency" && verdict.state.via === "finality"),
              );
              assert(made.exp > NOW && (chains.length >= 2 || urgent));
            } else assertEquals(verdict.state, state);
            state = verdict.state;
          }
          return state?.record.seq;
        });
        assertEquals(ends[0], ends[1]);
        const valid = one.filter(({ exp, chains, urgent }) => exp > NOW && (chains.length >= 2 || urgent));
        const highest = valid.reduce<bigint | undefined>(
          (max, { seq }) => max === undefined || seq > max ? seq : max,
          undefined,
        );
        assertEquals(ends[0], highest);
      },
    ),
    { numRuns: 60 },
  );
});
