/**
 * Sealed frames over a socket, by hand: one key, no streams, no credit, no limits. What the same cipher and the same
 * sockets cost without a session is a bound for what one can reach.
 *
 * @module
 */

import { loadSodium, selectCrypto } from "../../core/mod.ts";
import { nextNonce, writeAll } from "./_sockets.ts";

const TAG = 16;
/** A kind, and three bytes of length. */
const HEADER = 4;
/** Bytes of the largest frame's content. */
export const FRAME = 65_536;

await loadSodium();
const backend = selectCrypto();

/** One frame. */
export interface SealedFrame {
  readonly kind: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A connection that carries them. */
export class Sealed {
  readonly #conn: Deno.TcpConn;
  readonly #aead = backend.chacha20Poly1305(new Uint8Array(32).fill(7));
  readonly #sendNonce = new Uint8Array(12);
  readonly #receiveNonce = new Uint8Array(12);
  readonly #out = new Uint8Array(4 * (HEADER + FRAME + TAG));
  readonly #in = new Uint8Array(4 * FRAME);
  #filled = 0;
  #at = 0;
  #end = 0;

  /** Takes the connection over. */
  constructor(conn: Deno.TcpConn) {
    conn.setNoDelay(true);
    this.#conn = conn;
  }

  /** Whether there is no room for a frame of full size behind those that wait. */
  get full(): boolean {
    return this.#filled + HEADER + FRAME + TAG > this.#out.length;
  }

  /** Seals a frame behind those that wait. */
  put(kind: number, data: Uint8Array): void {
    const at = this.#filled;
    const length = data.length + TAG;
    const out = this.#out;
    out[at] = kind;
    out[at + 1] = length >>> 16;
    out[at + 2] = length >>> 8;
    out[at + 3] = length;
    this.#aead.seal(this.#sendNonce, out.subarray(at, at + HEADER), data, out, at + HEADER);
    nextNonce(this.#sendNonce);
    this.#filled += HEADER + length;
  }

  /** Sends what waits. */
  async flush(): Promise<void> {
    const batch = this.#out.subarray(0, this.#filled);
    this.#filled = 0;
    await writeAll(this.#conn, batch);
  }

  /** The next frame; `undefined` at the end. */
  async frame(): Promise<SealedFrame | undefined> {
    const buffer = this.#in;
    for (;;) {
      const at = this.#at;
      const held = this.#end - at;
      const length = held < HEADER ? 0 : buffer[at + 1]! << 16 | buffer[at + 2]! << 8 | buffer[at + 3]!;
      if (held >= HEADER + length && length > 0) {
        const header = buffer.subarray(at, at + HEADER);
        const sealed = buffer.subarray(at + HEADER, at + HEADER + length);
        const data = this.#aead.open(this.#receiveNonce, header, sealed);
        if (data === undefined) throw new Error("A frame does not open");
        nextNonce(this.#receiveNonce);
        this.#at += HEADER + length;
        return { kind: header[0]!, data };
      }
      buffer.copyWithin(0, at, this.#end);
      this.#end -= at;
      this.#at = 0;
      const read = await this.#conn.read(buffer.subarray(this.#end));
      if (read === null) return undefined;
      this.#end += read;
    }
  }

  /** Ends the connection. */
  close(): void {
    this.#conn.close();
  }
}
