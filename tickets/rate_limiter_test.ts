import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { rateBucketOf } from "./address.ts";
import { usedHeap } from "../core/_test_heap.ts";
import { isLong } from "./_testing.ts";
import { MemoryRateLimiter } from "./rate_limiter.ts";
import { rateLimiterContract } from "./testing.ts";

for (const { name, run } of rateLimiterContract(() => new MemoryRateLimiter())) {
  Deno.test(`MemoryRateLimiter: ${name}`, run);
}

for (
  const { name, run } of rateLimiterContract(() => new MemoryRateLimiter({ perMinute: 7, burst: 3 }), {
    perMinute: 7,
    burst: 3,
  })
) {
  Deno.test(`MemoryRateLimiter, 7 a minute: ${name}`, run);
}

Deno.test("MemoryRateLimiter: a bucket holds its burst whatever it gains in a minute", () => {
  for (let perMinute = 1; perMinute <= 200; perMinute++) {
    for (const burst of [1, 2, 10, 40, 1000]) {
      const limiter = new MemoryRateLimiter({ perMinute, burst });
      let taken = 0;
      while (limiter.take("4:c00002", 1_766_000_000_123)) taken++;
      assertEquals(taken, burst, `${perMinute} a minute`);
    }
  }
});

Deno.test("MemoryRateLimiter: when it is full the fullest bucket is forgotten first", () => {
  const limiter = new MemoryRateLimiter({ maxBuckets: 3 });
  for (const [bucket, taken] of [["a", 40], ["b", 10], ["c", 20]] as const) {
    for (let i = 0; i < taken; i++) assert(limiter.take(bucket, 0));
  }
  assert(limiter.take("d", 0)); // b goes, which loses ten
  assertEquals(limiter.size, 3);
  assert(!limiter.take("a", 0));
  for (let i = 0; i < 39; i++) assert(limiter.take("d", 0));
  assert(!limiter.take("d", 0));
  for (let i = 0; i < 20; i++) assert(limiter.take("c", 0));
  assert(!limiter.take("c", 0));
});

Deno.test("MemoryRateLimiter: full buckets make room before any other", () => {
  const limiter = new MemoryRateLimiter({ maxBuckets: 2 });
  limiter.take("a", 0);
  for (let i = 0; i < 40; i++) limiter.take("b", 0);
  limiter.take("c", 60_000); // a is full again, b is half full
  assertEquals(limiter.size, 2);
  for (let i = 0; i < 20; i++) assert(limiter.take("b", 60_000));
  assert(!limiter.take("b", 60_000));
});

/** The slow, obvious twin. */
class PlainLimiter {
  readonly #tokens = new Map<string, { tokens: number; at: number }>();
  constructor(readonly maxBuckets: number) {}
  take(bucket: string, now: number): boolean {
    for (const entry of this.#tokens.values()) {
      entry.tokens = Math.min(40, entry.tokens + (now - entry.at) / 3000);
      entry.at = now;
    }
    let entry = this.#tokens.get(bucket);
    if (entry === undefined) {
      for (const [name, other] of this.#tokens) if (other.tokens >= 40) this.#tokens.delete(name);
      if (this.#tokens.size === this.maxBuckets) {
        const fullest = [...this.#tokens].reduce((a, b) => b[1].tokens > a[1].tokens ? b : a);
        this.#tokens.delete(fullest[0]);
      }
      entry = { tokens: 40, at: now };
      this.#tokens.set(bucket, entry);
    }
    if (entry.tokens < 1) return false;
    entry.tokens--;
    return true;
  }
}

Deno.test("MemoryRateLimiter: as a plain table of tokens", () => {
  const step = fc.record({
    bucket: fc.constantFrom("a", "b", "c"),
    wait: fc.constantFrom(0, 0, 0, 3000, 6000, 90_000),
  });
  fc.assert(fc.property(fc.array(step, { minLength: 100, maxLength: 300 }), (steps) => {
    const limiter = new MemoryRateLimiter({ maxBuckets: 3 });
    const plain = new PlainLimiter(3);
    let now = 1_000_000;
    for (const { bucket, wait } of steps) {
      now += wait;
      assertEquals(limiter.take(bucket, now), plain.take(bucket, now));
    }
  }));
});

Deno.test("MemoryRateLimiter: the heap's order holds, so that what is forgotten is the fullest", () => {
  fc.assert(fc.property(fc.array(fc.nat(30), { minLength: 50, maxLength: 400 }), (buckets) => {
    const limiter = new MemoryRateLimiter({ maxBuckets: 8 });
    const taken = new Map<string, number>();
    for (const number of buckets) {
      const bucket = String(number);
      if (!taken.has(bucket) && taken.size === 8) {
        const least = Math.min(...taken.values());
        const before = limiter.size;
        assert(limiter.take(bucket, 0));
        assertEquals(limiter.size, before);
        // Which of several equally full ones goes is not said: see which it was by what is left.
        const candidates = [...taken].filter(([, count]) => count === least);
        if (candidates.length > 1) return;
        taken.delete(candidates[0]![0]);
        taken.set(bucket, 1);
        continue;
      }
      const count = taken.get(bucket) ?? 0;
      assertEquals(limiter.take(bucket, 0), count < 40);
      if (count < 40) taken.set(bucket, count + 1);
    }
    for (const [bucket, count] of taken) {
      for (let i = count; i < 40; i++) assert(limiter.take(bucket, 0));
      assert(!limiter.take(bucket, 0));
    }
  }));
});

Deno.test("e-17: memory stays flat whatever the number of addresses", async () => {
  const addresses = isLong() ? 1_000_000 : 62_500;
  const maxBuckets = isLong() ? 65_536 : 4_096;
  const limiter = new MemoryRateLimiter({ maxBuckets });
  let half = 0;
  for (let i = 0; i < addresses; i++) {
    const address = i % 2 === 0
      ? `${1 + (i >> 16) % 200}.${(i >> 8) & 255}.${i & 255}.1`
      : `2001:${(i >> 16).toString(16)}:${(i & 0xffff).toString(16)}::1`;
    const bucket = rateBucketOf(address);
    assert(bucket !== "unknown", address);
    assert(limiter.take(bucket, i >> 10));
    if (i === addresses >> 1) half = await usedHeap();
  }
  assertEquals(limiter.size, maxBuckets);
  const grown = await usedHeap() - half;
  assert(grown < 4 * 2 ** 20, `the heap grew by ${grown} bytes in the second half`);
});

Deno.test("MemoryRateLimiter: a clock that gives no number once gives no tokens then or later", () => {
  for (const none of [NaN, Infinity]) {
    const limiter = new MemoryRateLimiter({ burst: 1 });
    assert(limiter.take("a", 10_000));
    assertEquals([none, 10_000, 12_999, 13_000, 13_000].map((now) => limiter.take("a", now)), [
      false,
      false,
      false,
      true,
      false,
    ]);
  }
});

Deno.test("MemoryRateLimiter: a clock that was ahead and is set back gives no tokens and locks nobody out", () => {
  const limiter = new MemoryRateLimiter({ burst: 2 });
  const hour = 3_600_000;
  for (const bucket of ["a", "b", "b"]) assert(limiter.take(bucket, 10 * hour));
  assertEquals([1, 2, 3].map(() => limiter.take("c", hour)), [true, true, false]);
  for (const bucket of ["a", "b"]) {
    assertEquals([0, 2_999, 3_000, 3_000].map((ms) => limiter.take(bucket, hour + ms)), [
      false,
      false,
      true,
      false,
    ]);
  }
});

Deno.test("MemoryRateLimiter refuses options that are no limits", () => {
  for (
    const options of [{ perMinute: 0 }, { perMinute: NaN }, { burst: 0 }, { burst: 1.5 }, { maxBuckets: 0 }]
  ) {
    assertThrows(() => new MemoryRateLimiter(options), RangeError);
  }
});

Deno.test("MemoryRateLimiter: a rate so small that times cannot express it is refused, not without a limit", () => {
  for (const perMinute of [Number.MIN_VALUE, 1e-307, 1e-303]) {
    assertThrows(() => new MemoryRateLimiter({ perMinute }), RangeError);
  }
  const limiter = new MemoryRateLimiter({ perMinute: 1e-300, burst: 2 });
  assertEquals([1, 2, 3].map(() => limiter.take("4:c00002", 1_766_000_000_123)), [true, true, false]);
});
