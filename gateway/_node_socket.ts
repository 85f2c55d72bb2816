/**
 * A socket of `node:net` or `node:tls` that has left `node:http`, as a stream for a WebSocket: it makes its client wait,
 * is made to wait by it, and can be cut off.
 *
 * @module
 */

import type { Socket } from "node:net";
import { holdReading } from "../core/_hold_reading.ts";
import { timerDelay } from "../core/_timer_delay.ts";
import { HtxError } from "../core/mod.ts";
import type { HttpStream } from "../transport/mod.ts";

/** Bytes that are read ahead of who takes them. */
const READ_AHEAD = 65_536;
/** Silence, in ms, after which the system asks whether the client is still there. One that was lost without a word is noticed. */
const KEEP_ALIVE_MS = 60_000;

/** Bounds of a {@linkcode NodeSocketStream}. */
export interface NodeSocketBounds {
  /** Milliseconds that a write may wait for a client that does not read; 0 for no bound. */
  readonly writeTimeoutMs: number;
  /** Bytes that are read, and dropped, behind the end. */
  readonly lingerBytes: number;
  /** Milliseconds that the client has to end its direction after the end of this one. */
  readonly lingerTimeoutMs: number;
}

/** The raw socket, read from at once: who leaves is noticed. */
export class NodeSocketStream implements HttpStream {
  readonly id = 0;
  readonly #socket: Socket;
  /** With TLS, the TCP socket below. */
  readonly #carrier: Socket | undefined;
  readonly #bounds: NodeSocketBounds;
  readonly #abort = new AbortController();
  readonly #chunks: Uint8Array[] = [];
  #waiting = 0;
  #held = false;
  #ended = false;
  /** Bytes that are still dropped; `undefined` while somebody reads. */
  #dropping: number | undefined;
  #wakeReader: (() => void) | undefined;
  /** What ends the waits of writes that are under way. */
  readonly #writes: Set<(error: unknown) => void> = new Set();
  /** When the first of them began to wait, or the last one was taken. */
  #takenAt = 0;
  #late: ReturnType<typeof setTimeout> | undefined;
  #linger: ReturnType<typeof setTimeout> | undefined;

  constructor(socket: Socket, carrier: Socket | undefined, head: Uint8Array, bounds: NodeSocketBounds) {
    this.#socket = socket;
    this.#carrier = carrier;
    this.#bounds = bounds;
    (carrier ?? socket).setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on("error", () => {}); // `close` follows
    socket.on("data", (chunk: Uint8Array) => this.#receive(chunk));
    socket.on("end", () => {
      this.#ended = true;
      this.#wakeReader?.();
      if (socket.writableEnded) socket.destroySoon(); // both directions
    });
    socket.on("close", () => this.#onClose());
    if (head.length > 0) this.#receive(head.slice());
    if (socket.destroyed) this.#onClose();
  }

  /** Aborts when the socket is gone. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Whether the client has ended its direction. */
  get ended(): boolean {
    return this.#ended;
  }

  tryRead(): Uint8Array | null | undefined {
    const chunk = this.#chunks.shift();
    if (chunk === undefined) return this.#ended ? null : undefined;
    this.#waiting -= chunk.length;
    if (this.#waiting < READ_AHEAD) this.#hold(false);
    return chunk;
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk = this.tryRead();
      if (chunk !== undefined) return chunk;
      this.signal.throwIfAborted();
      await new Promise<void>((resolve) => this.#wakeReader = resolve);
      this.#wakeReader = undefined;
    }
  }

  /** Resolves when the system has taken the bytes, with `end` when it has taken all there was. */
  write(data: Uint8Array, options: { end?: boolean } = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.signal.aborted) return reject(this.signal.reason);
      if (this.#writes.size === 0) this.#takenAt = performance.now();
      this.#writes.add(reject);
      const taken = (error?: Error | null) => {
        this.#writes.delete(reject);
        this.#takenAt = performance.now();
        if (error) reject(error);
        else resolve();
      };
      this.#limitWrites();
      if (options.end) this.#socket.end(data, taken);
      else this.#socket.write(data, taken);
    });
  }

  closeWrite(): Promise<void> {
    return this.write(new Uint8Array(0), { end: true });
  }

  /** Ends this direction where it has not ended, and drops what comes until the client ends its own, within bounds. */
  stopSending(): void {
    if (this.#dropping !== undefined) return;
    this.#dropping = this.#bounds.lingerBytes;
    this.#chunks.length = this.#waiting = 0;
    this.#hold(false);
    const socket = this.#socket;
    if (!socket.writableEnded) socket.end();
    if (this.#ended) socket.destroySoon();
    else if (!socket.destroyed) {
      this.#linger = setTimeout(() => socket.destroy(), timerDelay(this.#bounds.lingerTimeoutMs));
    }
  }

  reset(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Uint8Array): void {
    if (this.#dropping !== undefined) {
      this.#dropping -= chunk.length;
      // A client that reads while it sends has what is left of the time to take its answer.
      if (this.#dropping < 0) this.#hold(true);
      return;
    }
    this.#chunks.push(chunk);
    this.#waiting += chunk.length;
    if (this.#waiting >= READ_AHEAD) this.#hold(true);
    this.#wakeReader?.();
  }

  #hold(held: boolean): void {
    if (held === this.#held) return;
    this.#held = held;
    if (held) this.#socket.pause();
    else this.#socket.resume();
    if (this.#carrier !== undefined) holdReading(this.#carrier, held);
  }

  /** One timer for all writes: it looks again where there was progress. */
  #limitWrites(): void {
    const { writeTimeoutMs } = this.#bounds;
    if (writeTimeoutMs === 0 || this.#late !== undefined) return;
    const late = () => {
      this.#late = undefined;
      if (this.#writes.size === 0) return;
      const left = this.#takenAt + writeTimeoutMs - performance.now();
      if (left > 0) this.#late = setTimeout(late, timerDelay(left));
      else this.#socket.destroy();
    };
    this.#late = setTimeout(late, timerDelay(writeTimeoutMs));
  }

  #onClose(): void {
    clearTimeout(this.#late);
    clearTimeout(this.#linger);
    const error = new HtxError("CLOSED", "Cannot use connection: it is gone");
    this.#abort.abort(error);
    for (const reject of this.#writes) reject(error);
    this.#writes.clear();
    this.#wakeReader?.();
  }
}
