/**
 * Voting weights: what a node earns by uptime and stake, and the caps on autonomous systems and organisations.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { groupBy } from "./_collections.ts";
import { HtxError } from "./_core.ts";

/** "uptime score = log2(1 + seconds / 86400), at most 16." */
export const MAX_UPTIME_SCORE = 16;
/** "All nodes of one AS together at most 20 % of the global total": one part in 5. */
export const AS_CAP_PARTS = 5;
/** "All of one organisation at most 25 %": one part in 4. */
export const ORGANISATION_CAP_PARTS = 4;
/**
 * How closely the caps hold, relative to the total. Where they leave exactly one shape (five ASes, four organisations)
 * the sums are met only up to the rounding of floats.
 */
export const CAP_TOLERANCE = 1e-9;

/**
 * Least weight that counts, and the most there can be. A node of one second's uptime weighs 70 000 times the least;
 * anything below it is 0, so that dust can neither make a solution possible nor drag all weights down to itself.
 */
export const MIN_WEIGHT: number = 2 ** -32;
/** See {@linkcode MIN_WEIGHT}. */
export const MAX_WEIGHT: number = 2 ** 53;

const SECONDS_PER_DAY = 86_400;
const MAX_ROUNDS = 10_000;
/** The loop stops here rather than at the tolerance. */
const SETTLED = 1e-14;

/**
 * "uptime score = log2(1 + seconds / 86400), at most 16." The bound is reached at 65 535 days, where the logarithm is
 * exact.
 *
 * @throws {RangeError} when the time is negative or not finite
 */
export function uptimeScore(seconds: number): number {
  if (!(seconds >= 0 && Number.isFinite(seconds))) throw new RangeError(`Cannot score uptime: ${seconds} s`);
  // Near 0, where 1 + x loses digits of x, log1p keeps them.
  const days = seconds / SECONDS_PER_DAY;
  return Math.min(MAX_UPTIME_SCORE, days < 0.5 ? Math.log1p(days) / Math.LN2 : Math.log2(1 + days));
}

/**
 * "raw weight = score + log10(staked sat / 1000 + 1)."
 *
 * @throws {RangeError} when an input is negative
 */
export function rawWeight(uptimeSeconds: number, stakedSat: bigint): number {
  if (stakedSat < 0n) throw new RangeError("Cannot weigh: the stake is negative");
  return uptimeScore(uptimeSeconds) + Math.log10(Number(stakedSat) / 1000 + 1);
}

/** A node with its raw weight. */
export interface WeightedNode {
  /** A name, unique among the nodes. */
  readonly id: string;
  /** Its autonomous system. */
  readonly as: string;
  /** Its organisation. */
  readonly organisation: string;
  /** Its weight before the caps, 0 to 2^53. */
  readonly weight: number;
}

/** Weights under the caps. */
export interface EffectiveWeights {
  /** Weight of each node by its id. */
  readonly weights: ReadonlyMap<string, number>;
  /** Their sum. */
  readonly total: number;
  /** Times that all groups were looked at. */
  readonly rounds: number;
}

/**
 * "All nodes of one AS together at most 20 % of the global total, all of one organisation at most 25 %; a node's
 * effective weight is scaled down, group by group, until the sums hold **of the total after scaling** (a fixed point;
 * groups at their cap keep their inner proportions)."
 *
 * In each round the ASes above their cap are scaled down to where the cap holds for all ASes, then the organisations
 * likewise; rounds repeat until nothing moves. A weight never grows. Whether the caps can hold at all does not depend on
 * the weights, only on which AS and organisation occur together, and is decided first and exactly, as a flow in whole
 * numbers: every AS may send 4 of 20 parts, every organisation may take 5. Where all that fits is exactly 20, some
 * combinations can have no part in it; their nodes get the weight 0, to which scaling would only creep.
 *
 * @throws {HtxError} `LIMIT_EXCEEDED` when no solution exists: field `as` with fewer than 5 ASes of weight above 0,
 * `organisation` with fewer than 4 organisations, `nodes` when each keeps the others above their caps
 * @throws {RangeError} when a weight is not in 0 to 2^53, or an id occurs twice
 *
 * @example
 * ```ts
 * import { effectiveWeights } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const nodes = [40, 10, 10, 10, 10, 10].map((weight, i) => ({
 *   id: `node ${i}`,
 *   as: `AS ${i}`,
 *   organisation: `organisation ${i}`,
 *   weight,
 * }));
 * const { weights, total } = effectiveWeights(nodes);
 * assertEquals(weights.get("node 0"), 12.5); // 20 % of 62.5, not of 90
 * assertEquals(total, 62.5);
 * ```
 */
export function effectiveWeights(nodes: readonly WeightedNode[]): EffectiveWeights {
  const seen = new Set<string>();
  const cells = new Map<string, Cell>();
  for (const { id, as, organisation, weight } of nodes) {
    if (seen.has(id)) throw new RangeError(`Cannot weigh: the id ${JSON.stringify(id)} occurs twice`);
    seen.add(id);
    if (!(weight >= 0 && weight <= MAX_WEIGHT)) {
      throw new RangeError(`Cannot weigh: a weight is ${weight}`);
    }
    if (weight < MIN_WEIGHT) continue;
    const key = JSON.stringify([as, organisation]);
    const cell = cells.get(key);
    if (cell) cell.raw += weight;
    else cells.set(key, { as, organisation, raw: weight, sum: 0 });
  }
  const all = [...cells.values()];
  checkCount(new Set(all.map(({ as }) => as)).size, AS_CAP_PARTS, "as", "ASes");
  checkCount(
    new Set(all.map(({ organisation }) => organisation)).size,
    ORGANISATION_CAP_PARTS,
    "organisation",
    "organisations",
  );
  const usable = usableCells(all);
  for (const cell of usable) cell.sum = cell.raw;
  const byAs = grouped(usable, (cell) => cell.as);
  const byOrganisation = grouped(usable, (cell) => cell.organisation);

  let rounds = 0;
  let excess = Infinity;
  while (excess > SETTLED && rounds < MAX_ROUNDS) {
    capGroups(byAs, AS_CAP_PARTS);
    capGroups(byOrganisation, ORGANISATION_CAP_PARTS);
    rounds++;
    excess = Math.max(excessOf(byAs, AS_CAP_PARTS), excessOf(byOrganisation, ORGANISATION_CAP_PARTS));
  }
  // Half of it, so that the sums keep it after they are rounded once more.
  if (!(excess <= CAP_TOLERANCE / 2)) {
    throw infeasible("nodes", `the caps did not settle in ${MAX_ROUNDS} rounds`);
  }

  const weights = new Map<string, number>();
  let total = 0;
  for (const { id, as, organisation, weight } of nodes) {
    const cell = weight < MIN_WEIGHT ? undefined : cells.get(JSON.stringify([as, organisation]));
    const effective = cell ? weight * (cell.sum / cell.raw) : 0;
    weights.set(id, effective);
    total += effective;
  }
  return { weights, total, rounds };
}

/** All nodes of one organisation in one AS: they are always scaled alike. */
interface Cell {
  readonly as: string;
  readonly organisation: string;
  /** Their weight before and after scaling. */
  raw: number;
  sum: number;
}

function infeasible(field: string, why: string): HtxError {
  return new HtxError("LIMIT_EXCEEDED", `Cannot weigh: no weights keep the caps: ${why}`, { field });
}

function checkCount(count: number, least: number, field: string, what: string): void {
  if (count < least) {
    throw infeasible(field, `${count} ${what} of weight above 0, at least ${least} are needed`);
  }
}

function grouped(cells: readonly Cell[], key: (cell: Cell) => string): Cell[][] {
  return [...groupBy(cells, key).values()];
}

const sumOf = (cells: readonly Cell[]) => cells.reduce((sum, cell) => sum + cell.sum, 0);

/**
 * Scales the groups that are above one part in `parts` of the total to just that, of the total as it then is. With the
 * k largest at the cap m, the others summing up to r: T = k m + r and m = T / parts, so m = r / (parts - k).
 */
function capGroups(groups: readonly Cell[][], parts: number): void {
  const sorted = groups.map((cells) => ({ cells, sum: sumOf(cells) })).sort((a, b) => b.sum - a.sum);
  // Summed from the small end, so that small groups beside large ones are not lost.
  const rest = new Array<number>(sorted.length + 1).fill(0);
  for (let i = sorted.length - 1; i >= 0; i--) rest[i] = rest[i + 1]! + sorted[i]!.sum;
  let capped = 0;
  while (capped < parts - 1 && sorted[capped]!.sum > rest[capped]! / (parts - capped)) capped++;
  const cap = rest[capped]! / (parts - capped);
  for (const { cells, sum } of sorted.slice(0, capped)) {
    for (const cell of cells) cell.sum *= cap / sum;
  }
}

/** By how much the largest group is above its cap, relative to the total. */
function excessOf(groups: readonly Cell[][], parts: number): number {
  let [total, largest] = [0, 0];
  for (const cells of groups) {
    const sum = sumOf(cells);
    total += sum;
    largest = Math.max(largest, sum);
  }
  return total > 0 ? largest / total - 1 / parts : Infinity;
}

/**
 * The cells that can have a weight above 0 while all caps hold.
 *
 * @throws {HtxError} `LIMIT_EXCEEDED`, field `nodes`, when none can
 */
function usableCells(cells: readonly Cell[]): Cell[] {
  // In parts of 1 / 20: an AS has at most 4, an organisation at most 5, and all together 20.
  const WHOLE = AS_CAP_PARTS * ORGANISATION_CAP_PARTS;
  const mostOfAs = WHOLE / AS_CAP_PARTS;
  const mostOfOrganisation = WHOLE / ORGANISATION_CAP_PARTS;
  const asIndex = indexOf(cells, (cell) => cell.as);
  const organisationIndex = indexOf(cells, (cell) => cell.organisation);
  const edges: Edge[] = cells.map((cell) => ({
    cell,
    as: asIndex.get(cell.as)!,
    organisation: organisationIndex.get(cell.organisation)!,
    flow: 0,
  }));
  const edgesOfAs: Edge[][] = Array.from({ length: asIndex.size }, () => []);
  const edgesOfOrganisation: Edge[][] = Array.from({ length: organisationIndex.size }, () => []);
  for (const edge of edges) {
    edgesOfAs[edge.as]!.push(edge);
    edgesOfOrganisation[edge.organisation]!.push(edge);
  }
  const sent = new Array<number>(asIndex.size).fill(0);
  const taken = new Array<number>(organisationIndex.size).fill(0);

  let flow = 0;
  while (flow <= WHOLE && augment()) flow++;
  if (flow < WHOLE) {
    throw infeasible(
      "nodes",
      "too few of the organisations in the large ASes are found elsewhere, or the other way round",
    );
  }
  // With room to spare every cell can have some weight.
  if (flow > WHOLE) return [...cells];
  // A cell without flow can have some only on a cycle of shifts that leaves the whole as it is.
  const component = components();
  return edges.filter((edge) =>
    edge.flow > 0 || component[edge.as] === component[asIndex.size + edge.organisation]
  ).map(({ cell }) => cell);

  /** Sends one part more along a shortest path of shifts, if there is one (Ford and Fulkerson). */
  function augment(): boolean {
    const viaOfAs = new Map<number, Edge | undefined>();
    const viaOfOrganisation = new Map<number, Edge>();
    const queue: number[] = [];
    for (let as = 0; as < sent.length; as++) {
      if (sent[as]! >= mostOfAs) continue;
      viaOfAs.set(as, undefined);
      queue.push(as);
    }
    for (const as of queue) {
      for (const edge of edgesOfAs[as]!) {
        const { organisation } = edge;
        if (viaOfOrganisation.has(organisation)) continue;
        viaOfOrganisation.set(organisation, edge);
        if (taken[organisation]! < mostOfOrganisation) {
          taken[organisation]!++;
          let last: Edge = edge;
          for (;;) {
            last.flow++;
            const back = viaOfAs.get(last.as);
            if (!back) break;
            back.flow--;
            last = viaOfOrganisation.get(back.organisation)!;
          }
          sent[last.as]!++;
          return true;
        }
        for (const back of edgesOfOrganisation[organisation]!) {
          if (back.flow === 0 || viaOfAs.has(back.as)) continue;
          viaOfAs.set(back.as, back);
          queue.push(back.as);
        }
      }
    }
    return false;
  }

  /** Strongly connected components of the graph of shifts: ASes, organisations, and the two ends. */
  function components(): number[] {
    const source = sent.length + taken.length;
    const sink = source + 1;
    const next: number[][] = Array.from({ length: sink + 1 }, () => []);
    for (const { as, organisation, flow } of edges) {
      next[as]!.push(sent.length + organisation);
      if (flow > 0) next[sent.length + organisation]!.push(as);
    }
    for (const [as, parts] of sent.entries()) {
      if (parts < mostOfAs) next[source]!.push(as);
      if (parts > 0) next[as]!.push(source);
    }
    for (const [organisation, parts] of taken.entries()) {
      if (parts < mostOfOrganisation) next[sent.length + organisation]!.push(sink);
      if (parts > 0) next[sink]!.push(sent.length + organisation);
    }
    return stronglyConnected(next);
  }
}

interface Edge {
  readonly cell: Cell;
  readonly as: number;
  readonly organisation: number;
  flow: number;
}

function indexOf(cells: readonly Cell[], key: (cell: Cell) => string): Map<string, number> {
  const index = new Map<string, number>();
  for (const cell of cells) if (!index.has(key(cell))) index.set(key(cell), index.size);
  return index;
}

/** The component of each vertex (Kosaraju: finish order forwards, then marks backwards; no recursion). */
function stronglyConnected(next: readonly (readonly number[])[]): number[] {
  const previous: number[][] = next.map(() => []);
  for (const [from, targets] of next.entries()) for (const to of targets) previous[to]!.push(from);
  const order: number[] = [];
  const visited = new Set<number>();
  for (const start of next.keys()) {
    if (visited.has(start)) continue;
    visited.add(start);
    const stack = [{ at: start, edge: 0 }];
    while (stack.length > 0) {
      const top = stack[stack.length - 1]!;
      const to = next[top.at]![top.edge++];
      if (to === undefined) {
        order.push(top.at);
        stack.pop();
      } else if (!visited.has(to)) {
        visited.add(to);
        stack.push({ at: to, edge: 0 });
      }
    }
  }
  const component = new Array<number>(next.length).fill(-1);
  for (const start of order.reverse()) {
    if (component[start] !== -1) continue;
    component[start] = start;
    const stack = [start];
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      for (const from of previous[at]!) {
        if (component[from] !== -1) continue;
        component[from] = start;
        stack.push(from);
      }
    }
  }
  return component;
}
