/**
 * WebSocket frames (RFC 6455 §5) without extensions: behind a CONNECT (HTX 1.1 §5) unmasked in both directions, over
 * TCP masked by clients. Sans-IO.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteCollector, type Bytes, concat, concatAll, fromUtf8, HtxError, utf8 } from "../../core/mod.ts";

/** Opcodes (RFC 6455 §5.2). */
export const WebSocketOpcode = {
  CONTINUATION: 0,
  TEXT: 1,
  BINARY: 2,
  CLOSE: 8,
  PING: 9,
  PONG: 10,
} as const;

/** RFC 6455 §5.5: "All control frames MUST have a payload length of 125 bytes or less". */
const MAX_CONTROL_LENGTH = 125;
const DEFAULT_MAX_MESSAGE: number = 16 * 1024 ** 2;
/** An empty message may come in many frames: so many that hold nothing are put up with in one. */
const MAX_EMPTY_FRAGMENTS = 1024;
/** Shorter parts of a message are copied together: views of them would cost more than they hold. */
const KEEP_FROM = 16_384;

const FIN = 0x80;
const MASK = 0x80;
const RESERVED = 0x70;
const LENGTH_16 = 126;
const LENGTH_64 = 127;
const KEY_LENGTH = 4;
/** Shorter payloads are unmasked byte by byte. */
const WORDS_FROM = 64;

/** What a decoder gives: a whole message, or a control frame. */
export type WebSocketEvent =
  | { readonly type: "text"; readonly data: string }
  | { readonly type: "binary"; readonly data: Bytes }
  | { readonly type: "ping"; readonly data: Bytes }
  | { readonly type: "pong"; readonly data: Bytes }
  | {
    readonly type: "close";
    /** The code; 1005 where there was none. */
    readonly code: number;
    readonly reason: string;
  };

/** Options of a {@linkcode WebSocketDecoder}. */
export interface WebSocketDecoderOptions {
  /** Bytes of a message, all its frames together. @default {16777216} */
  maxMessageBytes?: number | undefined;
}

/**
 * Bytes in, messages and control frames out. Fragments are put together; lengths are checked before anything is kept
 * for them.
 *
 * @example
 * ```ts
 * import { encodeWebSocketFrame, WebSocketDecoder, WebSocketOpcode } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const decoder = new WebSocketDecoder();
 * decoder.push(encodeWebSocketFrame(WebSocketOpcode.TEXT, new TextEncoder().encode("hello")));
 * assertEquals(decoder.next(), { type: "text", data: "hello" });
 * assertEquals(decoder.next(), undefined);
 * ```
 */
export class WebSocketDecoder {
  /** After {@linkcode WebSocketDecoder.next} threw: the code to close with (RFC 6455 §7.4.1). */
  closeCode: 1002 | 1007 | 1009 | undefined;

  readonly #maxMessage: number;
  /** Of the frame whose header has been read; `undefined` where frames are not masked. */
  readonly #key: Bytes | undefined;
  #chunks: Uint8Array[] = [];
  #available = 0;
  /** The frame whose header has been read. */
  #frame: { readonly fin: boolean; readonly opcode: number; readonly length: number } | undefined;
  /** The message under way. */
  #opcode = 0;
  #parts: Uint8Array[] = [];
  /** The short parts since the last long one. */
  readonly #small = new ByteCollector();
  #length = 0;
  #empty = 0;
  #ended = false;
  #error: HtxError | undefined;

  /** Makes a decoder for one direction; `masked` for that from a client over TCP. */
  constructor(options: WebSocketDecoderOptions & { masked?: boolean | undefined } = {}) {
    this.#maxMessage = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE;
    if (options.masked) this.#key = new Uint8Array(KEY_LENGTH);
  }

  /** Whether a Close frame was given out: nothing more will be. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Adds received bytes, which are the decoder's from then on: masked ones are unmasked where they are. */
  push(chunk: Uint8Array): void {
    if (this.#ended || chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#available += chunk.length;
  }

  /**
   * The next event; `undefined` where more bytes are needed.
   *
   * @throws {HtxError} `MALFORMED`, or `LIMIT_EXCEEDED` for a message that is too long
   */
  next(): WebSocketEvent | undefined {
    if (this.#error !== undefined) throw this.#error;
    while (!this.#ended) {
      if (this.#frame === undefined && !this.#readHeader()) return undefined;
      const { fin, opcode, length } = this.#frame!;
      if (opcode < WebSocketOpcode.CLOSE) {
        // Payloads of messages are taken as they come, so that nothing is joined twice.
        if (!this.#takeContent(length)) return undefined;
        this.#frame = undefined;
        if (fin) return this.#message();
        continue;
      }
      if (this.#available < length) return undefined;
      const payload = this.#take(length);
      if (this.#key !== undefined) unmask(payload, this.#key, 0);
      this.#frame = undefined;
      switch (opcode) {
        case WebSocketOpcode.PING:
          return { type: "ping", data: payload };
        case WebSocketOpcode.PONG:
          return { type: "pong", data: payload };
        default:
          return this.#close(payload);
      }
    }
    return undefined;
  }

  #frameLeft = 0;

  #readHeader(): boolean {
    const first = this.#peek(0);
    const second = this.#peek(1);
    if (first === undefined || second === undefined) return false;
    const fin = (first & FIN) !== 0;
    const opcode = first & 0x0f;
    const control = opcode >= WebSocketOpcode.CLOSE;
    const short = second & 0x7f;
    if ((first & RESERVED) !== 0) throw this.#fail(1002, "a reserved bit is set");
    const key = this.#key;
    // RFC 6455 §5.1: "The server MUST close the connection upon receiving a frame that is not masked."
    if (key === undefined && (second & MASK) !== 0) throw this.#fail(1002, "a frame is masked");
    if (key !== undefined && (second & MASK) === 0) throw this.#fail(1002, "a frame is not masked");
    if (control ? opcode > WebSocketOpcode.PONG : opcode > WebSocketOpcode.BINARY) {
      throw this.#fail(1002, `opcode ${opcode} is not known`);
    }
    if (control && (!fin || short > MAX_CONTROL_LENGTH)) {
      throw this.#fail(1002, "a control frame is fragmented or longer than 125 bytes");
    }
    if (!control && (opcode === WebSocketOpcode.CONTINUATION) !== (this.#opcode !== 0)) {
      throw this.#fail(1002, "a fragment is out of order");
    }
    const headerLength = short === LENGTH_64 ? 10 : short === LENGTH_16 ? 4 : 2;
    if (this.#available < headerLength + (key?.length ?? 0)) return false;
    let length = short;
    if (short >= LENGTH_16) {
      length = 0;
      for (let i = 2; i < headerLength; i++) length = length * 256 + this.#peek(i)!;
      // RFC 6455 §5.2: "the minimal number of bytes MUST be used to encode the length".
      if (length < (short === LENGTH_16 ? LENGTH_16 : 65_536)) {
        throw this.#fail(1002, "a length is not in its shortest form");
      }
    }
    if (!control && this.#length + length > this.#maxMessage) {
      throw this.#fail(1009, `a message is longer than ${this.#maxMessage} bytes`);
    }
    if (!control && length === 0 && !fin && ++this.#empty > MAX_EMPTY_FRAGMENTS) {
      throw this.#fail(1009, `a message has more than ${MAX_EMPTY_FRAGMENTS} empty fragments`);
    }
    this.#take(headerLength);
    key?.set(this.#take(KEY_LENGTH));
    this.#frame = { fin, opcode, length };
    this.#frameLeft = length;
    if (opcode === WebSocketOpcode.TEXT || opcode === WebSocketOpcode.BINARY) this.#opcode = opcode;
    return true;
  }

  #takeContent(length: number): boolean {
    while (this.#frameLeft > 0) {
      const chunk = this.#chunks[0];
      if (chunk === undefined) return false;
      const part = chunk.subarray(0, this.#frameLeft);
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
      this.#available -= part.length;
      if (this.#key !== undefined) unmask(part, this.#key, length - this.#frameLeft);
      this.#frameLeft -= part.length;
      this.#keep(part);
    }
    this.#length += length;
    return true;
  }

  #keep(part: Uint8Array): void {
    if (part.length >= KEEP_FROM) {
      this.#endSmall();
      this.#parts.push(part);
      return;
    }
    this.#small.push(part);
  }

  #endSmall(): void {
    if (this.#small.size > 0) this.#parts.push(this.#small.take());
  }

  #message(): WebSocketEvent {
    this.#endSmall();
    const data = concatAll(this.#parts);
    const text = this.#opcode === WebSocketOpcode.TEXT;
    this.#parts = [];
    this.#length = this.#opcode = this.#empty = 0;
    if (!text) return { type: "binary", data };
    return { type: "text", data: this.#text(data) };
  }

  #close(payload: Bytes): WebSocketEvent {
    this.#ended = true;
    this.#chunks = [];
    this.#parts = [];
    this.#small.take();
    this.#available = 0;
    if (payload.length === 0) return { type: "close", code: 1005, reason: "" };
    if (payload.length === 1) throw this.#fail(1002, "a close frame has one byte");
    const code = payload[0]! * 256 + payload[1]!;
    if (!isWireCloseCode(code)) throw this.#fail(1002, `close code ${code} cannot be sent`);
    return { type: "close", code, reason: this.#text(payload.subarray(2)) };
  }

  #text(bytes: Uint8Array): string {
    try {
      return fromUtf8(bytes);
    } catch {
      throw this.#fail(1007, "text is not UTF-8");
    }
  }

  #peek(at: number): number | undefined {
    for (const chunk of this.#chunks) {
      if (at < chunk.length) return chunk[at];
      at -= chunk.length;
    }
    return undefined;
  }

  #take(length: number): Bytes {
    const out = new Uint8Array(length);
    let at = 0;
    while (at < length) {
      const chunk = this.#chunks[0]!;
      const part = chunk.subarray(0, length - at);
      out.set(part, at);
      at += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#available -= length;
    return out;
  }

  #fail(closeCode: 1002 | 1007 | 1009, why: string): HtxError {
    this.closeCode = closeCode;
    this.#chunks = [];
    this.#parts = [];
    this.#small.take();
    this.#error = new HtxError(
      closeCode === 1009 ? "LIMIT_EXCEEDED" : "MALFORMED",
      `Cannot decode WebSocket frames: ${why}`,
      { field: "websocket" },
    );
    return this.#error;
  }
}

/** RFC 6455 §5.3, in place: `at` is where in the payload `bytes` begin. */
function unmask(bytes: Uint8Array, key: Uint8Array, at: number): void {
  const { buffer, byteOffset, length } = bytes;
  const flip = (from: number, to: number) => {
    for (let i = from; i < to; i++) bytes[i] = bytes[i]! ^ key[(at + i) & 3]!;
  };
  if (length < WORDS_FROM) return flip(0, length);
  const lead = -byteOffset & 3; // to where words may begin
  flip(0, lead);
  const words = new Int32Array(buffer, byteOffset + lead, (length - lead) >>> 2);
  const turned = Uint8Array.from(key, (_, i) => key[(at + lead + i) & 3]!);
  const word = new Int32Array(turned.buffer)[0]!;
  for (let i = 0; i < words.length; i++) words[i] = words[i]! ^ word;
  flip(lead + 4 * words.length, length);
}

/** One frame. */
export function encodeWebSocketFrame(
  opcode: number,
  payload: Uint8Array,
  options: { fin?: boolean } = {},
): Bytes {
  const { fin = true } = options;
  const { length } = payload;
  const headerLength = length < LENGTH_16 ? 2 : length < 65_536 ? 4 : 10;
  const out = new Uint8Array(headerLength + length);
  const view = new DataView(out.buffer);
  out[0] = (fin ? FIN : 0) | opcode;
  if (headerLength === 2) {
    out[1] = length;
  } else if (headerLength === 4) {
    out[1] = LENGTH_16;
    view.setUint16(2, length);
  } else {
    out[1] = LENGTH_64;
    view.setBigUint64(2, BigInt(length));
  }
  out.set(payload, headerLength);
  return out;
}

/** A Close frame; 1005 stands for one without a code. The reason is cut to 123 bytes. */
export function encodeWebSocketClose(code = 1005, reason = ""): Bytes {
  if (code === 1005) return encodeWebSocketFrame(WebSocketOpcode.CLOSE, new Uint8Array(0));
  let text = utf8(reason);
  if (text.length > MAX_CONTROL_LENGTH - 2) {
    let end = MAX_CONTROL_LENGTH - 2;
    while ((text[end]! & 0xc0) === 0x80) end--; // not in the middle of a character
    text = text.slice(0, end);
  }
  return encodeWebSocketFrame(WebSocketOpcode.CLOSE, concat(new Uint8Array([code >>> 8, code & 0xff]), text));
}

/** Whether a code may stand in a Close frame (RFC 6455 §7.4). */
export function isWireCloseCode(code: number): boolean {
  return (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) ||
    (code >= 3000 && code <= 4999);
}
