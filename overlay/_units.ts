/**
 * Weights as whole numbers. A weight comes from logarithms and is a float; sums and comparisons of weights are votes
 * and are made in units of 2^-32, so that they do not depend on the order of addition and a bound that is met exactly
 * is met. Rounding moves a weight by at most 2^-33, far below what is known of any input.
 */
const UNITS = 2 ** 32;

/** @throws {RangeError} when the weight is negative or not finite */
export function toUnits(weight: number): bigint {
  if (!(weight >= 0 && Number.isFinite(weight))) throw new RangeError(`Cannot use weight: ${weight}`);
  return BigInt(Math.round(weight * UNITS));
}

/** `part / whole` as a number to show; 0 of nothing is 0. */
export function ratio(part: bigint, whole: bigint): number {
  return whole === 0n ? 0 : Number((part << 64n) / whole) / 2 ** 64;
}
