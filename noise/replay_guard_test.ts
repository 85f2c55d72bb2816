import { assert, assertEquals, assertFalse, assertThrows } from "@std/assert";
import { ReplayGuard } from "./replay_guard.ts";

function key(n: number): Uint8Array {
  const bytes = new Uint8Array(32).fill(0xfe);
  new DataView(bytes.buffer).setUint32(4, n);
  return bytes;
}

Deno.test("ReplayGuard takes each key once", () => {
  const guard = new ReplayGuard();
  for (let n = 0; n < 100; n++) assert(guard.remember(key(n)));
  for (let n = 0; n < 100; n++) assertFalse(guard.remember(key(n)));
  assertEquals(guard.size, 100);
});

Deno.test("ReplayGuard forgets the oldest first, and a repetition does not make a key younger", () => {
  const guard = new ReplayGuard({ capacity: 3 });
  for (const n of [1, 2, 3]) assert(guard.remember(key(n)));
  assertFalse(guard.remember(key(1)));
  assert(guard.remember(key(4))); // 1 goes
  assertFalse(guard.remember(key(2)));
  assert(guard.remember(key(1))); // 2 goes
  assertFalse(guard.remember(key(3)));
  assert(guard.remember(key(2)));
  assertEquals(guard.size, 3);
});

Deno.test("ReplayGuard remembers 65 536 keys by default, and no more however many come", () => {
  const guard = new ReplayGuard();
  for (let n = 0; n < 65_536; n++) guard.remember(key(n));
  assertFalse(guard.remember(key(0)));
  for (let n = 65_536; n < 100_000; n++) assert(guard.remember(key(n)));
  assertEquals(guard.size, 65_536);
  assertFalse(guard.remember(key(100_000 - 65_536)));
  assert(guard.remember(key(100_000 - 65_536 - 1)));
});

Deno.test("ReplayGuard refuses a capacity that is none", () => {
  for (const capacity of [0, -1, 1.5, NaN]) assertThrows(() => new ReplayGuard({ capacity }), RangeError);
});
