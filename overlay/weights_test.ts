import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { HtxError } from "../core/mod.ts";
import {
  CAP_TOLERANCE,
  effectiveWeights,
  MAX_UPTIME_SCORE,
  MIN_WEIGHT,
  rawWeight,
  uptimeScore,
  type WeightedNode,
} from "./weights.ts";

const DAY = 86_400;

Deno.test("uptimeScore() is log2(1 + days), at most 16", () => {
  assertEquals(MAX_UPTIME_SCORE, 16);
  const rows: [number, number][] = [
    [0, 0],
    [DAY, 1],
    [3 * DAY, 2],
    [1023 * DAY, 10],
    [65_535 * DAY, 16],
    [65_536 * DAY, 16],
    [Number.MAX_VALUE, 16],
  ];
  for (const [seconds, score] of rows) assertEquals(uptimeScore(seconds), score);
  assert(uptimeScore(65_534 * DAY) < 16);
  assert(Math.abs(uptimeScore(1) - 1.66977625e-5) < 1e-12);
  for (const bad of [-1, NaN, Infinity]) assertThrows(() => uptimeScore(bad), RangeError);
});

Deno.test("rawWeight() adds log10(sat / 1000 + 1)", () => {
  const rows: [number, bigint, number][] = [
    [0, 0n, 0],
    [0, 9_000n, 1],
    [DAY, 99_000n, 3],
    [65_535 * DAY, 999_000n, 19],
  ];
  for (const [seconds, sat, weight] of rows) assertEquals(rawWeight(seconds, sat), weight);
  assertThrows(() => rawWeight(0, -1n), RangeError);
});

/** Nodes from lines `as organisation weight`. */
function table(...lines: string[]): WeightedNode[] {
  return lines.map((line, i) => {
    const [as, organisation, weight] = line.split(" ") as [string, string, string];
    return { id: `${i}`, as, organisation, weight: Number(weight) };
  });
}
const alone = (...weights: number[]) => table(...weights.map((weight, i) => `as${i} org${i} ${weight}`));
const weightsOf = (nodes: WeightedNode[]) => [...effectiveWeights(nodes).weights.values()];

Deno.test("an AS at exactly 20 % stays, one above is scaled to 20 % of the total after scaling", () => {
  assertEquals(weightsOf(alone(20, 16, 16, 16, 16, 16)), [20, 16, 16, 16, 16, 16]);
  const [first, ...rest] = weightsOf(alone(21, 16, 16, 16, 16, 16));
  assertEquals([first, rest], [20, [16, 16, 16, 16, 16]]);
  assertEquals(weightsOf(alone(1000, 1000, 10, 10, 10, 10)), [40 / 3, 40 / 3, 10, 10, 10, 10]);
});

Deno.test("an organisation at exactly 25 % stays, one above is scaled to 25 %", () => {
  const nodes = (weight: number) =>
    table(`a x ${weight}`, `b x ${weight}`, "c y 10", "d z 10", "e w 10", "f v 10", "g u 10", "h t 10");
  assertEquals(weightsOf(nodes(10)).slice(0, 3), [10, 10, 10]);
  assertEquals(weightsOf(nodes(10.5)).slice(0, 3), [10, 10, 10], "x had 21 of 81");
});

Deno.test("with exactly 5 ASes all have the same sum, with exactly 4 organisations these do", () => {
  const five = table("a x 7", "b y 9", "c z 8", "d w 10", "e v 3", "e u 2");
  for (const weight of weightsOf(five).slice(0, 4)) assertEquals(weight, 5);
  assertEquals(weightsOf(five).slice(4), [3, 2], "the smallest keeps its weights");
  const four = table("a x 3", "b x 3", "c y 5", "d y 1", "e z 7", "f z 9", "g w 4", "h w 8");
  const sums = sumsBy(four, "organisation");
  const [first] = sums.values();
  assert(first! > 4 && first! < 6, "an AS has more than 20 % of 24 yet");
  for (const sum of sums.values()) assert(Math.abs(sum - first!) < 1e-9);
});

Deno.test("nodes of one AS and organisation keep their proportions, and a weight of 0 stays 0", () => {
  const nodes = table("a x 100", "a x 300", "a x 0", "b y 10", "c z 10", "d w 10", "e v 10");
  const [one, three, none] = weightsOf(nodes);
  assertEquals([one! * 3, none], [three, 0]);
});

Deno.test("with fewer than 5 ASes or 4 organisations there is no solution, and the error says so", () => {
  const rows: [WeightedNode[], string][] = [
    [[], "as"],
    [alone(1, 1, 1, 1), "as"],
    [alone(1, 1, 1, 1, 0), "as"],
    [table("a x 1", "b x 1", "c y 1", "d y 1", "e z 1", "f z 1"), "organisation"],
    [table("a x 1", "b x 1", "c y 1", "d y 1", "e z 1", "f w 0"), "organisation"],
    // Five ASes and four organisations, but three of the four are found only in one AS.
    [table("a x 1", "b x 1", "c x 1", "d x 1", "e y 1", "e z 1", "e w 1"), "nodes"],
  ];
  for (const [nodes, field] of rows) {
    const error = assertThrows(() => effectiveWeights(nodes), HtxError);
    assertEquals([error.code, error.field], ["LIMIT_EXCEEDED", field]);
  }
  assertEquals(weightsOf(alone(1, 1, 1, 1, 1)), [1, 1, 1, 1, 1]);
});

Deno.test("effectiveWeights() refuses weights and ids that are none", () => {
  for (const weight of [-1, NaN, Infinity, 2 ** 54]) {
    assertThrows(
      () => effectiveWeights([...alone(1, 1, 1, 1, 1), { id: "x", as: "", organisation: "", weight }]),
      RangeError,
    );
  }
  assertThrows(() => effectiveWeights([...alone(1, 1, 1, 1, 1), ...alone(1)]), RangeError);
});

Deno.test("a combination that no solution can use gets 0 at once, not by endless creeping", () => {
  // Five ASes, each exactly 4 parts of 20; x may take 5 parts. a can go to x alone, so b may give x one part, and so on:
  // y, z, w are full with what c, d, e and the rest of b give them.
  const nodes = table("a x 1", "b x 1", "b y 1", "c y 1", "c z 1", "d z 1", "d w 1", "e w 1", "e x 1");
  const { rounds } = effectiveWeights(nodes);
  assert(rounds < 2_000, `${rounds}`);
  check(nodes);
});

Deno.test("the caps hold after scaling, no weight grows, and what is infeasible is an error", () => {
  const node = fc.record({
    as: fc.constantFrom(..."abcdefgh"),
    organisation: fc.constantFrom(..."rstuvwx"),
    weight: fc.oneof(
      fc.double({ min: 0, max: 40, noNaN: true }),
      fc.constantFrom(0, MIN_WEIGHT, MIN_WEIGHT / 2, 5e-324),
      fc.constantFrom(0, 1, 1e-6, 29.9, 1e6),
      fc.tuple(fc.nat(60_000), fc.nat(10 ** 9)).map(([days, sat]) => rawWeight(days * DAY, BigInt(sat))),
    ),
  });
  let feasible = 0;
  let not = 0;
  fc.assert(
    fc.property(fc.array(node, { minLength: 3, maxLength: 24 }), (nodes) => {
      const named = nodes.map((node, i) => ({ ...node, id: `${i}` }));
      if (check(named)) feasible++;
      else not++;
    }),
    { numRuns: 600 },
  );
  assert(feasible > 50 && not > 50, `${feasible} ${not}`);
});

/** Checks the rule on any nodes; tells whether there was a solution. */
function check(nodes: WeightedNode[]): boolean {
  let result;
  try {
    result = effectiveWeights(nodes);
  } catch (error) {
    assert(error instanceof HtxError && error.code === "LIMIT_EXCEEDED", String(error));
    assert(!isFeasible(nodes), "it could have been solved");
    return false;
  }
  const { weights, total } = result;
  assert(total > 0);
  for (const { id, weight } of nodes) assert(weights.get(id)! <= weight * (1 + 1e-12));
  for (const sum of sumsBy(nodes, "as").values()) assert(sum <= total * (0.2 + CAP_TOLERANCE));
  for (const sum of sumsBy(nodes, "organisation").values()) assert(sum <= total * (0.25 + CAP_TOLERANCE));
  assert(isFeasible(nodes));
  return true;
}

function sumsBy(nodes: WeightedNode[], key: "as" | "organisation"): Map<string, number> {
  const { weights } = effectiveWeights(nodes);
  const sums = new Map<string, number>();
  for (const node of nodes) sums.set(node[key], (sums.get(node[key]) ?? 0) + weights.get(node.id)!);
  return sums;
}

/**
 * The obvious twin of the flow, by the cut condition: for every set of ASes, they and the organisations that are not
 * found in any other AS must leave room: 20 parts <= 4 * (ASes in the set) + 5 * (organisations beside it).
 */
function isFeasible(nodes: WeightedNode[]): boolean {
  const live = nodes.filter(({ weight }) => weight >= MIN_WEIGHT);
  const ases = [...new Set(live.map(({ as }) => as))];
  for (let mask = 0; mask < 1 << ases.length; mask++) {
    const cut = new Set(ases.filter((_, i) => mask & (1 << i)));
    const beside = new Set(live.filter(({ as }) => !cut.has(as)).map(({ organisation }) => organisation));
    if (4 * cut.size + 5 * beside.size < 20) return false;
  }
  return true;
}

Deno.test("effectiveWeights() takes more organisations than a call takes arguments", () => {
  const nodes = Array.from({ length: 150_000 }, (_, i) => ({
    id: `${i}`,
    as: `AS ${i % 8}`,
    organisation: `organisation ${i}`,
    weight: 1,
  }));
  assertEquals(effectiveWeights(nodes).total, nodes.length);
});
