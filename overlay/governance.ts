/**
 * Proposals: when they pass, and when they take effect. Weights come from {@linkcode effectiveWeights}.
 *
 * Times are in Unix seconds. Votes are added as whole numbers, in any order of addition the same, and compared with their
 * bounds up to the rounding of floats: a bound that is met exactly is met, whatever they made of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { areDisjoint, groupBy } from "./_collections.ts";
import { compareShare, ratio, toUnits } from "./_units.ts";
import { CAP_TOLERANCE, MIN_WEIGHT } from "./weights.ts";

/** "ACK weight at least 0.67 of the weight active in 14 days", in percent. */
export const ACK_PERCENT = 67;
/** "… active in 14 days", in seconds. */
export const ACTIVE_SECONDS = 14 * 86_400;
/** "ACKs from at least 24 AS groups …" */
export const ACK_MIN_AS_GROUPS = 24;
/** "… and 3 ISDs." */
export const ACK_MIN_ISDS = 3;
/** "No AS above 20 % …", in percent. */
export const ACK_MAX_AS_PERCENT = 20;
/** "… and no organisation above 25 % of the ACK weight", in percent. */
export const ACK_MAX_ORGANISATION_PERCENT = 25;
/** "Seen over at least 2 disjoint path classes …" */
export const MIN_PATH_CLASSES = 2;
/** "… with median loss below 2 %", as a fraction. */
export const MAX_MEDIAN_LOSS = 0.02;
/** "Path diversity and ACK composition not worse by more than 20 % over the last 7 days": what must be left, in percent. */
export const MIN_KEPT_PERCENT = 80;
/** "Activation waits 30 days", in seconds. */
export const ACTIVATION_SECONDS = 30 * 86_400;
/** "If the conditions fail at any time from 7 days before it, it is deferred until they hold for 7 days in a row", in seconds. */
export const ACTIVATION_WINDOW_SECONDS = 7 * 86_400;

/** A node that may vote. */
export interface Voter {
  /** A name, unique among the voters. */
  readonly id: string;
  /** Its autonomous system. */
  readonly as: string;
  /** The group of that AS. */
  readonly asGroup: string;
  /** Its organisation. */
  readonly organisation: string;
  /** Its isolation domain. */
  readonly isd: string;
  /** Its effective weight. */
  readonly weight: number;
  /** When it was last active, in Unix seconds. */
  readonly lastActive: number;
  /** Whether it acknowledged the proposal. */
  readonly ack: boolean;
}

/** A class of paths over which the proposal was seen. */
export interface PathClass {
  /** Its name; the same name twice is one class. */
  readonly name: string;
  /** What its paths run over; classes with one in common are not disjoint. @default {[]} */
  readonly elements?: readonly string[] | undefined;
  /** Measured loss of its paths, as fractions. */
  readonly loss: readonly number[];
}

/** A figure now and 7 days ago: the larger the better. */
export interface Trend {
  /** Now. */
  readonly now: number;
  /** 7 days ago. */
  readonly weekAgo: number;
}

/** All that decides about a proposal. */
export interface ProposalFacts {
  /** Everyone who may vote. An ACK of a node that is not active does not count. */
  readonly voters: readonly Voter[];
  /** Where the proposal was seen. */
  readonly paths: readonly PathClass[];
  /** How diverse paths are. */
  readonly pathDiversity: Trend;
  /** How well spread the ACKs are, by any measure that falls as it gets worse; see {@linkcode ackComposition}. */
  readonly ackComposition: Trend;
  /** The time, in Unix seconds. */
  readonly now: number;
}

/** One condition of a proposal. */
export type ProposalConditionName =
  | "ack-weight"
  | "ack-as-groups"
  | "ack-isds"
  | "ack-as-share"
  | "ack-organisation-share"
  | "path-classes"
  | "path-diversity"
  | "ack-composition";

/** A condition, its value, its bound, and whether it held. */
export interface Condition<Name extends string = string> {
  /** Which. */
  readonly name: Name;
  /** What was found, rounded to show. */
  readonly value: number;
  /** How value and bound must relate. */
  readonly relation: ">=" | "<=" | ">";
  /** The bound. */
  readonly bound: number;
  /** Whether it held. */
  readonly held: boolean;
}

/** The verdict on a proposal. */
export interface ProposalVerdict {
  /** Whether all conditions held. */
  readonly ok: boolean;
  /** Every condition, held or not. */
  readonly conditions: readonly Condition<ProposalConditionName>[];
}

/**
 * "A proposal passes when all hold: ACK weight at least 0.67 of the weight active in 14 days; ACKs from at least 24 AS
 * groups and 3 ISDs, no AS above 20 % and no organisation above 25 % of the ACK weight; seen over at least 2 disjoint path
 * classes with median loss below 2 %; path diversity and ACK composition not worse by more than 20 % over the last 7
 * days."
 *
 * @throws {RangeError} when a voter occurs twice, or a weight, time, loss or figure is none
 *
 * @example
 * ```ts
 * import { evaluateProposal } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const verdict = evaluateProposal({
 *   voters: [],
 *   paths: [],
 *   pathDiversity: { now: 9, weekAgo: 10 },
 *   ackComposition: { now: 7, weekAgo: 10 },
 *   now: 1_800_000_000,
 * });
 * assertEquals(verdict.ok, false);
 * assertEquals(verdict.conditions.find(({ name }) => name === "path-diversity")?.held, true);
 * assertEquals(verdict.conditions.find(({ name }) => name === "ack-composition")?.held, false);
 * ```
 */
export function evaluateProposal(facts: ProposalFacts): ProposalVerdict {
  const { voters, paths, pathDiversity, ackComposition, now } = facts;
  checkTime(now);
  const seen = new Set<string>();
  let active = 0n;
  const acks: Ack[] = [];
  for (const voter of voters) {
    if (seen.has(voter.id)) {
      throw new RangeError(`Cannot evaluate proposal: voter ${JSON.stringify(voter.id)} occurs twice`);
    }
    seen.add(voter.id);
    checkTime(voter.lastActive);
    const units = toUnits(voter.weight);
    // A day counts as within 14 days up to and including its end; a time after now is a clock ahead.
    if (voter.weight < MIN_WEIGHT || now - voter.lastActive > ACTIVE_SECONDS) continue;
    active += units;
    if (voter.ack) acks.push({ voter, units });
  }
  const weight = acks.reduce((sum, { units }) => sum + units, 0n);
  const largestAs = largest(acks, ({ as }) => as);
  const largestOrganisation = largest(acks, ({ organisation }) => organisation);
  const asGroups = new Set(acks.map(({ voter }) => voter.asGroup)).size;
  const isds = new Set(acks.map(({ voter }) => voter.isd)).size;
  const classes = disjointClasses(paths);

  const conditions: Condition<ProposalConditionName>[] = [
    {
      name: "ack-weight",
      value: ratio(weight, active),
      relation: ">=",
      bound: ACK_PERCENT / 100,
      held: weight > 0n && compareShare(weight, active, ACK_PERCENT / 100) >= 0,
    },
    least("ack-as-groups", asGroups, ACK_MIN_AS_GROUPS),
    least("ack-isds", isds, ACK_MIN_ISDS),
    {
      name: "ack-as-share",
      value: ratio(largestAs, weight),
      relation: "<=",
      bound: ACK_MAX_AS_PERCENT / 100,
      held: compareShare(largestAs, weight, ACK_MAX_AS_PERCENT / 100, CAP_TOLERANCE) <= 0,
    },
    {
      name: "ack-organisation-share",
      value: ratio(largestOrganisation, weight),
      relation: "<=",
      bound: ACK_MAX_ORGANISATION_PERCENT / 100,
      held: compareShare(largestOrganisation, weight, ACK_MAX_ORGANISATION_PERCENT / 100, CAP_TOLERANCE) <= 0,
    },
    least("path-classes", classes, MIN_PATH_CLASSES),
    kept("path-diversity", pathDiversity),
    kept("ack-composition", ackComposition),
  ];
  return { ok: conditions.every(({ held }) => held), conditions };
}

/**
 * A measure for how well ACKs are spread: the effective number of AS groups, 1 / (sum of the squares of their shares).
 * It is the number of groups when all weigh the same, and 1 when one has everything; 0 without ACKs.
 */
export function ackComposition(acks: readonly Pick<Voter, "asGroup" | "weight">[]): number {
  const sums = new Map<string, number>();
  let total = 0;
  for (const { asGroup, weight } of acks) {
    toUnits(weight);
    sums.set(asGroup, (sums.get(asGroup) ?? 0) + weight);
    total += weight;
  }
  let squares = 0;
  for (const sum of sums.values()) squares += (sum / total) ** 2;
  return total === 0 ? 0 : 1 / squares;
}

/** What was found at one time about the conditions of a proposal. */
export interface ConditionSample {
  /** When, in Unix seconds. What was found holds until the next sample. */
  readonly at: number;
  /** Whether all of them held. */
  readonly held: boolean;
}

/** The state of a proposal that passed. */
export type ActivationVerdict =
  /** In force since `at`. */
  | { readonly ok: true; readonly state: "active"; readonly at: number }
  /** Will be in force at `at`, if the conditions hold until then; `undefined` while they do not. */
  | { readonly ok: false; readonly state: "waiting" | "deferred"; readonly at: number | undefined };

/**
 * "Activation waits 30 days; if the conditions fail at any time from 7 days before it, it is deferred until they hold for
 * 7 days in a row."
 *
 * So it comes at the first time, not before 30 days, at which the conditions held throughout the 7 days up to it, both
 * ends included. Once in force it stays so.
 *
 * @param passedAt when the proposal passed: the conditions held then
 * @param samples what was found since, in the order of time; those after `now` are left out
 * @throws {RangeError} when samples are out of order or before `passedAt`, or a time is none
 */
export function evaluateActivation(
  passedAt: number,
  samples: readonly ConditionSample[],
  now: number,
): ActivationVerdict {
  checkTime(passedAt);
  checkTime(now);
  const planned = passedAt + ACTIVATION_SECONDS;
  let heldSince: number | undefined = passedAt;
  let last = passedAt;
  const due = () =>
    heldSince === undefined ? undefined : Math.max(planned, heldSince + ACTIVATION_WINDOW_SECONDS);
  for (const { at } of samples) {
    if (!(at >= last)) {
      throw new RangeError("Cannot evaluate activation: the samples are not in the order of time");
    }
    last = at;
  }
  for (const { at, held } of samples) {
    if (at > now) break;
    const next = due();
    if (next !== undefined && next < at) return { ok: true, state: "active", at: next };
    heldSince = held ? heldSince ?? at : undefined;
  }
  const at = due();
  if (at !== undefined && at <= now) return { ok: true, state: "active", at };
  const deferred = at === undefined ? now >= planned - ACTIVATION_WINDOW_SECONDS : at > planned;
  return { ok: false, state: deferred ? "deferred" : "waiting", at };
}

/** A time that is none would compare as neither early nor late. */
function checkTime(time: number): void {
  if (!Number.isFinite(time)) throw new RangeError(`Cannot evaluate proposal: a time is ${time}`);
}

interface Ack {
  readonly voter: Voter;
  readonly units: bigint;
}

function least(name: ProposalConditionName, value: number, bound: number): Condition<ProposalConditionName> {
  return { name, value, relation: ">=", bound, held: value >= bound };
}

function kept(name: ProposalConditionName, trend: Trend): Condition<ProposalConditionName> {
  const [now, before] = [toUnits(trend.now), toUnits(trend.weekAgo)];
  return {
    name,
    value: before === 0n ? 1 : ratio(now, before),
    relation: ">=",
    bound: MIN_KEPT_PERCENT / 100,
    held: compareShare(now, before, MIN_KEPT_PERCENT / 100) >= 0,
  };
}

/** The most weight that one group of the ACKs has. */
function largest(acks: readonly Ack[], group: (voter: Voter) => string): bigint {
  const sums = new Map<string, bigint>();
  let most = 0n;
  for (const { voter, units } of acks) {
    const sum = (sums.get(group(voter)) ?? 0n) + units;
    sums.set(group(voter), sum);
    if (sum > most) most = sum;
  }
  return most;
}

/** How many classes with little loss are found that have nothing in common; 2 or more whenever there are 2. */
function disjointClasses(paths: readonly PathClass[]): number {
  const good = new Map<string, Set<string>>();
  for (const [name, parts] of groupBy(paths, ({ name }) => name)) {
    const loss = parts.flatMap((part) => part.loss);
    for (const value of loss) {
      if (!(value >= 0 && value <= 1)) throw new RangeError(`Cannot evaluate proposal: a loss is ${value}`);
    }
    if (isMedianBelow(loss, MAX_MEDIAN_LOSS)) {
      good.set(
        name,
        new Set(parts.flatMap(({ elements = [] }) => elements)),
      );
    }
  }
  const sets = [...good.values()];
  let most = Math.min(sets.length, 1);
  // From each class on, take what fits: a disjoint pair is found from its first member.
  for (const first of sets) {
    const taken = [first];
    for (const set of sets) {
      if (taken.every((other) => other !== set && areDisjoint(other, set))) taken.push(set);
    }
    most = Math.max(most, taken.length);
  }
  return most;
}

/** Without measurements there is no median. */
function isMedianBelow(values: readonly number[], bound: number): boolean {
  if (values.length === 0) return false;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const middleTwo = sorted.length % 2 === 1 ? [middle, middle] : [middle - 1, middle];
  const sum = middleTwo.reduce((sum, at) => sum + toUnits(sorted[at]!), 0n);
  return compareShare(sum, toUnits(2), bound) < 0;
}
