/**
 * Prints what V8 allocates on its heap for a MiB, an echo and a request, after warm-up. A process of its own, so that
 * nothing else allocates.
 *
 * @module
 */

import { getHeapStatistics } from "node:v8";
import type { HtxStream } from "../mod.ts";
import { countedPair } from "./counted.ts";

/** Bytes for each. */
export interface Allocations {
  /** A MiB in writes of 64 KiB, both ends. */
  readonly perMebibyte: number;
  /** A message of 64 bytes and its echo, both ends. */
  readonly perEcho: number;
  /** The same on a stream of its own, both ends. */
  readonly perRequest: number;
}

/** The V8 on which the records were taken. */
export const V8_OF_RECORD = "15.0";

const ROUNDS = 7;

function allocated(): number {
  return (getHeapStatistics() as { total_allocated_bytes?: number }).total_allocated_bytes ?? NaN;
}

/** The median of a few rounds of `times` turns, of which the first ones warm up. */
export async function measure(times: number, once: () => Promise<void>): Promise<number> {
  for (let i = 0; i < times * 4; i++) await once();
  const found: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const before = allocated();
    for (let i = 0; i < times; i++) await once();
    found.push((allocated() - before) / times);
  }
  return Math.round(found.sort((a, b) => a - b)[ROUNDS >> 1]!);
}

async function serve(stream: HtxStream): Promise<void> {
  for (let chunk; (chunk = await stream.read()) !== null;) {
    if (chunk.length > 64) continue;
    await stream.write(chunk, { end: stream.receiveEnded && stream.receivedBytes === 0 });
    if (stream.receiveEnded && stream.receivedBytes === 0) return;
  }
  await stream.closeWrite();
}

async function main(): Promise<Allocations> {
  await using pair = countedPair(serve);
  const { client } = pair;
  const payload = new Uint8Array(65_536);
  const message = new Uint8Array(64);
  const perMebibyte = await measure(40, async () => {
    const stream = await client.createBidirectionalStream();
    for (let i = 1; i <= 16; i++) await stream.write(payload, { end: i === 16 });
    while (await stream.read() !== null);
  });
  const line = await client.createBidirectionalStream();
  const perEcho = await measure(2000, async () => {
    await line.write(message);
    await line.read();
  });
  await line.closeWrite();
  while (await line.read() !== null);
  const perRequest = await measure(1000, async () => {
    const stream = await client.createBidirectionalStream();
    await stream.write(message, { end: true });
    while (await stream.read() !== null);
  });
  return { perMebibyte, perEcho, perRequest };
}

if (import.meta.main) console.log(JSON.stringify(await main()));
