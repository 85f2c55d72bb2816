/**
 * The two queues of a stream: bytes waiting to be sealed, and bytes waiting to be read.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";

/** Writes up to this many bytes are copied, so that the caller has the buffer back at once. */
export const COPY_LIMIT = 16_384;

/** Bytes of the first block of a backlog; the next ones have `COPY_LIMIT`. */
const FIRST_BLOCK = 2048;
/** Unused first blocks kept for the next stream that writes little: making one costs more than a small write. */
const MAX_SPARE = 64;
const spare: Bytes[] = [];

function takeBlock(length: number): Bytes {
  return length <= FIRST_BLOCK ? spare.pop() ?? new Uint8Array(FIRST_BLOCK) : new Uint8Array(length);
}

/** Bytes waiting to be sealed. Small ones are gathered in blocks of our own, large ones are held by reference. */
export class SendQueue {
  /** Bytes waiting. */
  size = 0;
  #chunks: Uint8Array[] = [];
  #head = 0;
  /** The last chunk is a view of this block, which has `#blockEnd` bytes in use. */
  #block: Bytes | undefined;
  #blockEnd = 0;

  /** Adds `data` by reference: it must stay as it is until taken. */
  append(data: Uint8Array): void {
    this.#block = undefined;
    this.#chunks.push(data);
    this.size += data.length;
  }

  /** Adds a copy of `data`. */
  appendCopy(data: Uint8Array): void {
    const block = this.#block;
    const end = this.#blockEnd + data.length;
    if (block !== undefined && end <= block.length && this.size > 0) {
      block.set(data, this.#blockEnd);
      // The view of the block grows; what was taken from its front stays taken.
      const last = this.#chunks.length - 1;
      const start = this.#chunks[last]!.byteOffset;
      this.#chunks[last] = block.subarray(start, end);
      this.#blockEnd = end;
    } else {
      // The next block is larger while a backlog grows, so that a frame is gathered from few pieces.
      const fresh = takeBlock(this.size === 0 ? data.length : COPY_LIMIT);
      fresh.set(data);
      this.#block = fresh;
      this.#blockEnd = data.length;
      this.#chunks.push(fresh.subarray(0, data.length));
    }
    this.size += data.length;
  }

  /** Takes `length` bytes, at most `size`: a view of one chunk where they lie in one, else gathered in `scratch`. */
  take(length: number, scratch: (length: number) => Uint8Array): Uint8Array {
    const first = this.#chunks[this.#head];
    if (first === undefined || length === 0) return EMPTY;
    this.size -= length;
    if (first.length > length) {
      this.#chunks[this.#head] = first.subarray(length);
      return first.subarray(0, length);
    }
    if (first.length === length) {
      const block = this.#block;
      this.#drop();
      // The caller is through with the view before anybody can ask for a block.
      if (this.size === 0 && block?.length === FIRST_BLOCK && spare.length < MAX_SPARE) spare.push(block);
      return first;
    }
    const out = scratch(length);
    let at = 0;
    while (at < length) {
      const chunk = this.#chunks[this.#head]!;
      const part = chunk.length <= length - at ? chunk : chunk.subarray(0, length - at);
      out.set(part, at);
      at += part.length;
      if (part.length === chunk.length) this.#drop();
      else this.#chunks[this.#head] = chunk.subarray(part.length);
    }
    return out.subarray(0, length);
  }

  /** Copies what is left of chunks held by reference, where that is little: their owners have them back. */
  own(): boolean {
    if (this.size > COPY_LIMIT || this.#chunks.length - this.#head !== 1) return false;
    if (this.#block === undefined) {
      const left = this.#chunks[this.#head]!;
      this.clear();
      this.appendCopy(left);
    }
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    this.#chunks = [];
    this.#head = 0;
    this.#block = undefined;
    this.size = 0;
  }

  #drop(): void {
    if (++this.#head === this.#chunks.length) {
      this.#chunks.length = 0;
      this.#head = 0;
      this.#block = undefined;
    } else if (this.#head > 32 && this.#head * 2 > this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

const EMPTY = /* @__PURE__ */ new Uint8Array(0);

/** Chunks below this many bytes are joined once several wait: a peer's tiny frames cost no more than their bytes. */
const JOIN_BELOW = 1024;
const JOIN_AFTER = 16;
const JOIN_BLOCK = 16_384;

/** Bytes waiting to be read, in the chunks they came in. */
export class ReceiveQueue {
  /** Bytes waiting. */
  size = 0;
  #chunks: Uint8Array[] = [];
  #head = 0;
  #block: Bytes | undefined;
  #blockEnd = 0;

  /** Adds a chunk that nobody else will change. */
  push(chunk: Uint8Array): void {
    this.size += chunk.length;
    if (chunk.length < JOIN_BELOW && this.#chunks.length - this.#head >= JOIN_AFTER) return this.#join(chunk);
    this.#block = undefined;
    this.#chunks.push(chunk);
  }

  /** Takes the next chunk; `undefined` when there is none. */
  shift(): Uint8Array | undefined {
    const chunk = this.#chunks[this.#head];
    if (chunk === undefined) return undefined;
    this.size -= chunk.length;
    if (++this.#head === this.#chunks.length) {
      this.#chunks.length = 0;
      this.#head = 0;
      this.#block = undefined;
    } else if (this.#head > 32 && this.#head * 2 > this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
      this.#head = 0;
    }
    return chunk;
  }

  /** Forgets everything and tells how many bytes that was. */
  clear(): number {
    const size = this.size;
    this.#chunks = [];
    this.#head = 0;
    this.#block = undefined;
    this.size = 0;
    return size;
  }

  #join(chunk: Uint8Array): void {
    const end = this.#blockEnd + chunk.length;
    if (this.#block !== undefined && end <= this.#block.length) {
      this.#block.set(chunk, this.#blockEnd);
      const last = this.#chunks.length - 1;
      this.#chunks[last] = this.#block.subarray(0, end);
      this.#blockEnd = end;
      return;
    }
    this.#block = new Uint8Array(JOIN_BLOCK);
    this.#block.set(chunk);
    this.#blockEnd = chunk.length;
    this.#chunks.push(this.#block.subarray(0, chunk.length));
  }
}
