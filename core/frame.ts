/**
 * Frame codec: {@linkcode Frame} values to bytes and back (HTX 1.1 §3). No I/O, no keys.
 *
 *     0          3       4                4+v               4+v+length
 *     +----------+-------+----------------+-----------------+----------+
 *     | length   | type  | stream_id      | ciphertext      | tag      |
 *     | uint24   | uint8 | varint, or —   | `length` bytes  | 16 bytes |
 *     +----------+-------+----------------+-----------------+----------+
 *     '------- header = additional data --'
 *
 * @module
 */

import { concat, concatAll } from "./bytes.ts";
import type { Bytes } from "./crypto.ts";
import { HtxError } from "./errors.ts";
import { MAX_VARINT, writeVarint } from "./varint.ts";

/** The types this version names (HTX 1.1 §3); others are authenticated, counted and ignored. */
export const FrameType = {
  STREAM: 0,
  PING: 1,
  CLOSE: 2,
  KEY_UPDATE: 3,
  WINDOW_UPDATE: 4,
  STREAM_END: 5,
} as const;

/** The largest plaintext of a frame, in bytes (HTX 1.1 §3). */
export const MAX_PLAINTEXT_LENGTH = 65_535;
/** The tag of ChaCha20-Poly1305, in bytes (RFC 8439 §2.8). */
export const TAG_LENGTH = 16;
/** Length and type: the part of the header that every frame has. */
const FIXED_HEADER_LENGTH = 4;
/** The longest header: the fixed part and an 8-byte stream id. */
export const MAX_HEADER_LENGTH = 12;
/** The most bytes that one frame takes on the wire. */
export const MAX_FRAME_LENGTH: number = MAX_HEADER_LENGTH + MAX_PLAINTEXT_LENGTH + TAG_LENGTH;

/** Bytes of room that a {@linkcode FrameBuffer} makes at the least. */
const MIN_ROOM = 4096;

/** A frame that belongs to a stream: STREAM, WINDOW_UPDATE or STREAM_END. */
export interface StreamFrame {
  /** What it is. */
  readonly type: 0 | 4 | 5;
  /** The stream it belongs to. */
  readonly streamId: number;
  /** The header as it stood on the wire, where the frame was decoded: the additional data of its seal. */
  readonly header?: Uint8Array;
  /** Ciphertext and tag: 16 to 65 551 bytes. */
  readonly sealed: Uint8Array;
}

/** A frame of the session: PING, CLOSE, KEY_UPDATE, or a type that this version does not name. */
export interface ControlFrame {
  /** What it is: 1, 2, 3 or 6 to 255. */
  readonly type: number;
  /** Never there. */
  readonly streamId?: undefined;
  /** The header as it stood on the wire, where the frame was decoded: the additional data of its seal. */
  readonly header?: Uint8Array;
  /** Ciphertext and tag: 16 to 65 551 bytes. */
  readonly sealed: Uint8Array;
}

/** A sealed frame, told apart by `type`; `streamId` is there for the types that have one. */
export type Frame = StreamFrame | ControlFrame;

/** A decoded frame and the bytes it took. */
export interface DecodedFrame {
  /** The frame; its byte fields alias the input. */
  readonly frame: Frame;
  /** How many bytes it stood in. */
  readonly length: number;
}

/** Whether frames of this type carry a stream id (HTX 1.1 §3). */
export function hasStreamId(type: number): type is 0 | 4 | 5 {
  return type === FrameType.STREAM || type === FrameType.WINDOW_UPDATE || type === FrameType.STREAM_END;
}

/**
 * Writes the header of a frame at `offset` and returns its length: 4 to 12 bytes.
 *
 * @throws {RangeError} when a field is out of range or `into` has no room
 */
export function writeHeader(
  type: number,
  streamId: number | undefined,
  plaintextLength: number,
  into: Uint8Array,
  offset: number,
): number {
  if (!Number.isInteger(plaintextLength) || plaintextLength < 0 || plaintextLength > MAX_PLAINTEXT_LENGTH) {
    throw new RangeError(
      `Cannot encode frame: length is ${plaintextLength}, limit is ${MAX_PLAINTEXT_LENGTH}`,
    );
  }
  if (!Number.isInteger(type) || type < 0 || type > 255) {
    throw new RangeError(`Cannot encode frame: type ${type} is not a uint8`);
  }
  if (hasStreamId(type) !== (streamId !== undefined)) {
    throw new RangeError(
      `Cannot encode frame: type ${type} ${streamId === undefined ? "needs a" : "has no"} stream id`,
    );
  }
  if (offset + FIXED_HEADER_LENGTH > into.length) {
    throw new RangeError("Cannot encode frame: no room for the header");
  }
  into[offset] = 0; // at most 65 535, so the top byte of the uint24 stays zero
  into[offset + 1] = plaintextLength >>> 8;
  into[offset + 2] = plaintextLength;
  into[offset + 3] = type;
  if (streamId === undefined) return FIXED_HEADER_LENGTH;
  return FIXED_HEADER_LENGTH + writeVarint(streamId, into, offset + FIXED_HEADER_LENGTH);
}

/**
 * The bytes of a frame, with a minimal stream id. A decoded frame gets the header it came with: its seal covers
 * that spelling.
 *
 * @example There and back
 * ```ts
 * import { decodeFrame, encodeFrame, FrameType } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = encodeFrame({ type: FrameType.STREAM, streamId: 1, sealed: new Uint8Array(21) });
 * assertEquals(bytes.length, 5 + 21);
 * assertEquals(decodeFrame(bytes)?.frame.streamId, 1);
 * ```
 *
 * @throws {RangeError} when a field is out of range
 */
export function encodeFrame(frame: Frame): Bytes {
  if (frame.header !== undefined) return concat(frame.header, frame.sealed);
  if (frame.sealed.length < TAG_LENGTH) {
    throw new RangeError("Cannot encode frame: it is shorter than its tag");
  }
  const header = new Uint8Array(MAX_HEADER_LENGTH);
  const length = writeHeader(frame.type, frame.streamId, frame.sealed.length - TAG_LENGTH, header, 0);
  return concat(header.subarray(0, length), frame.sealed);
}

/**
 * Reads one frame at `offset`; `undefined` when more bytes are needed.
 *
 * @throws {HtxError} `FRAME_TOO_LARGE` as soon as the three bytes of the length pass the limit
 * @throws {HtxError} `MALFORMED` when the stream id is above 2^53-1
 */
export function decodeFrame(bytes: Uint8Array, offset = 0): DecodedFrame | undefined {
  const scan = new FrameScanner();
  if (!scan.parse(bytes, offset, bytes.length)) return undefined;
  if (scan.streamId > MAX_VARINT) {
    throw new HtxError("MALFORMED", "Cannot decode frame: the stream id is above 2^53-1", {
      field: "stream_id",
    });
  }
  return { frame: frameOf(scan, bytes), length: scan.end - offset };
}

function frameOf(scan: FrameScanner, bytes: Uint8Array): Frame {
  const header = bytes.subarray(scan.start, scan.bodyStart);
  const sealed = bytes.subarray(scan.bodyStart, scan.end);
  if (!hasStreamId(scan.type)) return { type: scan.type, header, sealed };
  return { type: scan.type, streamId: scan.streamId, header, sealed };
}

/**
 * Finds the frames in received bytes, in place: where each begins and ends, its type and stream id. One object
 * serves a whole connection, so that the hot path makes none per frame.
 */
export class FrameScanner {
  /** Type of the frame found. */
  type = 0;
  /** Its stream id; 0 where the type has none. Inexact, but above 2^53-1, where the varint was. */
  streamId = 0;
  /** Index of its first byte. */
  start = 0;
  /** Index past its header. */
  bodyStart = 0;
  /** Index past its tag. */
  end = 0;

  /**
   * Looks for a whole frame in `bytes[offset..limit]`. When it answers `false`, `end` is the least index that
   * must be there before another look can succeed.
   *
   * @throws {HtxError} `FRAME_TOO_LARGE` as soon as the three bytes of the length pass the limit
   */
  parse(bytes: Uint8Array, offset: number, limit: number): boolean {
    const available = limit - offset;
    this.end = offset + FIXED_HEADER_LENGTH;
    if (available < 3) return false;
    const length = (bytes[offset]! << 16) | (bytes[offset + 1]! << 8) | bytes[offset + 2]!;
    if (length > MAX_PLAINTEXT_LENGTH) {
      throw new HtxError(
        "FRAME_TOO_LARGE",
        `Cannot decode frame: length is ${length}, limit is ${MAX_PLAINTEXT_LENGTH}`,
      );
    }
    if (available < FIXED_HEADER_LENGTH) return false;
    const type = bytes[offset + 3]!;
    let bodyStart = offset + FIXED_HEADER_LENGTH;
    let streamId = 0;
    if (hasStreamId(type)) {
      this.end = bodyStart + 1;
      if (available < FIXED_HEADER_LENGTH + 1) return false;
      const first = bytes[bodyStart]!;
      const idLength = 1 << (first >>> 6);
      this.end = bodyStart + idLength + length + TAG_LENGTH;
      if (available < FIXED_HEADER_LENGTH + idLength) return false;
      streamId = first & 0x3f;
      for (let i = 1; i < idLength; i++) streamId = streamId * 256 + bytes[bodyStart + i]!;
      bodyStart += idLength;
    }
    const end = bodyStart + length + TAG_LENGTH;
    this.end = end;
    if (end > limit) return false;
    this.type = type;
    this.streamId = streamId;
    this.start = offset;
    this.bodyStart = bodyStart;
    return true;
  }
}

/**
 * Joins received bytes into whole frames. Holds at most one unfinished frame (65 563 bytes), whatever the
 * chunks: what is held before it is authenticated is bounded by that.
 *
 * Bytes come in either through {@linkcode FrameBuffer.space} and {@linkcode FrameBuffer.filled}, which spare the
 * copy, or through {@linkcode FrameBuffer.push}; frames go out through {@linkcode FrameBuffer.next}.
 */
export class FrameBuffer {
  /** The frame that the last successful {@linkcode FrameBuffer.next} found; indexes are into `bytes`. */
  readonly frame: FrameScanner = new FrameScanner();
  /** The bytes that `frame` indexes. Valid until the next call that brings bytes in. */
  bytes: Uint8Array;
  #start = 0;
  #end = 0;
  #owned: Bytes;

  /** Room is made when it is first needed: 4096 bytes, and as much as one frame takes. */
  constructor() {
    this.#owned = new Uint8Array(0);
    this.bytes = this.#owned;
  }

  /** Bytes held that no frame has used yet. */
  get pending(): number {
    return this.#end - this.#start;
  }

  /** Bytes of room in all. */
  get capacity(): number {
    return this.#owned.length;
  }

  /** Room to read into: at least enough for what the begun frame still lacks. */
  space(): Uint8Array {
    this.#own(0);
    return this.#owned.subarray(this.#end);
  }

  /** Says that the first `length` bytes of {@linkcode FrameBuffer.space} hold received bytes. */
  filled(length: number): void {
    this.#end += length;
  }

  /** Takes a chunk. Where nothing is pending it is looked at in place, and must stay as it is until `next` answers `false`. */
  push(chunk: Uint8Array): void {
    if (this.pending === 0) {
      this.bytes = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      return;
    }
    this.#own(chunk.length);
    this.#owned.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /**
   * Finds the next whole frame; `false` when more bytes are needed.
   *
   * @throws {HtxError} `FRAME_TOO_LARGE`
   */
  next(): boolean {
    if (!this.frame.parse(this.bytes, this.#start, this.#end)) {
      // What is left of a chunk that is not ours is copied now: the chunk is the caller's again.
      if (this.bytes !== this.#owned) this.#own(0);
      return false;
    }
    this.#start = this.frame.end;
    return true;
  }

  /** Forgets what is pending. */
  discard(): void {
    this.bytes = this.#owned;
    this.#start = 0;
    this.#end = 0;
  }

  /** Exchanges the room for `buffer`, keeping what is pending, and returns the room it had: for pools. */
  resize(buffer: Bytes): Bytes {
    const old = this.#owned;
    buffer.set(this.bytes.subarray(this.#start, this.#end));
    this.frame.end -= this.#start;
    this.#end -= this.#start;
    this.#start = 0;
    this.#owned = buffer;
    this.bytes = buffer;
    return old;
  }

  /** Moves what is pending into our own buffer, with room after it for `extra` bytes and for the rest of the begun frame. */
  #own(extra: number): void {
    const pending = this.pending;
    const lacking = pending === 0 ? 1 : Math.max(1, this.frame.end - this.#end);
    const room = Math.max(extra, lacking);
    const owned = this.#owned;
    if (this.bytes === owned) {
      const free = owned.length - this.#end;
      if (free >= room && (this.#start === 0 || 2 * free >= owned.length)) return;
    }
    const source = this.bytes.subarray(this.#start, this.#end);
    if (pending + room > owned.length) {
      this.#owned = new Uint8Array(Math.max(pending + room, 2 * owned.length, MIN_ROOM));
    }
    this.#owned.set(source); // set() copes with overlap
    this.bytes = this.#owned;
    this.frame.end -= this.#start; // where the begun frame ends, in its new place
    this.#start = 0;
    this.#end = pending;
  }
}

/**
 * Bytes in, whole frames out: one array for each chunk that completes any (so that a batch costs one hop), and an
 * empty one where a chunk only begins a frame.
 * Frames alias the chunk they came in, or a buffer of their own; nothing is opened or judged beyond the codec.
 * Partial data at the end is truncation.
 *
 * @example Any chunking gives the same frames
 * ```ts
 * import { encodeFrame, FrameDecoderStream, FrameType } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = encodeFrame({ type: FrameType.PING, sealed: new Uint8Array(16) });
 * const frames = await Array.fromAsync(
 *   ReadableStream.from([bytes.subarray(0, 1), bytes.subarray(1)]).pipeThrough(new FrameDecoderStream()),
 * );
 * assertEquals(frames.flat().map((frame) => frame.type), [FrameType.PING]);
 * ```
 */
export class FrameDecoderStream extends TransformStream<Uint8Array, Frame[]> {
  readonly #buffer: FrameBuffer;

  /**
   * Makes a decoder. Its streams error with `FRAME_TOO_LARGE` or `TRUNCATED`. A stream id above 2^53-1 comes out
   * inexact but above it: everything past the length is judged after the frame opened (HTX 1.1 §3).
   */
  constructor() {
    const buffer = new FrameBuffer();
    super({
      transform(chunk, controller) {
        const frames: Frame[] = [];
        const aliases = buffer.pending === 0;
        buffer.push(chunk);
        // Frames outlive this call, and the buffer is written over by the next: those that lie in it are copied.
        try {
          while (buffer.next()) {
            const frame = frameOf(buffer.frame, buffer.bytes);
            frames.push(
              aliases ? frame : { ...frame, header: frame.header!.slice(), sealed: frame.sealed.slice() },
            );
          }
        } finally {
          // What came whole before a length that is too large is given out before the error. A batch of none says that a
          // frame has begun: whoever gives it a time to arrive has to know.
          if (frames.length > 0 || (aliases && buffer.pending > 0)) controller.enqueue(frames);
        }
      },
      flush() {
        if (buffer.pending > 0) {
          throw new HtxError(
            "TRUNCATED",
            `Cannot decode frame: the bytes end ${buffer.pending} bytes into it`,
          );
        }
      },
    });
    this.#buffer = buffer;
  }

  /** Bytes held of a frame that has begun and not ended. */
  get pending(): number {
    return this.#buffer.pending;
  }
}

/**
 * Frames in, bytes out: whatever comes in one piece goes out in one piece, so that it is one write below. A
 * `Uint8Array` holds frames already in wire form, as the session makes them, and passes as it is.
 *
 * @example Two frames, one chunk
 * ```ts
 * import { FrameEncoderStream, FrameType } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const ping = { type: FrameType.PING, sealed: new Uint8Array(16) };
 * const chunks = await Array.fromAsync(ReadableStream.from([[ping, ping]]).pipeThrough(new FrameEncoderStream()));
 * assertEquals(chunks.map((chunk) => chunk.length), [40]);
 * ```
 */
export class FrameEncoderStream extends TransformStream<Frame | readonly Frame[] | Uint8Array, Uint8Array> {
  /** Makes an encoder. Errors with `RangeError` where a field is out of range. */
  constructor() {
    super({
      transform(input, controller) {
        if (input instanceof Uint8Array) controller.enqueue(input);
        else if (!isBatch(input)) controller.enqueue(encodeFrame(input));
        else if (input.length > 0) controller.enqueue(concatAll(input.map(encodeFrame)));
      },
    });
  }
}

function isBatch(input: Frame | readonly Frame[]): input is readonly Frame[] {
  return Array.isArray(input);
}
