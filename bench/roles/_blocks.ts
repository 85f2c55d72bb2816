/**
 * The blocks that the block benchmarks move: reproducible, and no two alike.
 *
 * @module
 */

/** Bytes of a block. */
export const BLOCK = 262_144;
/** Blocks of a phase; one at a time it is a sixteenth of them. */
export const COUNT: number = Number(Deno.env.get("COUNT") ?? 256);

/** The block of a number. */
export function makeBlock(number: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(BLOCK / 4);
  let state = number * 2_654_435_761 + 1 >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

/** Fetches the blocks `first` and on, `depth` at a time; MB a second. */
export async function fetchBlocks(
  first: number,
  count: number,
  depth: number,
  get: (number: number) => Promise<number>,
): Promise<Record<string, number>> {
  let [next, bytes] = [first, 0];
  const start = performance.now();
  await Promise.all(Array.from({ length: depth }, async () => {
    while (next < first + count) {
      const got = await get(next++);
      bytes += got;
    }
  }));
  if (bytes !== count * BLOCK) throw new Error(`got ${bytes} bytes of ${count * BLOCK}`);
  return { MBps: bytes / (performance.now() - start) / 1000 };
}
