import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import fc from "fast-check";
import { concat, ed25519PublicKey, fromHex, HtxError, selectCrypto, u64be, utf8 } from "../core/mod.ts";
import { peerIdOf } from "./identity.ts";
import {
  beaconSet,
  DISTINCT_HOP_SETS,
  HopHistory,
  type HopRules,
  hopSeed,
  type MixNode,
  privacyEpoch,
  requiredHops,
  selectHops,
  verifyHops,
} from "./privacy.ts";
import { vrfProofToHash, vrfProve } from "./vrf.ts";

const KEY = new Uint8Array(32).fill(3);
const PUBLIC = ed25519PublicKey(KEY);
const K0C = new Uint8Array(32).fill(0xc0);

Deno.test("requiredHops() follows mode, trust and label", () => {
  const rows: [Parameters<typeof requiredHops>[0], number, string][] = [
    [{}, 2, "balanced-untrusted"],
    [{ mode: "strict", trust: 1 }, 3, "strict"],
    [{ trust: 0.7999999999999999 }, 2, "balanced-untrusted"],
    [{ trust: 0.8 }, 0, "balanced-trusted"],
    [{ trust: 1 }, 0, "balanced-trusted"],
    [{ mode: "performance" }, 0, "performance"],
    [{ mode: "performance", destination: "example.org" }, 0, "performance"],
    [{ mode: "performance", destination: "shop.mixreq" }, 2, "mixreq"],
    [{ mode: "performance", destination: "Shop.MixReq." }, 2, "mixreq"],
    [{ mode: "performance", destination: "mixreq.example" }, 0, "performance"],
    [{ mode: "performance", destination: "shopmixreq" }, 0, "performance"],
  ];
  for (const [request, hops, reason] of rows) {
    assertEquals(requiredHops(request) as unknown, { hops, reason });
  }
  for (const trust of [-0.1, 1.1, NaN]) assertThrows(() => requiredHops({ trust }), RangeError);
});

Deno.test("privacyEpoch() turns with the hour", () => {
  assertEquals([0, 3_599, 3_600, 7_200].map(privacyEpoch), [0, 0, 1, 2]);
});

Deno.test("beaconSet() is the XOR of the beacons there are", () => {
  const [drand, nist, ethereum] = [0x0f, 0x33, 0x55].map((byte) => new Uint8Array(32).fill(byte)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const fallback = { k0c: K0C, epoch: 5, onFallback: () => assert(false) };
  const rows: [Parameters<typeof beaconSet>[0], number, string[]][] = [
    [{ drand, nist, ethereum }, 0x69, ["drand", "nist", "ethereum"]],
    [{ drand, nist }, 0x3c, ["drand", "nist"]],
    [{ ethereum }, 0x55, ["ethereum"]],
    [{ drand: undefined, nist }, 0x33, ["nist"]],
  ];
  for (const [beacons, byte, sources] of rows) {
    assertEquals(beaconSet(beacons, fallback) as unknown, {
      value: new Uint8Array(32).fill(byte),
      sources,
      fallback: false,
    });
  }
  for (const name of ["drand", "nist", "ethereum"]) {
    const error = assertThrows(() => beaconSet({ [name]: new Uint8Array(31) }, fallback), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", name]);
  }
});

Deno.test("e-34: without any beacon the set comes from the session's secret, and is reported", () => {
  const told: bigint[] = [];
  const set = beaconSet({}, { k0c: K0C, epoch: 5, onFallback: (epoch) => told.push(epoch) });
  assertEquals(set, {
    value: selectCrypto().sha256(utf8("bn-fallback"), K0C, u64be(5)),
    sources: [],
    fallback: true,
  });
  assertEquals(told, [5n]);
  const other = beaconSet({}, { k0c: new Uint8Array(32), epoch: 5, onFallback: () => {} });
  assertNotEquals(set.value, other.value);
  assertThrows(() => beaconSet({}, { k0c: new Uint8Array(0), epoch: 5 }), TypeError);
});

Deno.test("e-34: the fallback is logged by default, without the secret", async () => {
  const records: LogRecord[] = [];
  await configure({
    sinks: { list: (record) => void records.push(record) },
    loggers: [{ category: ["htx", "overlay"], lowestLevel: "debug", sinks: ["list"] }, {
      category: ["logtape", "meta"],
      lowestLevel: "fatal",
    }],
  });
  try {
    beaconSet({}, { k0c: K0C, epoch: 5 });
    beaconSet({ drand: K0C }, { k0c: K0C, epoch: 6 });
  } finally {
    await reset();
  }
  assertEquals(records.map(({ level, properties }) => [level, properties]), [["warning", { epoch: "5" }]]);
  assert(!JSON.stringify(records).includes("c0c0"));
});

Deno.test("e-34: the seed needs the stream's nonce, and each part of it counts", () => {
  const [src, dst] = [peerIdOf(utf8("a")), peerIdOf(utf8("b"))];
  const inputs = { beaconSet: new Uint8Array(32), src, dst, streamNonce: new Uint8Array(16) };
  const seed = hopSeed(inputs);
  assertEquals(seed, selectCrypto().sha256(concat(inputs.beaconSet, src, dst, inputs.streamNonce)));
  for (
    const change of [
      { beaconSet: new Uint8Array(32).fill(1) },
      { src: dst },
      { dst: src },
      { streamNonce: new Uint8Array(16).fill(1) },
    ]
  ) assertNotEquals(hopSeed({ ...inputs, ...change }), seed);
  assertThrows(() => hopSeed({ ...inputs, streamNonce: new Uint8Array(0) }), TypeError);
  assertThrows(() => hopSeed({ ...inputs, src: new Uint8Array(34) }), HtxError);
});

const node = (id: string, asGroup = `of ${id}`): MixNode => ({ id, asGroup });
const SRC = node("src", "S");
const DST = node("dst", "D");
const rules = (change: Partial<HopRules> = {}): HopRules => ({
  nodes: Array.from({ length: 30 }, (_, i) => node(String(i).padStart(2, "0"), `g${i % 7}`)),
  hops: 3,
  src: SRC,
  dst: DST,
  seed: new Uint8Array(32).fill(1),
  ...change,
});
const ids = (hops: readonly MixNode[]) => hops.map(({ id }) => id);

Deno.test("the i-th candidate is the i-th hash of beta, read as 64-bit words", () => {
  const given = rules();
  const choice = selectHops(KEY, given);
  // The slow, obvious twin.
  const beta = vrfProofToHash(vrfProve(KEY, given.seed));
  const expected: string[] = [];
  for (let i = 0; expected.length < 3; i++) {
    const digest = selectCrypto().sha256(beta, fromHex(i.toString(16).padStart(8, "0")));
    const word = digest.slice(0, 8).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
    assert(word < 2n ** 64n - 2n ** 64n % 30n);
    const id = given.nodes[Number(word % 30n)]!.id;
    if (!expected.includes(id)) expected.push(id);
  }
  assertEquals(ids(choice.hops), expected);
  assertEquals(
    ids(selectHops(KEY, { ...given, nodes: given.nodes.toReversed() }).hops),
    expected,
    "order of adverts",
  );
});

Deno.test("the other side repeats every draw, and refuses any other hops", () => {
  const given = rules();
  const { hops, proof, draws } = selectHops(KEY, given);
  assertEquals(verifyHops(PUBLIC, ids(hops), proof, given), { ok: true, draws });
  const other = { ok: false, reason: "other-hops" } as const;
  assertEquals(verifyHops(PUBLIC, ids(hops).toReversed(), proof, given), other);
  assertEquals(verifyHops(PUBLIC, ids(hops).slice(1), proof, given), other);
  assertEquals(verifyHops(PUBLIC, [...ids(hops).slice(1), "29"], proof, given), other);
  assertEquals(verifyHops(ed25519PublicKey(new Uint8Array(32)), ids(hops), proof, given), {
    ok: false,
    reason: "proof",
  });
  assertEquals(verifyHops(PUBLIC, ids(hops), proof, { ...given, seed: new Uint8Array(32) }), {
    ok: false,
    reason: "proof",
  });
  assertEquals(verifyHops(new Uint8Array(32), ids(hops), proof, given), { ok: false, reason: "public-key" });
  assertEquals(verifyHops(PUBLIC, ids(hops), proof, { ...given, nodes: [node("a")] }), {
    ok: false,
    reason: "infeasible",
  });
});

Deno.test("too few eligible nodes is an error, never a shorter path", () => {
  const fails = (change: Partial<HopRules>) => {
    const error = assertThrows(() => selectHops(KEY, rules(change)), HtxError);
    assertEquals(error.code, "LIMIT_EXCEEDED");
  };
  fails({ nodes: [] });
  fails({ nodes: [node("a"), node("b")] });
  fails({ nodes: [node("a"), node("b"), SRC, DST] });
  fails({ nodes: [node("a", "S"), node("b", "D"), node("c", "S")] });
  fails({ nodes: [node("a"), node("b"), node("c")], used: [["b", "a", "c"]] });
  assertEquals(selectHops(KEY, rules({ nodes: [node("a"), node("b"), node("c")] })).hops.length, 3);
  assertEquals(selectHops(KEY, rules({ nodes: [node("a", "S"), node("b", "D"), node("c")] })).hops.length, 3);
  assertThrows(() => selectHops(KEY, rules({ hops: 0 })), RangeError);
  const twice = assertThrows(
    () => selectHops(KEY, rules({ nodes: [node("a", "x"), node("a", "y")] })),
    HtxError,
  );
  assertEquals([twice.code, twice.field], ["MALFORMED", "nodes"]);
});

Deno.test("a set comes again only after 8 distinct ones were used", () => {
  assertEquals(DISTINCT_HOP_SETS, 8);
  // Nine sets of two out of pairs: with four nodes there are six, with five ten.
  const nodes = [..."abcde"].map((id) => node(id));
  const used: string[][] = [];
  for (let n = 0; n < 8; n++) {
    const seed = new Uint8Array(32).fill(n % 2); // the same draws again and again
    const set = ids(selectHops(KEY, rules({ nodes, hops: 2, seed, used })).hops);
    assert(!used.some((other) => other.toSorted().join() === set.toSorted().join()));
    used.push(set);
  }
  const first = ids(selectHops(KEY, rules({ nodes, hops: 2, seed: new Uint8Array(32) })).hops);
  assertNotEquals(
    ids(selectHops(KEY, rules({ nodes, hops: 2, seed: new Uint8Array(32), used: used.slice(0, 7) })).hops),
    first,
  );
  assertEquals(ids(selectHops(KEY, rules({ nodes, hops: 2, seed: new Uint8Array(32), used })).hops), first);
  // Six sets, six used: an error, since eight were not.
  const few = nodes.slice(0, 4);
  const six = few.flatMap((a, i) => few.slice(i + 1).map((b) => [a.id, b.id]));
  assertThrows(() => selectHops(KEY, rules({ nodes: few, hops: 2, used: six })), HtxError);
  assertEquals(
    ids(selectHops(KEY, rules({ nodes: few, hops: 2, used: six.slice(1) })).hops).toSorted(),
    six[0],
  );
});

Deno.test("HopHistory keeps the sets of the newest epoch, eight at most for a pair", () => {
  const history = new HopHistory(2);
  history.record("a", "b", 5, ["x", "y"]);
  history.record("a", "b", 5, ["y", "x"]);
  assertEquals(history.used("a", "b", 5), [["x", "y"]]);
  assertEquals(history.used("b", "a", 5), []);
  assertEquals(history.used("a", "b", 4), []);
  for (let i = 0; i < 20; i++) history.record("a", "b", 5, [`${i}`]);
  assertEquals(history.used("a", "b", 5).length, 8);
  history.record("a", "c", 5, ["x"]);
  assertEquals(assertThrows(() => history.record("a", "d", 5, ["x"]), HtxError).code, "LIMIT_EXCEEDED");
  history.record("a", "d", 6, ["x"]);
  assertEquals(history.used("a", "b", 5), []);
  history.record("a", "b", 5, ["x"]);
  assertEquals(history.used("a", "d", 6), [["x"]]);
});

Deno.test("HopHistory follows a clock that was ahead and is set back: a set is still not used twice", () => {
  const history = new HopHistory();
  const nodes = ["a", "b", "c"].map((id) => ({ id, asGroup: "x" }));
  const [src, dst] = [{ id: "me", asGroup: "S" }, { id: "you", asGroup: "D" }];
  const sets = new Set<string>();
  history.record("me", "you", 500_000, ["a", "b"]);
  history.record("me", "you", 900_000, ["a", "b"]);
  for (let stream = 0; stream < 3; stream++) {
    const seed = new Uint8Array(32).fill(stream);
    const used = history.used("me", "you", 500_001);
    const { hops } = selectHops(KEY, { nodes, hops: 2, src, dst, seed, used });
    const ids = hops.map(({ id }) => id);
    history.record("me", "you", 500_001, ids);
    sets.add(ids.toSorted().join());
  }
  assertEquals(sets.size, 3); // all that there are
});

Deno.test("HopHistory refuses what is no limit and no epoch", () => {
  for (const limit of [0, -1, NaN]) assertThrows(() => new HopHistory(limit), RangeError);
  for (const epoch of [NaN, Infinity, -Infinity]) {
    const history = new HopHistory();
    assertThrows(() => history.record("a", "b", epoch, ["x"]), RangeError);
    history.record("a", "b", 5, ["y"]);
    assertEquals(history.used("a", "b", 5), [["y"]]);
  }
});

Deno.test("a set of hops keeps every rule or there is none that could", () => {
  const group = fc.constantFrom("S", "D", "x", "y");
  const given = fc.record({
    groups: fc.array(group, { maxLength: 7 }),
    hops: fc.integer({ min: 1, max: 4 }),
    seed: fc.uint8Array({ minLength: 32, maxLength: 32 }),
    ends: fc.boolean(),
    used: fc.array(fc.uniqueArray(fc.constantFrom(..."0123456"), { minLength: 1, maxLength: 4 }), {
      maxLength: 9,
    }),
  });
  fc.assert(
    fc.property(given, ({ groups, hops, seed, ends, used }) => {
      const nodes = groups.map((asGroup, i) => node(`${i}`, asGroup));
      const eligible = nodes;
      const all = ends ? [...nodes, SRC, DST] : nodes;
      const distinct = new Set(used.map((set) => set.toSorted().join()));
      const allowed = subsets(eligible, hops).filter((set) =>
        set.some(({ asGroup }) => asGroup !== "S" && asGroup !== "D") &&
        (distinct.size >= 8 || !distinct.has(ids(set).toSorted().join()))
      ).map((set) => ids(set).toSorted().join());
      const change = { nodes: all, hops, seed, used };
      if (allowed.length === 0) {
        const error = assertThrows(() => selectHops(KEY, rules(change)), HtxError);
        assertEquals(error.code, "LIMIT_EXCEEDED");
        return;
      }
      const choice = selectHops(KEY, rules(change));
      assert(allowed.includes(ids(choice.hops).toSorted().join()));
      assertEquals(new Set(ids(choice.hops)).size, hops);
      assertEquals(verifyHops(PUBLIC, ids(choice.hops), choice.proof, rules(change)).ok, true);
    }),
    { numRuns: 60 },
  );
});

Deno.test("each node is drawn about as often as any other", () => {
  const counts = new Map<string, number>();
  const nodes = [..."abcdefg"].map((id) => node(id));
  for (let n = 0; n < 350; n++) {
    const seed = selectCrypto().sha256(u64be(n));
    for (const { id } of selectHops(KEY, rules({ nodes, hops: 2, seed })).hops) {
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
  }
  // 100 expected each, deviation about 8.5; the seeds are fixed, so this cannot fail by chance.
  for (const id of "abcdefg") {
    assert(counts.get(id)! > 65 && counts.get(id)! < 135, `${id} ${counts.get(id)}`);
  }
});

function subsets<T>(items: readonly T[], size: number): T[][] {
  if (size === 0) return [[]];
  return items.flatMap((item, i) => subsets(items.slice(i + 1), size - 1).map((rest) => [item, ...rest]));
}
