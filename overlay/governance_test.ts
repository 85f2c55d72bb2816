import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  ackComposition,
  ACTIVATION_SECONDS,
  ACTIVATION_WINDOW_SECONDS,
  ACTIVE_SECONDS,
  type Condition,
  type ConditionSample,
  evaluateActivation,
  evaluateProposal,
  type ProposalConditionName,
  type ProposalFacts,
  type Voter,
} from "./governance.ts";
import { effectiveWeights, rawWeight } from "./weights.ts";

const NOW = 1_800_000_000;
const DAY = 86_400;

/** `count` voters of weight 1 that all acknowledge, each in an AS, AS group and organisation of its own, in 3 ISDs. */
function voters(count: number, change: (i: number) => Partial<Voter> = () => ({})): Voter[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `${i}`,
    as: `as${i}`,
    asGroup: `group${i}`,
    organisation: `org${i}`,
    isd: `isd${i % 3}`,
    weight: 1,
    lastActive: NOW,
    ack: true,
    ...change(i),
  }));
}

function facts(change: Partial<ProposalFacts> = {}): ProposalFacts {
  return {
    voters: voters(24),
    paths: [{ name: "scion", loss: [0.01] }, { name: "tor", loss: [0.01] }],
    pathDiversity: { now: 1, weekAgo: 1 },
    ackComposition: { now: 1, weekAgo: 1 },
    now: NOW,
    ...change,
  };
}

function condition(name: ProposalConditionName, change: Partial<ProposalFacts>): Condition {
  return evaluateProposal(facts(change)).conditions.find((condition) => condition.name === name)!;
}

Deno.test("a proposal passes when every condition holds, and the verdict lists each with value and bound", () => {
  assertEquals(evaluateProposal(facts()), {
    ok: true,
    conditions: [
      { name: "ack-weight", value: 1, relation: ">=", bound: 0.67, held: true },
      { name: "ack-as-groups", value: 24, relation: ">=", bound: 24, held: true },
      { name: "ack-isds", value: 3, relation: ">=", bound: 3, held: true },
      { name: "ack-as-share", value: 1 / 24, relation: "<=", bound: 0.2, held: true },
      { name: "ack-organisation-share", value: 1 / 24, relation: "<=", bound: 0.25, held: true },
      { name: "path-classes", value: 2, relation: ">=", bound: 2, held: true },
      { name: "path-diversity", value: 1, relation: ">=", bound: 0.8, held: true },
      { name: "ack-composition", value: 1, relation: ">=", bound: 0.8, held: true },
    ],
  });
});

Deno.test("each condition alone decides, on both sides of its bound", () => {
  const ack = (acks: number, of: number, weight = 1) => ({
    voters: voters(of, (i) => ({ ack: i < acks, weight })),
  });
  const groups = (count: number) => ({
    voters: voters(30, (i) => ({ asGroup: `${Math.min(i, count - 1)}` })),
  });
  const isds = (count: number) => ({ voters: voters(30, (i) => ({ isd: `${i % count}` })) });
  // One AS with weight w beside 24 others of weight 1 has w / (w + 24): 6 of 30 is 20 %, 8 of 32 is 25 %.
  const one = (weight: number, key: "as" | "organisation") => ({
    voters: voters(26, (i) => i < 2 ? { [key]: "one", weight: weight / 2 } : {}),
  });
  const loss = (...losses: number[][]) => ({ paths: losses.map((loss, i) => ({ name: `${i}`, loss })) });
  const rows: [ProposalConditionName, Partial<ProposalFacts>, boolean][] = [
    ["ack-weight", ack(67, 100), true],
    ["ack-weight", ack(66, 100), false],
    ["ack-weight", ack(201, 300), true], // 0.67 * 300 > 201 in floats
    ["ack-weight", ack(200, 300), false],
    ["ack-weight", ack(67, 100, 0.1), true],
    ["ack-weight", ack(66, 100, 0.1), false],
    ["ack-weight", ack(0, 0), false],
    ["ack-as-groups", groups(23), false],
    ["ack-as-groups", groups(24), true],
    ["ack-isds", isds(2), false],
    ["ack-isds", isds(3), true],
    ["ack-as-share", one(6, "as"), true],
    ["ack-as-share", one(6.000001, "as"), false],
    ["ack-organisation-share", one(8, "organisation"), true],
    ["ack-organisation-share", one(8.000001, "organisation"), false],
    ["path-classes", loss([0.019999], [0.019999]), true],
    ["path-classes", loss([0.019999], [0.02]), false],
    ["path-classes", loss([0.01, 0.03], [0]), false], // the median is 0.02
    ["path-classes", loss([0.01, 0.029], [0]), true],
    ["path-classes", loss([0.9, 0, 0.019], [0]), true],
    ["path-classes", loss([0]), false],
    ["path-classes", loss([0], []), false],
    ["path-diversity", { pathDiversity: { now: 80, weekAgo: 100 } }, true],
    ["path-diversity", { pathDiversity: { now: 79.999, weekAgo: 100 } }, false],
    ["path-diversity", { pathDiversity: { now: 4, weekAgo: 5 } }, true],
    ["path-diversity", { pathDiversity: { now: 0, weekAgo: 0 } }, true],
    ["ack-composition", { ackComposition: { now: 0.8, weekAgo: 1 } }, true],
    ["ack-composition", { ackComposition: { now: 0.79, weekAgo: 1 } }, false],
    ["ack-composition", { ackComposition: { now: 30, weekAgo: 20 } }, true],
  ];
  for (const [name, change, held] of rows) {
    assertEquals(condition(name, change).held, held, `${name} ${JSON.stringify(change).slice(0, 60)}`);
    if (!held) assertEquals(evaluateProposal(facts(change)).ok, false);
  }
});

Deno.test("a bound that is met exactly is met, whatever floats make of it, and 1e-6 beyond it is not", () => {
  // Sizes at which floats round in different ways.
  const sizes = Array.from({ length: 300 }, (_, i) => (i + 1) / 10);
  const ack = (acked: number, not: number) =>
    condition("ack-weight", {
      voters: voters(2, (i) => i === 0 ? { weight: acked } : { weight: not, ack: false }),
    }).held;
  const share = (name: "ack-as-share" | "ack-organisation-share", one: number, rest: number) =>
    condition(name, { voters: voters(2, (i) => ({ weight: i === 0 ? one : rest / 20 })).concat(more(rest)) })
      .held;
  const more = (rest: number) =>
    voters(19, (i) => ({ id: `more ${i}`, as: `${i}`, organisation: `${i}`, weight: rest / 20 }));
  const trend = (now: number, weekAgo: number) =>
    condition("path-diversity", { pathDiversity: { now, weekAgo } }).held &&
    condition("ack-composition", { ackComposition: { now, weekAgo } }).held;
  for (const size of sizes) {
    const [a, b] = [size * 67 / 100, size * 33 / 100];
    assertEquals([ack(a, b), ack(a * (1 - 2e-6), b)], [true, false], `67 % of ${size}`);
    const [one, rest] = [size / 5, size * 4 / 5];
    assertEquals(
      [share("ack-as-share", one, rest), share("ack-as-share", one * (1 + 7e-6), rest)],
      [true, false],
      `20 % of ${size}`,
    );
    const [own, others] = [size / 4, size * 3 / 4];
    assertEquals(
      [
        share("ack-organisation-share", own, others),
        share("ack-organisation-share", own * (1 + 6e-6), others),
      ],
      [true, false],
      `25 % of ${size}`,
    );
    const kept = size * 8 / 10;
    assertEquals([trend(kept, size), trend(kept - size * 1e-6, size)], [true, false], `80 % of ${size}`);
  }
  assert(ack(13.4, 6.6) && ack(0.67, 0.33) && trend(2.4, 3) && trend(0.24, 0.3));
});

Deno.test("the tolerance is relative: it is no larger for small figures, and a millionth of a millionth at most", () => {
  for (const size of [1e-6, 1e-3, 1, 1e6, 2 ** 50]) {
    const ack = (short: number) =>
      condition("ack-weight", {
        voters: voters(2, (i) =>
          i === 0 ? { weight: size * (0.67 - short) } : { weight: size * (0.33 + short), ack: false }),
      }).held;
    assertEquals([0, 1e-13, 1e-11, 1e-6].map(ack), [true, true, false, false], `${size}`);
    const kept = (short: number) =>
      condition("path-diversity", { pathDiversity: { now: size * (0.8 - short), weekAgo: size } }).held;
    assertEquals([0, 1e-13, 1e-11, 1e-6].map(kept), [true, true, false, false], `${size}`);
  }
  const nothing = { pathDiversity: { now: 0, weekAgo: 1e-20 } };
  assertEquals(condition("path-diversity", nothing).held, false, "nothing is left of a little");
});

Deno.test("a median of exactly 2 % is not below 2 %, whatever floats make of it", () => {
  const below = (...loss: number[]) =>
    condition("path-classes", { paths: [{ name: "a", loss }, { name: "b", loss: [0] }] }).held;
  for (let i = 0; i <= 400; i++) {
    const [low, high] = [i / 10_000, (400 - i) / 10_000];
    assertEquals([below(low, high), below(low, high, 0, 1)], [false, false], `${low} ${high}`);
    // By 1e-6 it is below.
    if (i < 400) assertEquals(below(low, high - 2e-6), true, `${low} ${high}`);
  }
  assertEquals([below(0.02), below(0.3 - 0.28), below(0.02 - 1e-6)], [false, false, true]);
});

Deno.test("weights under their caps keep the caps of a proposal that everybody acknowledges", () => {
  // One AS always is at its cap exactly, on paper, and an organisation often.
  const stake = fc.tuple(fc.nat(1_000), fc.nat(1_000_000));
  fc.assert(fc.property(fc.array(stake, { minLength: 60, maxLength: 60 }), (stakes) => {
    const nodes = stakes.map(([days, sat], i) => ({
      id: `${i}`,
      as: i < 20 ? "large" : `as${i}`,
      organisation: i >= 20 && i % 2 === 0 ? "large" : `org${i}`,
      weight: rawWeight((i < 20 ? 1_000 : days + 1) * DAY, BigInt(sat)),
    }));
    const { weights } = effectiveWeights(nodes);
    const all = voters(60, (i) => ({ ...nodes[i]!, weight: weights.get(`${i}`)! }));
    assertEquals(evaluateProposal(facts({ voters: all })).conditions.filter(({ held }) => !held), []);
    // A node more in the AS at its cap, with 1e-5 of what the AS has, is too much.
    const extra = 1e-5 * nodes.slice(0, 20).reduce((sum, { id }) => sum + weights.get(id)!, 0);
    const beyond = [...all, { ...all[0]!, id: "extra", weight: extra }];
    assertEquals(condition("ack-as-share", { voters: beyond }).held, false);
  }));
});

Deno.test("weight counts when active within 14 days, on both sides of the ratio", () => {
  assertEquals(ACTIVE_SECONDS, 14 * DAY);
  const silent = (seconds: number, ack: boolean) => {
    const others = voters(100, (i) => i < 33 ? { ack, lastActive: NOW - seconds } : {});
    return condition("ack-weight", { voters: others }).value;
  };
  assertEquals(silent(14 * DAY, false), 0.67);
  assertEquals(silent(14 * DAY + 1, false), 1);
  assertEquals(silent(14 * DAY + 1, true), 1, "an ACK of a silent node is no weight either");
  assertEquals(silent(-60, false), 0.67, "a clock ahead");
});

Deno.test("ACKs without weight bring neither AS groups nor ISDs", () => {
  const change = { voters: voters(30, (i) => i < 7 ? { weight: 0, isd: `more${i}` } : {}) };
  assertEquals(condition("ack-as-groups", change).value, 23);
  assertEquals(condition("ack-isds", change).value, 3);
});

Deno.test("path classes that share an element, or a name, are not two", () => {
  const classes = (...rows: [string, string[]][]) =>
    condition("path-classes", { paths: rows.map(([name, elements]) => ({ name, elements, loss: [0] })) })
      .value;
  assertEquals(classes(["a", ["x"]], ["b", ["x"]]), 1);
  assertEquals(classes(["a", ["x"]], ["a", ["y"]]), 1);
  assertEquals(classes(["a", ["x"]], ["b", ["y"]]), 2);
  assertEquals(classes(["a", ["x", "y"]], ["b", ["x"]], ["c", ["y"]]), 2, "b and c, past a");
  const pooled = [{ name: "a", loss: [0] }, { name: "a", loss: [0.5, 0.5] }, { name: "b", loss: [0] }];
  assertEquals(condition("path-classes", { paths: pooled }).held, false, "one class, one median");
});

Deno.test("evaluateProposal() refuses facts that are none", () => {
  const bad: Partial<ProposalFacts>[] = [
    { voters: [...voters(1), ...voters(1)] },
    { voters: voters(1, () => ({ weight: -1 })) },
    { voters: voters(1, () => ({ weight: NaN })) },
    { voters: voters(1, () => ({ lastActive: NaN })) },
    { now: NaN },
    { paths: [{ name: "a", loss: [1.1] }] },
    { paths: [{ name: "a", loss: [NaN] }] },
    { pathDiversity: { now: -1, weekAgo: 1 } },
  ];
  for (const change of bad) assertThrows(() => evaluateProposal(facts(change)), RangeError);
});

Deno.test("ackComposition() is the effective number of AS groups", () => {
  const of = (...weights: [string, number][]) =>
    ackComposition(weights.map(([asGroup, weight]) => ({ asGroup, weight })));
  assertEquals(of(), 0);
  assertEquals(of(["a", 5]), 1);
  assertEquals(of(["a", 1], ["b", 1], ["c", 1], ["d", 1]), 4);
  assertEquals(of(["a", 1], ["a", 1], ["b", 2]), 2);
  assert(of(["a", 3], ["b", 1]) < 2);
});

Deno.test("the verdict does not depend on the order of voters, and one more ACK never costs weight", () => {
  const voter = fc.record({
    weight: fc.double({ min: 0, max: 40, noNaN: true }),
    ack: fc.boolean(),
    days: fc.nat(20),
  });
  fc.assert(fc.property(fc.array(voter, { maxLength: 40 }), fc.nat(), (rows, at) => {
    const all = rows.map(({ weight, ack, days }, i) => ({
      ...voters(1)[0]!,
      id: `${i}`,
      weight,
      ack,
      lastActive: NOW - days * DAY,
      as: `${i % 9}`,
    }));
    const verdict = evaluateProposal(facts({ voters: all }));
    assertEquals(evaluateProposal(facts({ voters: all.toReversed() })), verdict);
    if (all.length === 0) return;
    const more = all.with(at % all.length, { ...all[at % all.length]!, ack: true });
    assert(condition("ack-weight", { voters: more }).value >= verdict.conditions[0]!.value);
  }));
});

Deno.test("activation waits 30 days, and 7 days in a row after a failure from 7 days before it", () => {
  assertEquals([ACTIVATION_SECONDS, ACTIVATION_WINDOW_SECONDS], [30 * DAY, 7 * DAY]);
  const day = (n: number) => n * DAY;
  const fail = (n: number): ConditionSample => ({ at: day(n), held: false });
  const hold = (n: number): ConditionSample => ({ at: day(n), held: true });
  // Samples, the time, and the state expected then with the time of activation; all in days.
  const rows: [ConditionSample[], number, "waiting" | "deferred" | "active", number | undefined][] = [
    [[], 0, "waiting", 30],
    [[], 29.999, "waiting", 30],
    [[], 30, "active", 30],
    [[], 300, "active", 30],
    // Before the window a failure does not matter once it is over.
    [[fail(5), hold(22)], 30, "active", 30],
    [[fail(5), hold(23)], 30, "active", 30],
    [[fail(5)], 22, "waiting", undefined],
    [[fail(5)], 23, "deferred", undefined],
    [[fail(22), hold(22.99)], 30, "active", 30],
    // From 7 days before, it defers.
    [[fail(23), hold(23.5)], 30, "deferred", 30.5],
    [[fail(23), hold(23.5)], 30.5, "active", 30.5],
    [[fail(29), hold(29.5)], 30, "deferred", 36.5],
    [[fail(29), hold(29.5)], 36.5, "active", 36.5],
    [[fail(30), hold(30.5)], 37, "deferred", 37.5], // failed at the very moment
    [[hold(30), fail(30)], 40, "deferred", undefined],
    [[fail(23), hold(23), hold(30)], 30, "active", 30],
    [[fail(30.001)], 31, "active", 30], // too late: in force
    [[fail(25), hold(26), fail(32.9), hold(33)], 39.9, "deferred", 40],
    [[fail(25), hold(26), fail(33), hold(34)], 40, "deferred", 41], // 7 days, and then not at their end
    [[fail(25), hold(26), fail(33.001)], 40, "active", 33],
    [[fail(25), fail(26), hold(27), hold(28)], 34, "active", 34],
    [[fail(25)], 1000, "deferred", undefined],
    // What is after `now` is not known yet.
    [[fail(40)], 29, "waiting", 30],
  ];
  for (const [samples, now, state, at] of rows) {
    const verdict = evaluateActivation(0, samples, day(now));
    const seen = {
      state: verdict.state,
      at: verdict.at === undefined ? undefined : verdict.at / DAY,
      ok: verdict.ok,
    };
    assertEquals(seen, { state, at, ok: state === "active" }, `${JSON.stringify(samples)} at ${now}`);
  }
  assertThrows(() => evaluateActivation(0, [hold(2), hold(1)], 0), RangeError);
  assertThrows(() => evaluateActivation(10, [{ at: 9, held: true }], 0), RangeError);
});

Deno.test("evaluateActivation() refuses times that are none", () => {
  const samples = [{ at: 40 * DAY, held: true }];
  for (const none of [NaN, Infinity]) {
    assertThrows(() => evaluateActivation(0, samples, none), RangeError);
    assertThrows(() => evaluateActivation(none, [], 0), RangeError);
  }
});

Deno.test("activation never comes before 30 days or within 7 days of a failure, and does not go back", () => {
  const sample = fc.record({ gap: fc.integer({ min: 1, max: 12 }), held: fc.boolean() });
  fc.assert(fc.property(fc.array(sample, { maxLength: 20 }), (rows) => {
    let at = 0;
    const samples = rows.map(({ gap, held }) => ({ at: at += gap * DAY, held }));
    let activeAt: number | undefined;
    for (let day = 0; day < 120; day++) {
      const verdict = evaluateActivation(0, samples, day * DAY);
      if (activeAt !== undefined) assertEquals(verdict, { ok: true, state: "active", at: activeAt });
      if (!verdict.ok) continue;
      activeAt = verdict.at;
      assert(activeAt >= 30 * DAY && activeAt <= day * DAY);
      // The slow twin: every whole day of the week before, what held then?
      for (let past = activeAt - 7 * DAY; past <= activeAt; past += DAY) {
        const last = samples.findLast((sample) => sample.at <= past);
        assert(last?.held ?? true);
      }
    }
  }));
});
