/**
 * Rate limits for tickets: token buckets per network (HTX 1.1 §6).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { latest } from "./_clock.ts";

/** Tokens that a bucket gains in a minute. */
export const DEFAULT_TICKETS_PER_MINUTE = 20;
/** Tokens that a bucket holds at most, and at first. */
export const DEFAULT_TICKET_BURST = 40;
/** Buckets that are remembered. */
export const DEFAULT_MAX_BUCKETS = 65_536;

const MINUTE_MS = 60_000;
/** The grain of a bucket's times, in ms: whole multiples of it and times since 1970 add up in floats without rounding. */
const GRAIN_MS = 2 ** -10;
/** Past this a clock that goes back was set, and is followed; up to it, time stands still. */
const SET_BACK_MS = 1_000;

/**
 * Decides how many tickets of one network are looked at. {@linkcode rateLimiterContract} tests implementations.
 *
 * An implementation that cannot decide throws or rejects; the verifier then refuses, unless it was told to let rate
 * limits fail open.
 */
export interface RateLimiter {
  /**
   * Takes a token out of a bucket.
   *
   * @param bucket see {@linkcode rateBucketOf}
   * @param now milliseconds since 1970; an earlier time than seen before gives no tokens
   * @returns whether there was one
   */
  take(bucket: string, now: number): boolean | Promise<boolean>;
}

/** Options of {@linkcode MemoryRateLimiter}, and of other token buckets. */
export interface TokenBucketOptions {
  /** Tokens that a bucket gains in a minute. @default {20} */
  readonly perMinute?: number | undefined;
  /** Tokens that a bucket holds at most, and at first. @default {40} */
  readonly burst?: number | undefined;
}

/** Options of {@linkcode MemoryRateLimiter}. */
export interface MemoryRateLimiterOptions extends TokenBucketOptions {
  /** Buckets that are remembered; past that the fullest is forgotten, which loses least. @default {65536} */
  readonly maxBuckets?: number | undefined;
}

/**
 * Token buckets in memory. A bucket is one number: the time at which it will be full again, which any `now` turns into
 * tokens. The numbers lie in a heap with the fullest bucket on top, so a step costs the logarithm of their count.
 *
 * @example Forty at once, then one every three seconds
 * ```ts
 * import { MemoryRateLimiter } from "@betanet/htx/tickets";
 * import { assert } from "@std/assert";
 *
 * const limiter = new MemoryRateLimiter();
 * for (let i = 0; i < 40; i++) assert(limiter.take("4:c00002", 0));
 * assert(!limiter.take("4:c00002", 2_999));
 * assert(limiter.take("4:c00002", 3_000));
 * ```
 */
export class MemoryRateLimiter implements RateLimiter {
  readonly #interval: number;
  readonly #capacity: number;
  readonly #maxBuckets: number;
  /** Where in the heap a bucket is. */
  readonly #positions = new Map<string, number>();
  readonly #names: string[] = [];
  readonly #fullAt: number[] = [];
  #now = 0;

  /**
   * Makes an empty one.
   *
   * @throws {RangeError} when an option is not a positive number, or a full bucket's time is past all numbers
   */
  constructor(options: MemoryRateLimiterOptions = {}) {
    const { maxBuckets = DEFAULT_MAX_BUCKETS } = options;
    const { interval, capacity } = tokenBucketTimes(options);
    if (!Number.isInteger(maxBuckets) || maxBuckets < 1) {
      throw new RangeError(`Cannot make rate limiter: maxBuckets is ${maxBuckets}, not a positive integer`);
    }
    this.#interval = interval;
    this.#capacity = capacity;
    this.#maxBuckets = maxBuckets;
  }

  /** Buckets remembered at the moment. */
  get size(): number {
    return this.#names.length;
  }

  /** Takes a token out of a bucket; whether there was one. */
  take(bucket: string, now: number): boolean {
    if (now < this.#now - SET_BACK_MS && Number.isFinite(now)) this.#setBack(now);
    this.#now = latest(this.#now, now);
    const position = this.#positions.get(bucket);
    const fullAt = Math.max(position === undefined ? 0 : this.#fullAt[position]!, this.#now) + this.#interval;
    if (fullAt - this.#now > this.#capacity) return false;
    if (position !== undefined) {
      this.#fullAt[position] = fullAt;
      this.#sink(position);
    } else if (this.#names.length < this.#maxBuckets && !this.#topIsFull()) {
      this.#set(this.#names.length, bucket, fullAt);
      this.#rise(this.#names.length - 1);
    } else {
      this.#positions.delete(this.#names[0]!); // a full bucket is as good as none; else the fullest goes
      this.#set(0, bucket, fullAt);
      this.#sink(0);
    }
    return true;
  }

  /** Else what was taken while the clock was ahead would come back only when that time comes again. */
  #setBack(now: number): void {
    this.#now = now;
    for (const [position, fullAt] of this.#fullAt.entries()) { // the order stays
      this.#fullAt[position] = Math.min(fullAt, now + this.#capacity);
    }
  }

  #topIsFull(): boolean {
    const top = this.#fullAt[0];
    return top !== undefined && top <= this.#now;
  }

  #set(position: number, bucket: string, fullAt: number): void {
    this.#names[position] = bucket;
    this.#fullAt[position] = fullAt;
    this.#positions.set(bucket, position);
  }

  #swap(a: number, b: number): void {
    const name = this.#names[a]!;
    const fullAt = this.#fullAt[a]!;
    this.#set(a, this.#names[b]!, this.#fullAt[b]!);
    this.#set(b, name, fullAt);
  }

  #sink(position: number): void {
    for (let at = position;;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < this.#fullAt.length && this.#fullAt[child]! < this.#fullAt[least]!) least = child;
      }
      if (least === at) return;
      this.#swap(at, least);
      at = least;
    }
  }

  #rise(position: number): void {
    for (let at = position; at > 0;) {
      const parent = (at - 1) >> 1;
      if (this.#fullAt[parent]! <= this.#fullAt[at]!) return;
      this.#swap(at, parent);
      at = parent;
    }
  }
}

/**
 * A token bucket's options as times in milliseconds: what a token takes to come back, and what a full bucket holds.
 *
 * @throws {RangeError} when an option is not a positive number, or a full bucket's time is past all numbers
 */
export function tokenBucketTimes(options: TokenBucketOptions): { interval: number; capacity: number } {
  const { perMinute = DEFAULT_TICKETS_PER_MINUTE, burst = DEFAULT_TICKET_BURST } = options;
  if (!(perMinute > 0) || !Number.isFinite(perMinute)) {
    throw new RangeError(`Cannot make rate limiter: perMinute is ${perMinute}, not a positive number`);
  }
  if (!Number.isInteger(burst) || burst < 1) {
    throw new RangeError(`Cannot make rate limiter: burst is ${burst}, not a positive integer`);
  }
  // Rounded sums would be a hair above the capacity, and the last token of a full bucket refused.
  const interval = Math.ceil(MINUTE_MS / perMinute / GRAIN_MS) * GRAIN_MS;
  const capacity = interval * burst;
  // Where it is not finite every time is within it, and the strictest limit would be none.
  if (!Number.isFinite(capacity)) {
    throw new RangeError(
      `Cannot make rate limiter: perMinute is ${perMinute} and burst ${burst}, which no time can express`,
    );
  }
  return { interval, capacity };
}
