/**
 * What every carrier has to do, as cases that any test runner can run: HTX over a pair of duplexes, from the first
 * echo to a session cut off in the middle.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  type Bytes,
  type ConnectionOptions,
  type Duplex,
  type HtxConnection,
  HtxError,
  type HtxStream,
} from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { connectDuplex } from "./client.ts";
import { acceptDuplex } from "./server.ts";

/** A carrier to try. */
export interface ConformanceCarrier {
  /** Its name. */
  readonly name: string;
  /** Opens both ends of a fresh duplex; `close` is called when both have ended. */
  open(): Promise<{ client: Duplex; server: Duplex; close?: () => void | Promise<void> }>;
}

/** A case: what holds, and a function that rejects where it does not. */
export interface ConformanceCase {
  /** What holds. */
  readonly name: string;
  /** Rejects when it does not hold. */
  readonly run: () => Promise<void>;
}

/** Options of {@linkcode conformance}. */
export interface ConformanceOptions {
  /** Bytes of the large transfer in each direction. @default {104857600} */
  bytes?: number | undefined;
  /** Streams at once. @default {256} */
  streams?: number | undefined;
  /** Latency that is added to each direction, in ms. @default {50} */
  latencyMs?: number | undefined;
  /** Options of both connections. */
  connection?: ConnectionOptions | undefined;
}

const DEFAULT_BYTES: number = 100 * 1024 ** 2;
const CHUNK = 65_536;

/**
 * The cases for one carrier.
 *
 * @example With a test runner
 * ```ts
 * import { conformance, memoryDuplexPair } from "@betanet/htx/transport";
 *
 * const carrier = {
 *   name: "memory",
 *   open: () => {
 *     const [client, server] = memoryDuplexPair();
 *     return Promise.resolve({ client, server });
 *   },
 * };
 * for (const { run } of conformance(carrier, { bytes: 2 ** 20, latencyMs: 5 })) await run(); // or Deno.test(name, run)
 * ```
 */
export function conformance(
  carrier: ConformanceCarrier,
  options: ConformanceOptions = {},
): ConformanceCase[] {
  const { bytes = DEFAULT_BYTES, streams: count = 256, latencyMs = 50, connection } = options;
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    body: (client: HtxConnection, server: HtxConnection) => Promise<void>,
    more: CaseOptions = {},
  ) => {
    cases.push({
      name: `${carrier.name}: ${name}`,
      run: () => runCase(carrier, body, { connection, ...more }),
    });
  };

  add("opens with the hybrid handshake and closes well on both sides", async (client, server) => {
    check(client.handshake.hybrid && server.handshake.hybrid, "the handshake is not hybrid");
    check(equal(client.handshake.hash, server.handshake.hash), "the handshake hashes differ");
    check(await client.ping() >= 0 && await server.ping() >= 0, "a ping took negative time");
    await client.close();
    const [mine, theirs] = await Promise.all([client.closed, server.closed]);
    check(mine.code === "NO_ERROR" && !mine.remote, "the client's end is not its own");
    check(theirs.code === "NO_ERROR" && theirs.remote, "the server's end is not the client's");
  });

  add("echoes on streams of both sides", async (client, server) => {
    const echoing = [echoAll(server, 2), echoAll(client, 2)];
    for (const side of [client, server]) {
      for (let i = 0; i < 2; i++) {
        const stream = await side.createBidirectionalStream();
        await stream.write(pattern(0, 1000 + i), { end: true });
        await expect(stream, 1000 + i);
      }
    }
    await Promise.all(echoing);
  });

  add(`carries ${bytes} bytes in both directions at once`, async (client, server) => {
    const there = await client.createBidirectionalStream();
    const sending = send(there, bytes);
    const here = await next(server);
    await Promise.all([sending, expect(here, bytes), send(here, bytes), expect(there, bytes)]);
    await Promise.all([there.closed, here.closed]);
  });

  add(`keeps ${count} streams apart`, async (client, server) => {
    const serving = (async () => {
      const tasks: Promise<void>[] = [];
      for await (const stream of server.incomingBidirectionalStreams) {
        tasks.push(echo(stream));
        if (tasks.length === count) break;
      }
      await Promise.all(tasks);
    })();
    await Promise.all(Array.from({ length: count }, async (_, i) => {
      const stream = await client.createBidirectionalStream();
      const length = 1 + (i * 997) % 20_000;
      const sending = send(stream, length, i);
      await Promise.all([sending, expect(stream, length, i)]);
    }));
    await serving;
    check(client.stats.streams === 0, "streams are left open");
  });

  add("ends one direction of a stream and goes on in the other", async (client, server) => {
    const mine = await client.createBidirectionalStream();
    await mine.write(pattern(0, 10), { end: true });
    const theirs = await next(server);
    await expect(theirs, 10); // the end has come, the way back is open
    await Promise.all([send(theirs, 100_000), expect(mine, 100_000)]);
    await Promise.all([mine.closed, theirs.closed]);
  });

  add("resets a stream for both sides and leaves the others alone", async (client, server) => {
    const doomed = await client.createBidirectionalStream();
    await doomed.write(pattern(0, 10));
    const theirs = await next(server);
    doomed.reset("CANCELLED", "enough");
    const errors = await Promise.all([failure(doomed.closed), failure(theirs.closed)]);
    for (const error of errors) check(error.code === "CANCELLED", `the code is ${error.code}`);
    check(errors[1]!.remote, "the reset does not count as the peer's");
    const other = await client.createBidirectionalStream();
    await other.write(pattern(0, 10), { end: true });
    await expect(await next(server), 10);
    other.reset();
  });

  add("makes a sender wait for a reader, and loses nothing by it", async (client, server) => {
    const length = 4 * 1024 ** 2;
    const mine = await client.createBidirectionalStream();
    let sent = 0;
    const sending = (async () => {
      for (let at = 0; at < length; at += CHUNK) {
        await mine.write(pattern(at, CHUNK));
        sent += CHUNK;
      }
      await mine.closeWrite();
    })();
    const theirs = await next(server);
    // Pings queue behind the data: after a few of them whatever could be sent was sent.
    for (let i = 0; i < 8; i++) await client.ping();
    check(sent < length / 2, `${sent} bytes were taken although nobody reads`);
    check(theirs.receivedBytes <= 65_535, `${theirs.receivedBytes} bytes wait, past the window`);
    await Promise.all([sending, expect(theirs, length)]);
    theirs.reset();
  });

  add("changes its keys under load", async (client, server) => {
    const length = 4 * 1024 ** 2;
    const there = await client.createBidirectionalStream();
    const sending = send(there, length);
    const here = await next(server);
    await Promise.all([sending, expect(here, length), send(here, length), expect(there, length)]);
    for (const side of [client, server]) {
      check(side.stats.rekeysSent > 1 && side.stats.rekeysReceived > 1, "the keys were not changed");
    }
  }, { connection: { ...connection, rekey: { afterFrames: 16 } } });

  add("tells a session that was cut off from one that ended", async (client, server) => {
    const mine = await client.createBidirectionalStream();
    await mine.write(pattern(0, 10));
    const theirs = await next(server);
    check((await theirs.read())?.length === 10, "the data did not arrive");
    const reading = failure(theirs.read());
    client.abort();
    const errors = [await reading, await failure(server.closed), await failure(theirs.closed)];
    for (const error of errors) check(error.code === "TRUNCATED", `the code is ${error.code}`);
    check((await failure(client.closed)).code === "CLOSED", "the side that aborted knows no reason");
  });

  add(`fills a window that is ${2 * latencyMs} ms away`, async (client, server) => {
    const length = 1024 ** 2;
    const roundTrip = await client.ping();
    check(roundTrip >= 2 * latencyMs * 0.9, `the round trip is ${roundTrip} ms`);
    const there = await client.createBidirectionalStream();
    const since = performance.now();
    const sending = send(there, length);
    const here = await next(server);
    await Promise.all([sending, expect(here, length)]);
    // At a window of 65 535 bytes it would take 16 round trips: the window has to grow.
    const roundTrips = (performance.now() - since) / roundTrip;
    check(roundTrips < 14, `1 MiB took ${roundTrips.toFixed(1)} round trips`);
    here.reset();
  }, { latencyMs });

  return cases;
}

interface CaseOptions {
  connection?: ConnectionOptions | undefined;
  latencyMs?: number;
}

async function runCase(
  carrier: ConformanceCarrier,
  body: (client: HtxConnection, server: HtxConnection) => Promise<void>,
  options: CaseOptions,
): Promise<void> {
  const ends = await carrier.open();
  const { latencyMs = 0 } = options;
  const keyPair = KeyPair.generate();
  const [client, server] = await Promise.all([
    connectDuplex(latencyMs > 0 ? delayed(ends.client, latencyMs) : ends.client, {
      ...options.connection,
      remoteStatic: keyPair.publicKey,
    }),
    acceptDuplex(latencyMs > 0 ? delayed(ends.server, latencyMs) : ends.server, {
      ...options.connection,
      keyPair,
    }),
  ]);
  try {
    await body(client, server);
  } finally {
    await Promise.all([client.close(), server.close()]);
    await ends.close?.();
  }
}

/** A duplex whose writes arrive later, in their order; what is under way is bounded by the session's windows. */
function delayed(duplex: Duplex, latencyMs: number): Duplex {
  const writer = duplex.writable.getWriter();
  let last: Promise<void> = Promise.resolve();
  const timers = new Map<ReturnType<typeof setTimeout>, () => void>();
  const later = (): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(() => {
        timers.delete(timer);
        resolve();
      }, latencyMs);
      timers.set(timer, resolve);
    });
  const queue = (task: () => Promise<void>): Promise<void> => {
    const due = later();
    last = last.then(() => due).then(task);
    last.catch(() => {}); // shows at the writer
    return last;
  };
  return {
    covert: duplex.covert ?? false,
    readable: duplex.readable,
    writable: new WritableStream<Uint8Array>({
      write: (chunk) => {
        const bytes = chunk.slice();
        queue(() => writer.write(bytes));
      },
      close: () => queue(() => writer.close()),
      abort: () => {
        writer.abort().catch(() => {});
      },
    }),
    close: () => {
      for (const [timer, resolve] of timers) {
        clearTimeout(timer);
        resolve();
      }
      timers.clear();
      duplex.close?.();
    },
    limitReceive: (credit) => duplex.limitReceive?.(credit),
  };
}

/** Bytes that tell where they stand in their stream, and in which one. */
function pattern(at: number, length: number, seed = 0): Bytes {
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) out[i] = ((at + i) * 31 + ((at + i) >>> 8) + seed) & 0xff;
  return out;
}

async function send(stream: HtxStream, length: number, seed = 0): Promise<void> {
  for (let at = 0; at < length; at += CHUNK) {
    const size = Math.min(CHUNK, length - at);
    await stream.write(pattern(at, size, seed), { end: at + size === length });
  }
}

/** Reads to the end and compares. */
async function expect(stream: HtxStream, length: number, seed = 0): Promise<void> {
  let at = 0;
  for (;;) {
    const chunk = await stream.read();
    if (chunk === null) break;
    check(equal(chunk, pattern(at, chunk.length, seed)), `bytes after ${at} are not those that were sent`);
    at += chunk.length;
  }
  check(at === length, `${at} bytes arrived of ${length}`);
}

async function echo(stream: HtxStream): Promise<void> {
  for (;;) {
    const chunk = await stream.read();
    if (chunk === null) return await stream.closeWrite();
    await stream.write(chunk);
  }
}

async function echoAll(connection: HtxConnection, count: number): Promise<void> {
  const streams = connection.incomingBidirectionalStreams.getReader();
  for (let i = 0; i < count; i++) {
    const { value } = await streams.read();
    check(value !== undefined, "no stream came");
    await echo(value);
  }
  streams.releaseLock();
}

async function next(connection: HtxConnection): Promise<HtxStream> {
  const streams = connection.incomingBidirectionalStreams.getReader();
  const { value } = await streams.read();
  streams.releaseLock();
  check(value !== undefined, "no stream came");
  return value;
}

async function failure(promise: Promise<unknown>): Promise<HtxError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof HtxError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function check(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new Error(otherwise);
}
