/**
 * What is in use of the heap, for tests.
 *
 * @module
 */

import v8 from "node:v8";
import vm from "node:vm";

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
