/**
 * Figures as whole numbers, and the one place where shares meet their bounds. A weight comes from logarithms and is a
 * float; sums of weights are votes and are made in units of 2^-96, which hold every float from 2^-43 on as it is, so that
 * sums do not depend on the order of addition.
 */
const UNITS = 2 ** 96;

/**
 * How far a share may be from a bound and still meet it exactly: what is 67 % on paper rarely is in floats (0.67 + 0.33,
 * logarithms). Nobody wins a vote by a billionth of a thousandth of it.
 */
export const SHARE_TOLERANCE = 1e-12;

/** @throws {RangeError} when the figure is negative, not finite, or past 2^900 */
export function toUnits(figure: number): bigint {
  const units = figure * UNITS;
  if (!(units >= 0 && Number.isFinite(units))) throw new RangeError(`Cannot use weight: ${figure}`);
  return BigInt(Math.round(units));
}

/**
 * How `part / whole` stands to a bound: below it, met exactly, or above it. Whether a bound that is met exactly counts is
 * for the caller's rule: `>= 0` for "at least", `< 0` for "below". Of nothing, every bound is met.
 *
 * @param bound a fraction, such as 0.67
 * @param tolerance how much of the whole counts as nothing; larger than the default where weights were fitted to the bound
 */
export function compareShare(
  part: bigint,
  whole: bigint,
  bound: number,
  tolerance: number = SHARE_TOLERANCE,
): -1 | 0 | 1 {
  const excess = part * toUnits(1) - whole * toUnits(bound);
  const slack = whole * toUnits(tolerance);
  if (excess < -slack) return -1;
  return excess > slack ? 1 : 0;
}

/** `part / whole` as a number to show; 0 of nothing is 0. */
export function ratio(part: bigint, whole: bigint): number {
  return whole === 0n ? 0 : Number((part << 64n) / whole) / 2 ** 64;
}
