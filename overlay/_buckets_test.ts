import { assert, assertEquals, assertThrows } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { Buckets, checkRate, Memory } from "./_buckets.ts";

Deno.test("Buckets are bounded, and make room by dropping the fullest", () => {
  const buckets = new Buckets({ burst: 10, perSecond: 0 }, 16);
  // Key k takes k tokens: key 15 holds back most.
  for (let key = 0; key < 16; key++) {
    for (let i = 0; i < Math.min(key, 10); i++) assert(buckets.take(`${key}`, 0));
    if (key === 0) buckets.delay("0", 0);
  }
  assertEquals(buckets.size, 16);
  for (let key = 0; key < 10_000; key++) {
    buckets.take(`new ${key}`, 0);
    assert(buckets.size <= 16);
  }
  for (let key = 10; key < 16; key++) {
    assertEquals(buckets.take(`${key}`, 0), false, "an empty bucket is kept");
  }
});

Deno.test("a bucket fills with time, which does not go back", () => {
  const buckets = new Buckets({ burst: 2, perSecond: 2 }, 4);
  assertEquals([0, 0, 0].map((now) => buckets.take("a", now)), [true, true, false]);
  assertEquals(buckets.delay("a", 0), 500);
  assertEquals([499, 500, 500].map((now) => buckets.take("a", now)), [false, true, false]);
  assertEquals([0, 1_000, 10, 100_000, 100_000, 100_000].map((now) => buckets.take("a", now)), [
    false,
    true,
    false,
    true,
    true,
    false,
  ]);
});

Deno.test("a bucket follows a clock that was ahead and is set back, and gains nothing by it", () => {
  const buckets = new Buckets({ burst: 2, perSecond: 1 }, 2);
  assertEquals([4e12, 4e12, 4e12].map((now) => buckets.take("a", now)), [true, true, false]);
  const back = 1.8e12;
  assertEquals(
    [back, back + 999, back + 1_000, back + 1_500, back + 2_000].map((now) => buckets.take("a", now)),
    [
      false,
      false,
      true,
      false,
      true,
    ],
  );
  assertEquals(buckets.delay("a", back + 2_000), 1_000);
});

Deno.test("a clock that gives no time opens nothing", () => {
  for (const now of [NaN, Infinity, -Infinity]) {
    assertThrows(() => new Buckets({ burst: 1, perSecond: 1 }, 1).take("a", now), HtxError);
    assertThrows(() => new Memory(1, 1).add("a", now), HtxError);
  }
});

Deno.test("rates and limits that are none are refused", () => {
  for (
    const rate of [{ burst: 0, perSecond: 1 }, { burst: 1, perSecond: -1 }, { burst: NaN, perSecond: 1 }]
  ) {
    assertThrows(() => checkRate(rate, "rate"), RangeError);
  }
  assertThrows(() => new Buckets({ burst: 1, perSecond: 1 }, 0), RangeError);
  assertThrows(() => new Memory(1, 0), RangeError);
});

Deno.test("Memory forgets in time, never for room", () => {
  const memory = new Memory(100, 2);
  const rows: [string, number, string][] = [
    ["a", 0, "fresh"],
    ["a", 99, "seen"],
    ["b", 99, "fresh"],
    ["c", 99, "full"],
    ["b", 50, "seen"],
    ["c", 100, "fresh"],
    ["b", 198, "seen"],
    ["b", 199, "fresh"],
  ];
  for (const [key, now, answer] of rows) assertEquals(memory.add(key, now), answer, `${key} at ${now}`);
  assertEquals(memory.size, 2);
});
