import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { usedHeap } from "../core/_test_heap.ts";
import { ByteQueue } from "./_byte_queue.ts";

Deno.test("ByteQueue gives what was pushed, in pieces of any size, whatever is taken in between", () => {
  const length = fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 4000, max: 9000 }));
  const steps = fc.array(fc.oneof(
    fc.record({ push: length, times: fc.constant(1), take: fc.constant(0) }),
    fc.record({ push: fc.constant(1), times: fc.integer({ min: 1, max: 9000 }), take: fc.constant(0) }),
    fc.record({ push: fc.constant(0), times: fc.constant(0), take: fc.integer({ min: 0, max: 20_000 }) }),
  ));
  fc.assert(fc.property(steps, (steps) => {
    const queue = new ByteQueue();
    let pushed = 0;
    let taken = 0;
    const take = (length: number) => {
      const into = new Uint8Array(length);
      const got = queue.take(into);
      assertEquals(got, Math.min(length, pushed - taken));
      for (const byte of into.subarray(0, got)) {
        if (byte !== taken++ % 251) throw new Error(`byte ${taken - 1}`);
      }
    };
    for (const { push, times, take: length } of steps) {
      for (let i = 0; i < times; i++) queue.push(Uint8Array.from({ length: push }, () => pushed++ % 251));
      take(length);
      assertEquals(queue.size, pushed - taken);
    }
    take(pushed);
    assertEquals([taken, queue.size], [pushed, 0]);
  }));
});

Deno.test("ByteQueue holds a million single bytes in little more memory, and gives them as fast", async () => {
  const queue = new ByteQueue();
  const into = new Uint8Array(100);
  const before = await usedHeap();
  for (let i = 0; i < 1_000_000; i++) queue.push(new Uint8Array([i & 255]));
  assert(await usedHeap() - before < 1_000_000); // it was hundreds of megabytes where each byte was a chunk,
  const since = performance.now();
  for (let at = 0; at < 1_000_000; at += 100) {
    if (queue.take(into) !== 100 || into[99] !== ((at + 99) & 255)) throw new Error(`at ${at}`);
  }
  assert(performance.now() - since < 2000); // and took minutes
  queue.push(new Uint8Array(3));
  queue.clear();
  assertEquals([queue.size, queue.take(into)], [0, 0]);
});
