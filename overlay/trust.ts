/**
 * How far a peer is trusted: a number in [0, 1] from what was attested, what was seen, and what is at stake.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Fraction, fraction, plus, times, toNumber } from "./_fraction.ts";

/** "Uptime attestations from at least 8 AS groups …" */
export const TRUST_MIN_AS_GROUPS = 8;
/** "… over 30 days." */
export const TRUST_WINDOW_DAYS = 30;
/** "Uptime share of attested days … weighs 0.5, share of well-relayed observations … 0.3, capped stake … 0.2": in tenths. */
export const TRUST_WEIGHTS: { readonly uptime: number; readonly relay: number; readonly stake: number } = {
  uptime: 5,
  relay: 3,
  stake: 2,
};

/** What somebody attests of a peer for one day. */
export interface UptimeAttestation {
  /** The AS group of whoever attests. */
  readonly asGroup: string;
  /** The day: floor(Unix seconds / 86400). */
  readonly day: number;
  /** Whether the peer was up. */
  readonly up: boolean;
}

/** All that trust is made of. */
export interface TrustInputs {
  /** Attestations; those outside the 30 days that end today are left out. */
  readonly attestations: readonly UptimeAttestation[];
  /** Today: floor(Unix seconds / 86400). */
  readonly today: number;
  /** What was seen of the peer's relaying: counts. */
  readonly observations: { readonly good: number; readonly bad: number };
  /** Staked ecash and the cap of its AS, in sat. */
  readonly stake: { readonly sat: bigint; readonly cap: bigint };
}

/** Trust, and what it is made of. */
export interface Trust {
  /** In [0, 1]. */
  readonly value: number;
  /** Uptime share of attested days, in [0, 1]; 0 below 8 AS groups. */
  readonly uptime: number;
  /** Share of well-relayed observations with a Beta(1,1) prior, in (0, 1). */
  readonly relay: number;
  /** Capped stake relative to its cap, in [0, 1]. */
  readonly stake: number;
  /** AS groups that attested. */
  readonly asGroups: number;
}

/**
 * Computes a peer's trust. The sum is made of fractions and rounded once, so that 0.8 is reached by exactly what adds
 * up to 0.8; "it never falls when one input improves".
 *
 * The attested days weigh the same, and on a day so does each AS group, however often it attested.
 *
 * @throws {RangeError} when a count, a stake or a day is negative or no whole number, or the cap is not above 0
 *
 * @example
 * ```ts
 * import { peerTrust } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const attestations = Array.from({ length: 8 }, (_, i) => ({ asGroup: `g${i}`, day: 20_000, up: true }));
 * const trust = peerTrust({
 *   attestations,
 *   today: 20_000,
 *   observations: { good: 0, bad: 1 },
 *   stake: { sat: 5_000n, cap: 5_000n },
 * });
 * assertEquals(trust.value, 0.8); // 0.5 * 1 + 0.3 * 1/3 + 0.2 * 1
 * ```
 */
export function peerTrust(inputs: TrustInputs): Trust {
  const { attestations, today, observations, stake } = inputs;
  for (const count of [today, observations.good, observations.bad]) {
    if (!Number.isSafeInteger(count) || count < 0) {
      throw new RangeError(`Cannot compute trust: ${count} is no count`);
    }
  }
  if (stake.sat < 0n || stake.cap <= 0n) {
    throw new RangeError("Cannot compute trust: the stake or its cap is negative");
  }
  const { share, asGroups } = uptimeShare(attestations, today);
  // Beta(1,1): one good and one bad observation before the first.
  const relay = fraction(
    BigInt(observations.good) + 1n,
    BigInt(observations.good) + BigInt(observations.bad) + 2n,
  );
  const staked = fraction(stake.sat < stake.cap ? stake.sat : stake.cap, stake.cap);
  const tenths = (weight: number) => fraction(BigInt(weight), 10n);
  const sum = plus(
    plus(times(tenths(TRUST_WEIGHTS.uptime), share), times(tenths(TRUST_WEIGHTS.relay), relay)),
    times(tenths(TRUST_WEIGHTS.stake), staked),
  );
  return {
    value: toNumber(sum),
    uptime: toNumber(share),
    relay: toNumber(relay),
    stake: toNumber(staked),
    asGroups,
  };
}

function uptimeShare(
  attestations: readonly UptimeAttestation[],
  today: number,
): { share: Fraction; asGroups: number } {
  const days = new Map<number, Map<string, { up: bigint; all: bigint }>>();
  const groups = new Set<string>();
  for (const { asGroup, day, up } of attestations) {
    if (!Number.isSafeInteger(day)) throw new RangeError(`Cannot compute trust: ${day} is no day`);
    if (day > today || day <= today - TRUST_WINDOW_DAYS) continue;
    groups.add(asGroup);
    let ofDay = days.get(day);
    if (!ofDay) days.set(day, ofDay = new Map());
    const counts = ofDay.get(asGroup) ?? { up: 0n, all: 0n };
    ofDay.set(asGroup, { up: counts.up + (up ? 1n : 0n), all: counts.all + 1n });
  }
  let share = fraction(0n, 1n);
  if (groups.size >= TRUST_MIN_AS_GROUPS) {
    for (const ofDay of days.values()) {
      let sum = fraction(0n, 1n);
      for (const { up, all } of ofDay.values()) sum = plus(sum, fraction(up, all));
      share = plus(share, times(sum, fraction(1n, BigInt(ofDay.size))));
    }
    share = times(share, fraction(1n, BigInt(days.size)));
  }
  return { share, asGroups: groups.size };
}
