/**
 * What is in use of the heap and what is allocated on it, for tests.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import v8 from "node:v8";
import vm from "node:vm";
import { V8_OF_RECORD } from "./testdata/allocated.ts";

let collect: (() => void) | undefined;

/** Bytes of the heap that are in use, garbage left out. */
export async function usedHeap(): Promise<number> {
  if (collect === undefined) {
    v8.setFlagsFromString("--expose-gc");
    collect = vm.runInNewContext("gc") as () => void;
  }
  // Each from a fresh turn of the event loop: what the frames and jobs of this one hold is not garbage yet.
  for (let i = 0; i < 2; i++) {
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    collect();
  }
  return Deno.memoryUsage().heapUsed;
}

/** Asserts that what `script` prints, bytes by name, is within 10 % of the record, which was taken on `V8_OF_RECORD`. */
export async function assertAllocations(script: string, recorded: Record<string, number>): Promise<void> {
  if (!Deno.version.v8.startsWith(V8_OF_RECORD)) {
    console.warn(`skipped: allocations are recorded for V8 ${V8_OF_RECORD}, this is ${Deno.version.v8}`);
    return;
  }
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    // When the compiler is done decides what is allocated: on a thread of its own that would be another time each run.
    args: ["run", "--quiet", "--no-check", "--v8-flags=--single-threaded", script],
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const found: Record<string, number> = JSON.parse(new TextDecoder().decode(stdout));
  for (const [name, bytes] of Object.entries(recorded)) {
    const now = found[name] ?? NaN;
    assert(
      Math.abs(now - bytes) <= bytes / 10,
      `${name}: ${now} bytes, recorded are ${bytes}: where that is meant, change the record`,
    );
  }
}
