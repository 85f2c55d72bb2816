import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import v8 from "node:v8";
import { IdMap } from "./_id_map.ts";

Deno.test("an IdMap holds what a Map would hold, whatever is set and deleted", () => {
  const key = fc.oneof(fc.nat(40), fc.nat(2 ** 31), fc.maxSafeNat());
  const step = fc.record({ key, put: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const map = new IdMap<{ key: number }>();
      const model = new Map<number, { key: number }>();
      for (const { key, put } of steps) {
        if (put) {
          const value = { key };
          map.set(key, value);
          model.set(key, value);
        } else {
          assertEquals(map.delete(key), model.delete(key));
        }
        assertEquals(map.size, model.size);
        for (const { key } of steps) assert(map.get(key) === model.get(key));
      }
      assertEquals(
        map.values().sort((a, b) => a.key - b.key),
        [...model.values()].sort((a, b) => a.key - b.key),
      );
    }),
    { numRuns: 60 },
  );
});

Deno.test("an IdMap that was large gives its room back, and loses nothing on the way", () => {
  const map = new IdMap<{ key: number }>();
  for (let key = 1; key < 20_000; key += 2) map.set(key, { key });
  for (let key = 1; key < 20_000; key += 2) {
    assertEquals(map.get(key)?.key, key);
    if (key % 101 !== 0) assert(map.delete(key));
  }
  assertEquals(map.size, 99);
  assertEquals(
    map.values().map(({ key }) => key).sort((a, b) => a - b),
    [...Array(99).keys()].map((i) => 101 * (2 * i + 1)),
  );
});

/** Bytes in use where objects go that outlived the young generation. */
function oldBytes(): number {
  return v8.getHeapSpaceStatistics().find(({ space_name }) => space_name === "old_space")!.space_used_size;
}

Deno.test("what came and went dies young, however old the IdMap is", () => {
  const map = new IdMap<object>();
  const churn = (from: number, count: number) => {
    let most = 0;
    for (let id = from; id < from + count; id++) {
      map.set(id, { payload: new Array(1000).fill(id) }); // 8 KB
      map.delete(id - 16);
      if (id % 256 === 0) most = Math.max(most, oldBytes());
    }
    return most;
  };
  churn(0, 1000);
  for (let i = 0; i < 10_000; i++) v8.getHeapSpaceStatistics(); // quiet hours: the table grows old
  const before = oldBytes();
  const grown = churn(1000, 10_000) - before;
  assert(grown < 4 * 2 ** 20, `${grown} bytes of 80 MB outlived their time`);
});
