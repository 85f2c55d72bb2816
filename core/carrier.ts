/**
 * How a connection moves bytes: by direct reads and writes, or through web streams. Buffers are lent from pools, so
 * that a connection that sleeps holds next to nothing.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";
import type { ByteIo, Duplex } from "./duplex.ts";
import { FrameEncoderStream } from "./frame.ts";
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

/**
 * Web streams. Chunks go to the session as they are: behind a TransformStream a frame that cannot be decoded would end
 * the duplex before the CLOSE that says so is out, and take the good frames of its chunk with it.
 */
export class StreamCarrier implements Carrier {
  readonly #duplex: Duplex;
  readonly #session: HtxSession;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #piping: Promise<void>;
  #received: Uint8Array | undefined;

  constructor(duplex: Duplex, session: HtxSession, received: Uint8Array) {
    this.#duplex = duplex;
    this.#session = session;
    const encoder = new FrameEncoderStream();
    this.#received = received;
    this.#reader = duplex.readable.getReader();
    this.#piping = encoder.readable.pipeTo(duplex.writable);
    this.#piping.catch(() => {}); // told by the writer
    this.#writer = encoder.writable.getWriter();
    this.#writer.closed.catch(() => {});
    this.#reader.closed.catch(() => {});
  }

  async receive(): Promise<boolean> {
    const received = this.#received;
    this.#received = undefined;
    if (received !== undefined && received.length > 0) {
      this.#session.receive(received);
      return true;
    }
    const { value, done } = await this.#reader.read();
    if (done) return false;
    this.#session.receive(value);
    return true;
  }

  async write(batch: Uint8Array): Promise<void> {
    await this.#writer.write(batch.slice());
  }

  async closeWrite(): Promise<void> {
    await this.#writer.close();
    await this.#piping;
  }

  close(): void {
    this.#writer.abort().catch(() => {}); // either may have ended before, which is as good
    this.#reader.cancel().catch(() => {});
    this.#duplex.close?.();
  }
}
