import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { concat } from "./bytes.ts";
import { ReceiveQueue, SendQueue } from "./queues.ts";

/** Takes up to `length` bytes, as a copy. */
function take(queue: SendQueue, length: number): Uint8Array {
  const taken = queue.take(Math.min(length, queue.size), (size) => new Uint8Array(size));
  assert(taken !== undefined);
  return taken.slice();
}

Deno.test("a send queue gives back every byte in order, whatever is copied, referenced, owned and taken", () => {
  const step = fc.record({
    what: fc.constantFrom("copy", "reference", "take", "own"),
    size: fc.oneof(
      fc.nat(300),
      fc.nat(200_000),
      fc.constantFrom(2048, 16_384, 65_535, 65_536, 131_070, 131_071),
    ),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const queues = [new SendQueue(), new SendQueue()]; // two at once: blocks are lent out again meanwhile
      const expected: Uint8Array[][] = [[], []];
      const taken: Uint8Array[][] = [[], []];
      let next = 0;
      for (const [i, { what, size }] of steps.entries()) {
        const queue = queues[i % 2]!;
        if (what === "copy" || what === "reference") {
          const data = new Uint8Array(size).map(() => next++);
          expected[i % 2]!.push(data.slice());
          if (what === "reference") queue.append(data);
          else {
            queue.appendCopy(data);
            data.fill(0xee); // the caller's again
          }
        } else if (what === "take") {
          taken[i % 2]!.push(take(queue, size));
        } else {
          queue.own(size);
        }
      }
      for (const i of [0, 1]) {
        const queue = queues[i]!;
        while (queue.size > 0) taken[i]!.push(take(queue, 65_535));
        const [all, got] = [concat(...expected[i]!), concat(...taken[i]!)];
        assertEquals(got.length, all.length);
        assert(got.every((byte, at) => byte === all[at]));
      }
    }),
    { numRuns: 150 },
  );
});

Deno.test("own() frees what was held by reference, but not a chunk that is being cut", () => {
  const queue = new SendQueue();
  const data = new Uint8Array(50_000).fill(1);
  queue.append(data);
  assertEquals(queue.own(40_000), false);
  assertEquals(queue.own(50_000), true);
  data.fill(2);
  assert(take(queue, 50_000).every((byte) => byte === 1));
  queue.append(data);
  take(queue, 10_000);
  assertEquals(queue.own(100_000), false);
  take(queue, 30_000);
  assertEquals(queue.own(100_000), true);
});

Deno.test("a receive queue gives back every byte in order, by chunks and by copies of any size", () => {
  const step = fc.record({
    what: fc.constantFrom("push", "push", "shift", "copy"),
    size: fc.oneof(fc.nat(40), fc.nat(2000), fc.nat(70_000)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const queue = new ReceiveQueue();
      const pushed: Uint8Array[] = [];
      const read: Uint8Array[] = [];
      let next = 0;
      for (const { what, size } of steps) {
        if (what === "push") {
          const chunk = new Uint8Array(size + 1).map(() => next++);
          pushed.push(chunk.slice());
          queue.push(chunk);
        } else if (what === "shift") {
          const chunk = queue.shift();
          if (chunk !== undefined) read.push(chunk);
        } else {
          const into = new Uint8Array(size + 1);
          const waiting = queue.size;
          const length = queue.copyInto(into);
          assertEquals(length > 0, waiting > 0);
          assertEquals(queue.size, waiting - length);
          read.push(into.subarray(0, length));
        }
      }
      const rest = new Uint8Array(queue.size + 1);
      for (let length; (length = queue.copyInto(rest)) > 0;) read.push(rest.slice(0, length));
      assertEquals(concat(...read), concat(...pushed));
    }),
  );
});

Deno.test("tiny chunks that wait to be read cost little more than their bytes", () => {
  const queue = new ReceiveQueue();
  for (let i = 0; i < 60_000; i++) queue.push(new Uint8Array([i]));
  let chunks = 0;
  let at = 0;
  for (let chunk = queue.shift(); chunk !== undefined; chunk = queue.shift()) {
    chunks++;
    for (const byte of chunk) assertEquals(byte, at++ & 0xff);
  }
  assertEquals([at, queue.size], [60_000, 0]);
  assert(chunks < 30, `${chunks}`);
});

Deno.test("chunks that wait to be read hold no more memory than twice their bytes, whatever their order", () => {
  const queue = new ReceiveQueue();
  const all: Uint8Array[] = [];
  for (let i = 0; i < 2000; i++) {
    const chunk = new Uint8Array(i % 2 === 0 ? 1 : [1024, 1, 1023, 5000][(i >> 1) % 4]!).fill(i);
    all.push(chunk.slice());
    queue.push(chunk);
  }
  const total = queue.size;
  const memory = new Set<ArrayBuffer>();
  const got: Uint8Array[] = [];
  for (let chunk = queue.shift(); chunk !== undefined; chunk = queue.shift()) {
    memory.add(chunk.buffer);
    got.push(chunk);
  }
  let held = 0;
  for (const buffer of memory) held += buffer.byteLength;
  assert(held <= 2 * total + 16_384, `${held} for ${total}`);
  assertEquals(concat(...got), concat(...all));
});
