/**
 * The two queues of a stream: bytes waiting to be sealed, and bytes waiting to be read.
 *
 * @module
 */

import { releaseBytes } from "./bytes.ts";
import type { Bytes } from "./crypto.ts";
import { MAX_PLAINTEXT_LENGTH } from "./frame.ts";

const EMPTY = /* @__PURE__ */ new Uint8Array(0);

/** Writes of this many bytes are sealed where they lie; smaller ones are copied, while there is room. */
export const REFERENCE_FROM = 131_072;
/** What is left of a large write is copied once it is this little, so that its owner has the buffer back. */
const OWN_LIMIT = 16_384;

/** Bytes that are moved rather than left behind in a block that is full. */
const LITTLE = 1024;

/** Memory for copies, by size: making it anew costs more than filling it. Kept to a megabyte or so for each size. */
class BlockPool {
  readonly size: number;
  readonly #keep: number;
  readonly #free: Bytes[] = [];

  constructor(size: number) {
    this.size = size;
    this.#keep = Math.ceil(2 ** 20 / size / 4);
  }

  take(): Bytes {
    return this.#free.pop() ?? new Uint8Array(this.size);
  }

  give(block: Bytes): void {
    if (this.#free.length < this.#keep) this.#free.push(block);
  }
}

/** Bytes of the least block. */
const SMALL_BLOCK = 2048;

/** The least of these that holds a write, or the largest, from which two full frames are cut. */
const pools: readonly BlockPool[] = /* @__PURE__ */ [SMALL_BLOCK, 16_384, 2 * MAX_PLAINTEXT_LENGTH].map((
  size,
) => new BlockPool(size));

function takeBlock(length: number): Bytes {
  return (pools.find((pool) => length <= pool.size) ?? pools.at(-1)!).take();
}

/** Bytes waiting to be sealed: copied to blocks of our own, or held by reference. */
export class SendQueue {
  /** Bytes waiting. */
  size = 0;
  #chunks: Uint8Array[] = [];
  /** The block of ours that each chunk is a view of; `undefined` for chunks held by reference. */
  #blocks: (Bytes | undefined)[] = [];
  #head = 0;
  /** How much of the last block is in use. */
  #filled = 0;
  /** Whether a part of the first chunk was taken. */
  #cut = false;

  /** Adds `data` by reference: it must stay as it is until taken. */
  append(data: Uint8Array): void {
    if (data.length === 0) return; // a chunk that is found empty later was detached
    this.#push(data, undefined);
    this.size += data.length;
  }

  /** Adds a copy of `data`. */
  appendCopy(data: Uint8Array): void {
    if (this.#chunks.length === 0 && data.length <= SMALL_BLOCK) return this.#first(data);
    let rest = data;
    const last = this.#chunks.length - 1;
    const block = last < 0 ? undefined : this.#blocks[last]; // an index below 0 is a name: slow to look up
    const room = block === undefined ? 0 : block.length - this.#filled;
    // Where little waits and the block is about to be full, all of it goes to a fresh one: frames are cut from its start.
    if (block !== undefined && room > 0 && !(rest.length > room && this.#hasLittle())) {
      const part = rest.subarray(0, room);
      block.set(part, this.#filled);
      this.#filled += part.length;
      // The view of the block grows; what was taken from its front stays taken.
      this.#chunks[last] = block.subarray(this.#chunks[last]!.byteOffset, this.#filled);
      rest = rest.subarray(part.length);
    }
    while (rest.length > 0) {
      // A backlog gets larger blocks, so that frames are cut from few pieces.
      const fresh = takeBlock(this.size + data.length);
      // The few bytes that a full frame left in the last block move along: the next frame lies in one piece.
      const left = this.#takeLittle();
      fresh.set(left);
      const part = rest.subarray(0, fresh.length - left.length);
      fresh.set(part, left.length);
      this.#filled = left.length + part.length;
      this.#push(fresh.subarray(0, this.#filled), fresh);
      rest = rest.subarray(part.length);
    }
    this.size += data.length;
  }

  /** As all of it, for the little that mostly goes out before more comes. */
  #first(data: Uint8Array): void {
    if (data.length === 0) return;
    const block = pools[0]!.take();
    block.set(data);
    this.#filled = this.size = data.length;
    this.#push(block.subarray(0, data.length), block);
  }

  /** How many of at most `length` bytes to take: all, or those that lie in one piece where that is half a frame. */
  worthTaking(length: number): number {
    const piece = this.#chunks[this.#head]?.length ?? 0;
    return piece < length && piece > MAX_PLAINTEXT_LENGTH / 2 ? piece : length;
  }

  /**
   * Takes `length` bytes, at most `size`: a view of one chunk where they lie in one, else gathered in `scratch`. The
   * view is good until the next call of any queue: its memory may be lent out again. `undefined` where the owner of a
   * chunk held by reference has detached it.
   */
  take(length: number, scratch: (length: number) => Uint8Array): Uint8Array | undefined {
    this.size -= length;
    const first = this.#piece(length);
    if (first.length === length) return first;
    if (first.length === 0) return undefined;
    const out = scratch(length);
    out.set(first);
    for (let at = first.length; at < length;) {
      const piece = this.#piece(length - at);
      if (piece.length === 0) return undefined;
      out.set(piece, at);
      at += piece.length;
    }
    return out.subarray(0, length);
  }

  /** Up to `length` bytes of the first chunk, taken out. */
  #piece(length: number): Uint8Array {
    const chunk = this.#chunks[this.#head];
    if (chunk === undefined || length === 0) return EMPTY;
    if (chunk.length <= length) {
      this.#drop();
      return chunk;
    }
    this.#chunks[this.#head] = chunk.subarray(length);
    this.#cut = true;
    return chunk.subarray(0, length);
  }

  /**
   * Copies what is held by reference, once all that waits is within `limit` bytes: its owners have their buffers back.
   * A chunk that is being cut into frames already stays until little is left of it. Whether all that waits is a copy.
   */
  own(limit: number): boolean {
    const chunks = this.#chunks;
    const blocks = this.#blocks;
    const first = blocks.indexOf(undefined, this.#head);
    if (first < 0) return true;
    if (this.size > limit) return false;
    if (first === this.#head && this.#cut && chunks[first]!.length > OWN_LIMIT) return false;
    const { size } = this;
    this.#chunks = chunks.slice(this.#head, first);
    this.#blocks = blocks.slice(this.#head, first);
    this.#head = 0;
    const last = this.#chunks.at(-1);
    if (last !== undefined) this.#filled = last.byteOffset + last.length;
    for (let i = first; i < chunks.length; i++) {
      const block = blocks[i];
      if (block === undefined) this.appendCopy(chunks[i]!);
      else {
        this.#push(chunks[i]!, block);
        this.#filled = chunks[i]!.byteOffset + chunks[i]!.length;
      }
    }
    this.size = size;
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    for (let i = this.#head; i < this.#blocks.length; i++) giveBlock(this.#blocks[i]);
    this.#chunks = [];
    this.#blocks = [];
    this.#head = 0;
    this.#cut = false;
    this.size = 0;
  }

  /** Whether all that waits is one copy of ours, and little. */
  #hasLittle(): boolean {
    const only = this.#chunks[this.#head];
    return only !== undefined && only.length <= LITTLE && this.#chunks.length - this.#head === 1 &&
      this.#blocks[this.#head] !== undefined;
  }

  /** What waits, taken out, where it is little. */
  #takeLittle(): Uint8Array {
    if (!this.#hasLittle()) return EMPTY;
    const only = this.#chunks[this.#head]!;
    this.#drop();
    return only;
  }

  #push(chunk: Uint8Array, block: Bytes | undefined): void {
    this.#chunks.push(chunk);
    this.#blocks.push(block);
  }

  #drop(): void {
    giveBlock(this.#blocks[this.#head]);
    this.#cut = false;
    if (++this.#head === this.#chunks.length) {
      this.#chunks.length = this.#blocks.length = 0;
      this.#head = 0;
    } else if (this.#head > 32 && this.#head * 2 > this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
      this.#blocks.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

function giveBlock(block: Bytes | undefined): void {
  if (block !== undefined) pools.find((pool) => pool.size === block.length)?.give(block);
}

/** Chunks below this many bytes are joined once several wait: a peer's tiny frames cost no more than their bytes. */
const JOIN_BELOW = 1024;
const JOIN_AFTER = 16;
const JOIN_BLOCK = 16_384;

/** Bytes waiting to be read, in the chunks they came in. */
export class ReceiveQueue {
  /** Bytes waiting. */
  size = 0;
  #chunks: Bytes[] = [];
  #head = 0;
  #block: Bytes | undefined;
  #blockEnd = 0;

  /** Adds a chunk that nobody else will change. */
  push(chunk: Bytes): void {
    this.size += chunk.length;
    if (chunk.length < JOIN_BELOW && this.#chunks.length - this.#head >= JOIN_AFTER) return this.#join(chunk);
    this.#block = undefined;
    this.#chunks.push(chunk);
  }

  /** Takes the next chunk; `undefined` when there is none. */
  shift(): Bytes | undefined {
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

  /**
   * Copies as many of the waiting chunks into `into` as fit whole, or a part of the first, and gives back the memory that
   * they were in; tells how many bytes that was.
   */
  copyInto(into: Uint8Array): number {
    let at = 0;
    let chunk: Bytes | undefined;
    while ((chunk = this.#chunks[this.#head]) !== undefined && at + chunk.length <= into.length) {
      this.shift();
      into.set(chunk, at);
      at += chunk.length;
      releaseBytes(chunk);
    }
    if (at > 0 || chunk === undefined) return at;
    into.set(chunk.subarray(0, into.length));
    this.#chunks[this.#head] = chunk.subarray(into.length);
    if (this.#head === this.#chunks.length - 1) this.#block = undefined; // its front must not come back
    this.size -= into.length;
    return into.length;
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

  #join(chunk: Bytes): void {
    const end = this.#blockEnd + chunk.length;
    let block = this.#block;
    if (block !== undefined && end <= JOIN_BLOCK) {
      if (end > block.length) {
        const larger = new Uint8Array(Math.min(JOIN_BLOCK, 2 * end));
        larger.set(block.subarray(0, this.#blockEnd));
        block = this.#block = larger;
      }
      block.set(chunk, this.#blockEnd);
      this.#chunks[this.#chunks.length - 1] = block.subarray(0, end);
      this.#blockEnd = end;
      return;
    }
    // No larger than it needs to be: other chunks may keep it from ever being filled.
    this.#block = new Uint8Array(2 * chunk.length);
    this.#block.set(chunk);
    this.#blockEnd = chunk.length;
    this.#chunks.push(this.#block.subarray(0, chunk.length));
  }
}
