/** A rational number, for rules whose bounds must hold exactly. The denominator is above 0. */
export interface Fraction {
  readonly num: bigint;
  readonly den: bigint;
}

export function fraction(num: bigint, den: bigint): Fraction {
  return { num, den };
}

export function plus(a: Fraction, b: Fraction): Fraction {
  return reduce({ num: a.num * b.den + b.num * a.den, den: a.den * b.den });
}

export function times(a: Fraction, b: Fraction): Fraction {
  return reduce({ num: a.num * b.num, den: a.den * b.den });
}

/** The number nearest to a fraction that is not negative (ties and the 61st bit aside). Never falls as the fraction grows. */
export function toNumber(a: Fraction): number {
  const SCALE = 60n;
  return Number((a.num << SCALE) / a.den) / 2 ** Number(SCALE);
}

function reduce(a: Fraction): Fraction {
  let [x, y] = [a.num < 0n ? -a.num : a.num, a.den];
  while (y > 0n) [x, y] = [y, x % y];
  return x <= 1n ? a : { num: a.num / x, den: a.den / x };
}
