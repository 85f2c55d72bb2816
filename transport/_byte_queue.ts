/**
 * Bytes that wait to be read. This module is browser compatible.
 *
 * @module
 */

/** Pieces that wait as they came, however small: with so few of them there is nothing to gain. */
const JOIN_AFTER = 16;
/** Behind those, pieces shorter than this share blocks of this length: alone each would cost hundreds of bytes. */
const BLOCK_LENGTH = 4096;

/** A queue whose memory is about the size of what waits in it, in however small pieces that came. */
export class ByteQueue {
  /** Bytes waiting. */
  size = 0;
  #chunks: Uint8Array[] = [];
  /** How much of the block that the last chunk is a view of is in use; no room is left where that is not one of ours. */
  #filled: number = BLOCK_LENGTH;

  /** Adds a piece, which is the queue's from now on. */
  push(piece: Uint8Array): void {
    this.size += piece.length;
    if (piece.length >= BLOCK_LENGTH || this.#chunks.length < JOIN_AFTER) {
      this.#filled = BLOCK_LENGTH;
      this.#chunks.push(piece);
      return;
    }
    for (let rest = piece; rest.length > 0;) {
      if (this.#filled === BLOCK_LENGTH) {
        this.#chunks.push(new Uint8Array(BLOCK_LENGTH).subarray(0, 0));
        this.#filled = 0;
      }
      const part = rest.subarray(0, BLOCK_LENGTH - this.#filled);
      rest = rest.subarray(part.length);
      const { buffer, byteOffset, length } = this.#chunks.pop()!; // its front may have been taken already
      const longer = new Uint8Array(buffer, byteOffset, length + part.length);
      longer.set(part, length);
      this.#chunks.push(longer);
      this.#filled += part.length;
    }
  }

  /** Moves as much as there is and fits into `into`; tells how many bytes that was. */
  take(into: Uint8Array): number {
    let at = 0;
    while (at < into.length && this.#chunks.length > 0) {
      const chunk = this.#chunks[0]!;
      const part = chunk.subarray(0, into.length - at);
      into.set(part, at);
      at += part.length;
      if (part.length < chunk.length) this.#chunks[0] = chunk.subarray(part.length);
      else this.#chunks.shift();
    }
    this.size -= at;
    return at;
  }

  /** Forgets everything. */
  clear(): void {
    this.#chunks = [];
    this.size = 0;
  }
}
