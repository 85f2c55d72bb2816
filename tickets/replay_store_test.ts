import { assert, assertEquals, assertThrows } from "@std/assert";
import { HOUR, VECTOR } from "./_testing.ts";
import { MemoryReplayStore } from "./replay_store.ts";
import { replayStoreContract } from "./testing.ts";

for (const { name, run } of replayStoreContract(() => new MemoryReplayStore())) {
  Deno.test(`e-09: MemoryReplayStore: ${name}`, run);
}

const claim = (id: string, hour: number, now: number) => ({ id, hour, now });

Deno.test("e-10: MemoryReplayStore: a full store forgets only what cannot verify any more", () => {
  const store = new MemoryReplayStore({ capacity: 3 });
  const hour = VECTOR.hour;
  const now = hour * HOUR;
  for (const id of ["a", "b", "c"]) assertEquals(store.checkAndRecord(claim(id, hour, now)), "fresh");
  assertEquals(store.checkAndRecord(claim("d", hour, now)), "full");
  assertEquals(store.checkAndRecord(claim("a", hour, now)), "replayed");
  for (let later = now; later < (hour + 4) * HOUR; later += HOUR / 4) {
    assertEquals(store.checkAndRecord(claim("d", hour + 1, later)), "full");
    assertEquals(store.checkAndRecord(claim("a", hour, later)), "replayed");
  }
  const late = (hour + 4) * HOUR;
  assertEquals(store.checkAndRecord(claim("d", hour + 4, late)), "fresh");
  assertEquals(store.size, 1);
  assertEquals(store.checkAndRecord(claim("a", hour, now)), "stale");
});

Deno.test("MemoryReplayStore: a year of hours leaves a few of them", () => {
  const store = new MemoryReplayStore();
  let most = 0;
  for (let hour = VECTOR.hour; hour < VECTOR.hour + 8766; hour++) {
    for (let i = 0; i < 3; i++) store.checkAndRecord(claim(`${i}`, hour + i - 1, hour * HOUR));
    most = Math.max(most, store.size);
  }
  assert(most <= 3 * 5, `${most}`);
});

Deno.test("MemoryReplayStore: a clock that gives no number once brings nothing back and keeps nothing for ever", () => {
  const store = new MemoryReplayStore();
  const { hour, now } = VECTOR;
  assertEquals(store.checkAndRecord(claim("a", hour, now)), "fresh");
  assertEquals(store.checkAndRecord(claim("a", hour, NaN)), "replayed");
  assertEquals(store.checkAndRecord(claim("a", hour, Infinity)), "replayed");
  assertEquals(store.checkAndRecord(claim("b", hour + 5, now + 5 * HOUR)), "fresh");
  assertEquals(store.size, 1);
});

Deno.test("MemoryReplayStore refuses a capacity that is none", () => {
  for (const capacity of [0, -1, 1.5, NaN, Infinity]) {
    assertThrows(() => new MemoryReplayStore({ capacity }), RangeError);
  }
});

Deno.test("the contract finds a store that forgets, one that checks before it records, and one that never refuses", async () => {
  const broken = [
    () => ({ checkAndRecord: () => "fresh" as const }),
    () => {
      const spent = new Set<string>();
      return {
        checkAndRecord: async ({ id, hour }: { id: string; hour: number }) => {
          const known = spent.has(`${id} ${hour}`);
          await Promise.resolve();
          spent.add(`${id} ${hour}`);
          return known ? "replayed" as const : "fresh" as const;
        },
      };
    },
    () => {
      let last = "";
      return {
        checkAndRecord: ({ id }: { id: string }) => {
          if (id === last) return "replayed" as const;
          last = id;
          return "fresh" as const;
        },
      };
    },
  ];
  for (const open of broken) {
    const failed: string[] = [];
    for (const { name, run } of replayStoreContract(open)) await run().catch(() => failed.push(name));
    assert(failed.length > 0);
  }
});
