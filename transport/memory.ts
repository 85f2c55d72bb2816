/**
 * A duplex in memory: two ends, what one writes the other reads.
 *
 * @module
 */

import type { ByteIo, Duplex, DuplexAddr } from "../core/mod.ts";
import { HtxError } from "../core/mod.ts";
import { ByteQueue } from "./_byte_queue.ts";
import { ioDuplex } from "./duplex.ts";

/** Options of {@linkcode memoryDuplexPair}. */
export interface MemoryDuplexOptions {
  /** Bytes that one direction holds before a write waits. @default {262144} */
  highWaterMark?: number | undefined;
  /** Gives the ends no `io`, so that only their web streams can be used. @default {false} */
  streamsOnly?: boolean | undefined;
}

const DEFAULT_HIGH_WATER_MARK = 262_144;

/**
 * Two connected ends, for tests and for an application and its tunnel in one process. Each direction ends on its
 * own; closing an end breaks both.
 *
 * @example What one end writes, the other reads
 * ```ts
 * import { memoryDuplexPair } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const [here, there] = memoryDuplexPair();
 * const writer = here.writable.getWriter();
 * writer.write(new Uint8Array([1, 2, 3]));
 * writer.close();
 * assertEquals(await new Response(there.readable as ReadableStream<Uint8Array<ArrayBuffer>>).bytes(), new Uint8Array([1, 2, 3]));
 * ```
 */
export function memoryDuplexPair(options: MemoryDuplexOptions = {}): [Duplex, Duplex] {
  const { highWaterMark = DEFAULT_HIGH_WATER_MARK, streamsOnly = false } = options;
  const forth = new Pipe(highWaterMark);
  const back = new Pipe(highWaterMark);
  const address: DuplexAddr = { transport: "memory" };
  return [
    ioDuplex(new MemoryIo(back, forth), { localAddr: address, remoteAddr: address, streamsOnly }),
    ioDuplex(new MemoryIo(forth, back), { localAddr: address, remoteAddr: address, streamsOnly }),
  ];
}

/** One direction. */
class Pipe {
  readonly #highWaterMark: number;
  readonly #waiting: ByteQueue = new ByteQueue();
  #ended = false;
  #broken = false;
  #reader: (() => void) | undefined;
  #writer: (() => void) | undefined;

  constructor(highWaterMark: number) {
    this.#highWaterMark = highWaterMark;
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#waiting.size === 0) {
      if (this.#broken) throw new HtxError("CLOSED", "Cannot read: the duplex was closed");
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#reader = resolve);
    }
    const length = this.#waiting.take(into);
    this.#wake();
    return length;
  }

  async write(data: Uint8Array): Promise<void> {
    while (this.#waiting.size >= this.#highWaterMark && !this.#broken && !this.#ended) {
      await new Promise<void>((resolve) => this.#writer = resolve);
    }
    if (this.#broken || this.#ended) throw new HtxError("CLOSED", "Cannot write: the duplex was closed");
    if (data.length === 0) return;
    this.#waiting.push(data.slice());
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** `discard`: what was not read yet is lost, as behind a reset. */
  break(discard: boolean): void {
    this.#broken = true;
    if (discard) this.#waiting.clear();
    this.#wake();
  }

  #wake(): void {
    const [reader, writer] = [this.#reader, this.#writer];
    this.#reader = this.#writer = undefined;
    reader?.();
    writer?.();
  }
}

class MemoryIo implements ByteIo {
  readonly #in: Pipe;
  readonly #out: Pipe;
  #closed = false;

  constructor(incoming: Pipe, outgoing: Pipe) {
    this.#in = incoming;
    this.#out = outgoing;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.#in.read(into);
  }

  write(data: Uint8Array): Promise<void> {
    return this.#out.write(data);
  }

  closeWrite(): Promise<void> {
    this.#out.end();
    return Promise.resolve();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // As with a socket: what was written before still arrives, then the other end reads the end.
    this.#out.end();
    this.#in.break(true);
  }
}
