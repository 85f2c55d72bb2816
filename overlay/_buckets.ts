import { HtxError } from "./_core.ts";

/** A token bucket's size and speed. */
export interface BucketRate {
  /** Tokens that a full bucket holds: the burst. */
  readonly burst: number;
  /** Tokens that flow in per second. */
  readonly perSecond: number;
}

/** Checks a caller's rate. */
export function checkRate(rate: BucketRate, what: string): BucketRate {
  if (!(rate.burst >= 1) || !(rate.perSecond >= 0) || !Number.isFinite(rate.burst + rate.perSecond)) {
    throw new RangeError(`Cannot use ${what}: burst is ${rate.burst}, perSecond is ${rate.perSecond}`);
  }
  return { burst: rate.burst, perSecond: rate.perSecond };
}

/** Past this a clock that goes back was set, and is followed; up to it, time stands still. In ms. */
const SET_BACK_MS = 1_000;

interface Bucket {
  tokens: number;
  at: number;
}

/** Token buckets by key, bounded: past the limit the fullest go, which hold back least. */
export class Buckets {
  readonly #rate: BucketRate;
  readonly #limit: number;
  readonly #buckets = new Map<string, Bucket>();
  #now = -Infinity;

  constructor(rate: BucketRate, limit: number) {
    if (!(limit >= 1)) throw new RangeError(`Cannot make buckets: the limit is ${limit}`);
    this.#rate = rate;
    this.#limit = limit;
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** Takes a token of `key` at `now` ms, if there is one. */
  take(key: string, now: number): boolean {
    const bucket = this.#fill(key, now);
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }

  /** How long until `key` has a token, in ms. */
  delay(key: string, now: number): number {
    const { tokens } = this.#fill(key, now);
    return tokens >= 1 ? 0 : Math.ceil((1 - tokens) * 1000 / this.#rate.perSecond);
  }

  #fill(key: string, now: number): Bucket {
    checkClock(now);
    if (now > this.#now || now < this.#now - SET_BACK_MS) this.#now = now;
    const { burst } = this.#rate;
    let bucket = this.#buckets.get(key);
    if (bucket) {
      bucket.tokens = Math.min(burst, this.#tokens(bucket));
      bucket.at = this.#now;
      return bucket;
    }
    if (this.#buckets.size >= this.#limit) this.#evict();
    bucket = { tokens: burst, at: this.#now };
    this.#buckets.set(key, bucket);
    return bucket;
  }

  /** Tokens by now, past the burst too. A bucket last filled ahead of now, before the clock was set back, gains none. */
  #tokens(bucket: Bucket): number {
    return bucket.tokens + Math.max(0, this.#now - bucket.at) * this.#rate.perSecond / 1000;
  }

  /** Drops an eighth at a time, so that a flood of new keys does not look through all of them at each one. */
  #evict(): void {
    const fullestFirst = [...this.#buckets].sort(([, a], [, b]) => this.#tokens(b) - this.#tokens(a));
    for (const [key] of fullestFirst.slice(0, Math.ceil(this.#limit / 8))) this.#buckets.delete(key);
  }
}

/** What a bounded memory says to a new entry. */
export type MemoryAnswer = "fresh" | "seen" | "full";

/**
 * Remembers keys for a fixed time, bounded. Asking and recording are one step; a full memory says so and forgets
 * nothing; time never goes back, so that what was refused stays refused while the clock is wrong.
 */
export class Memory {
  readonly #keepMs: number;
  readonly #limit: number;
  /** Key to the time until which it is kept; in order of that time, because the span is fixed. */
  readonly #until = new Map<string, number>();
  #now = -Infinity;

  constructor(keepMs: number, limit: number) {
    if (!(limit >= 1)) throw new RangeError(`Cannot make memory: the limit is ${limit}`);
    this.#keepMs = keepMs;
    this.#limit = limit;
  }

  get size(): number {
    return this.#until.size;
  }

  add(key: string, now: number): MemoryAnswer {
    checkClock(now);
    this.#now = Math.max(this.#now, now);
    for (const [old, until] of this.#until) {
      if (until > this.#now) break;
      this.#until.delete(old);
    }
    if (this.#until.has(key)) return "seen";
    if (this.#until.size >= this.#limit) return "full";
    this.#until.set(key, this.#now + this.#keepMs);
    return "fresh";
  }
}

/** A clock that fails must not open what time keeps shut. */
function checkClock(now: number): void {
  if (!Number.isFinite(now)) {
    throw new HtxError("INTERNAL_ERROR", "Cannot tell the time: the clock gave no number");
  }
}
