/**
 * How a connection moves bytes: by direct reads and writes, or through web streams and the frame codec's
 * TransformStreams. Buffers are lent from pools, so that a connection that sleeps holds next to nothing.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";
import type { ByteIo, Duplex } from "./duplex.ts";
import { HtxError } from "./errors.ts";
import { type Frame, FrameDecoderStream, FrameEncoderStream } from "./frame.ts";
import { type HtxSession, MAX_FILL_LENGTH } from "./session.ts";

/** Bytes of a batch that is sent from a small buffer. */
export const SMALL_BATCH = 8192;
/** Bytes of the receive buffer of a quiet connection, and of a busy one. */
const QUIET_RECEIVE = 4096;
const BUSY_RECEIVE = 262_144;
/** Short reads in a row after which a busy connection counts as quiet. */
const QUIET_AFTER = 8;
/** Bytes of unused buffers kept, of each size, for the next connection that needs one. */
const POOL_BYTES = 2 ** 20;

/** Buffers of one size, lent out. They only ever hold ciphertext. */
export class BufferPool {
  readonly #size: number;
  readonly #free: Bytes[] = [];

  /** `size` in bytes. */
  constructor(size: number) {
    this.#size = size;
  }

  /** One, fresh or used before: its content means nothing. */
  take(): Bytes {
    return this.#free.pop() ?? new Uint8Array(this.#size);
  }

  /** Gives one back; one of another size is left to the garbage collector. */
  give(buffer: Bytes): void {
    if (buffer.length === this.#size && this.#free.length * this.#size < POOL_BYTES) this.#free.push(buffer);
  }
}

const quietReceivePool = /* @__PURE__ */ new BufferPool(QUIET_RECEIVE);
const busyReceivePool = /* @__PURE__ */ new BufferPool(BUSY_RECEIVE);
/** Send buffers, by size. */
export const smallSendPool: BufferPool = /* @__PURE__ */ new BufferPool(SMALL_BATCH);
/** Send buffers, by size. */
export const largeSendPool: BufferPool = /* @__PURE__ */ new BufferPool(MAX_FILL_LENGTH);

/** How a connection moves bytes. */
export interface Carrier {
  /** Reads once and feeds the session; `false` at the end of the peer's direction. */
  receive(): Promise<boolean>;
  /** Sends; the bytes may be reused when it settles. */
  write(batch: Uint8Array): Promise<void>;
  closeWrite(): Promise<void>;
  close(): void;
}

/** Direct reads into the session's buffer: no copy and no hop between the socket and the cipher. */
export class DirectCarrier implements Carrier {
  readonly #io: ByteIo;
  readonly #session: HtxSession;
  #busy = false;
  #shortReads = 0;

  constructor(io: ByteIo, session: HtxSession) {
    this.#io = io;
    this.#session = session;
    session.receiveBuffer.resize(quietReceivePool.take());
  }

  async receive(): Promise<boolean> {
    const space = this.#session.receiveSpace();
    const length = await this.#io.read(space);
    if (length === null) return false;
    this.#session.received(length);
    this.#fit(length === space.length, length);
    return true;
  }

  /** A full read is the sign of more to come; a run of short ones, of quiet. */
  #fit(full: boolean, length: number): void {
    if (full) {
      this.#shortReads = 0;
      if (!this.#busy) this.#exchange(busyReceivePool.take(), true);
    } else if (length > QUIET_RECEIVE || this.#session.receiveBuffer.pending > 0) {
      this.#shortReads = 0;
    } else if (this.#session.receiveBuffer.capacity > QUIET_RECEIVE && ++this.#shortReads > QUIET_AFTER) {
      this.#shortReads = 0;
      this.#exchange(quietReceivePool.take(), false);
    }
  }

  #exchange(buffer: Bytes, busy: boolean): void {
    const old = this.#session.receiveBuffer.resize(buffer);
    (this.#busy ? busyReceivePool : quietReceivePool).give(old);
    this.#busy = busy;
  }

  write(batch: Uint8Array): Promise<void> {
    return this.#io.write(batch);
  }

  closeWrite(): Promise<void> {
    return this.#io.closeWrite();
  }

  close(): void {
    this.#io.close();
  }

  /** No read is under way and none will be: the buffer goes back. */
  ended(): void {
    this.#session.receiveBuffer.discard();
    this.#exchange(new Uint8Array(0), false);
  }
}

/** Web streams, through the frame codec's TransformStreams. */
export class StreamCarrier implements Carrier {
  readonly #duplex: Duplex;
  readonly #session: HtxSession;
  readonly #source: ReadableStream<Uint8Array>;
  readonly #decoder: FrameDecoderStream = new FrameDecoderStream();
  readonly #frames: ReadableStreamDefaultReader<Frame[]>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #decoding: Promise<void>;
  readonly #encoding: Promise<void>;
  /** What comes behind bytes that are no frames: read, so that the peer can read our CLOSE, and thrown away. */
  #rest: ReadableStreamDefaultReader<Uint8Array> | undefined;

  constructor(duplex: Duplex, session: HtxSession, received: Uint8Array) {
    this.#duplex = duplex;
    this.#session = session;
    this.#source = startWith(received, duplex.readable);
    // A length too large errors the decoder, not the duplex: the CLOSE that answers it has yet to go out.
    this.#decoding = this.#source.pipeTo(this.#decoder.writable, { preventCancel: true });
    this.#decoding.catch(() => {}); // told by the reader
    this.#frames = this.#decoder.readable.getReader();
    this.#frames.closed.catch(() => {});
    const encoder = new FrameEncoderStream();
    this.#encoding = encoder.readable.pipeTo(duplex.writable);
    this.#encoding.catch(() => {}); // told by the writer
    this.#writer = encoder.writable.getWriter();
    this.#writer.closed.catch(() => {});
  }

  async receive(): Promise<boolean> {
    if (this.#rest !== undefined) return !(await this.#rest.read()).done;
    try {
      const { value, done } = await this.#frames.read();
      if (done) return false;
      this.#session.receiveFrames(value, this.#decoder.pending);
      return true;
    } catch (error) {
      if (!(error instanceof HtxError)) throw error;
      if (error.code === "TRUNCATED") return false; // the end came inside a frame: an end all the same
      if (error.code !== "FRAME_TOO_LARGE") throw error;
      this.#session.fail(error);
      await this.#decoding.catch(() => {}); // it failed with the same error, and lets go of the source
      this.#rest = this.#source.getReader();
      this.#rest.closed.catch(() => {});
      return true;
    }
  }

  async write(batch: Uint8Array): Promise<void> {
    await this.#writer.write(batch.slice());
  }

  async closeWrite(): Promise<void> {
    await this.#writer.close();
    await this.#encoding;
  }

  close(): void {
    // Any of these may have ended before, which is as good.
    this.#writer.abort().catch(() => {});
    if (this.#rest !== undefined) this.#rest.cancel().catch(() => {});
    else {
      this.#frames.cancel().catch(() => {});
      this.#decoding.catch(() => {}).then(() => this.#source.cancel()).catch(() => {});
    }
    this.#duplex.close?.();
  }
}

function startWith(first: Uint8Array, rest: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  if (first.length === 0) return rest;
  const reader = rest.getReader();
  return new ReadableStream({
    start: (controller) => controller.enqueue(first),
    pull: async (controller) => {
      const { value, done } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}
