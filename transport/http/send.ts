/**
 * Sending one message over a stream: the head together with a small body and the end in one write, anything else
 * chunk by chunk as its source gives it and as the stream has room.
 *
 * @module
 */

import { HtxError, releaseBytes, utf8 } from "../../core/mod.ts";
import { HttpBody } from "./body.ts";
import {
  type AnyHead,
  encodeHttpChunk,
  encodeHttpChunkHeader,
  encodeHttpEnd,
  encodeShared,
} from "./encode.ts";
import type { HttpField } from "./message.ts";
import type { HttpStream } from "./stream.ts";
import { parseContentLength } from "./_grammar.ts";

/**
 * Content to send: in hand, or read as it goes out; a received body, and what has a source of its own, is passed on without
 * a stream in between.
 */
export type HttpContent = Uint8Array | string | ReadableStream<Uint8Array> | HttpBody | HttpSource;

/** Trailer lines, or what gives them once the content has been sent. */
export type HttpTrailers =
  | readonly HttpField[]
  | (() => readonly HttpField[] | Promise<readonly HttpField[]>);

const EMPTY = /* @__PURE__ */ new Uint8Array(0);
/** Up to this size content is copied behind its head, and goes out in the same write. */
const INLINE_BYTES = 24_576;
/** Up to this size a chunk is copied behind its length; above, two writes without a copy. */
const COPY_BYTES = 4096;
/** How many microtasks a source gets to show that its data is here already. */
const READY_TURNS = 8;

/** One message on its way out, and how far it has come. */
export interface Outgoing {
  /** Where it goes. */
  readonly stream: HttpStream;
  /** Its head, and which kind it is. */
  readonly head: AnyHead;
  /** Its content. */
  readonly content: HttpContent | null | undefined;
  /** Whether the chunks of a streamed content are ours, memory and all. */
  readonly given: boolean;
  /** Its trailer section. */
  readonly trailers?: HttpTrailers | undefined;
  /** Whether the content is left out (HEAD, 204, 304). */
  readonly omitContent: boolean;
  /** Set once the head has been written. */
  headSent: boolean;
  /** Set when the failure came from the content or the trailers, rather than from the stream. */
  sourceFailed: boolean;
}

/**
 * Sends the message and ends the direction. On any failure the content's source is cancelled.
 *
 * @throws what the source or the stream failed with; `TypeError` before anything is sent when the head cannot be
 */
export async function sendMessage(message: Outgoing): Promise<void> {
  const { content, omitContent } = message;
  if (content === null || content === undefined || omitContent) {
    try {
      await sendWhole(message, EMPTY, omitContent);
    } finally {
      if (isReadAsItGoes(content)) cancelQuietly(content, undefined);
    }
    return;
  }
  if (typeof content === "string") return sendWhole(message, utf8(content), false);
  if (content instanceof Uint8Array) return sendWhole(message, content, false);
  const source = content instanceof HttpSource
    ? new OwnSource(content)
    : content instanceof HttpBody
    ? new BodySource(content)
    : content instanceof ReadableStream
    ? new ReaderSource(content)
    : undefined;
  if (source === undefined) {
    message.sourceFailed = true;
    throw new TypeError("Cannot send content: it is not bytes, text, a stream or a received body");
  }
  return new StreamedContent(message, source).send();
}

/** Whether content is read as it goes out. */
export function isReadAsItGoes(
  content: HttpContent | null | undefined,
): content is ReadableStream<Uint8Array> | HttpBody | HttpSource {
  return content instanceof ReadableStream || content instanceof HttpBody || content instanceof HttpSource;
}

/** Cancels content that will not be sent; a stream that cannot be cancelled has its own reader. */
export function cancelQuietly(
  content: ReadableStream<Uint8Array> | HttpBody | HttpSource,
  reason: unknown,
): void {
  if (!(content instanceof ReadableStream)) content.cancel(reason);
  else if (!content.locked) content.cancel(reason).catch(() => {});
}

/** The length that the head declares. */
function declaredLength(message: Outgoing): number | undefined {
  const { head } = message;
  const fields = "request" in head ? head.request.fields : head.response.fields;
  for (const [name, value] of fields) {
    if (name.length === 14 && name.toLowerCase() === "content-length") return parseContentLength(value);
  }
  return undefined;
}

function lengthMismatch(): HtxError {
  return new HtxError("INTERNAL_ERROR", "Cannot send content: it is not as long as its content-length says", {
    field: "content-length",
  });
}

async function sendWhole(message: Outgoing, content: Uint8Array, anyLength: boolean): Promise<void> {
  const { stream } = message;
  if (!anyLength) {
    const declared = declaredLength(message);
    if (declared !== undefined && declared !== content.length) {
      message.sourceFailed = true;
      throw lengthMismatch();
    }
  }
  const { trailers } = message;
  if (typeof trailers === "function") return new StreamedContent(message, new WholeSource(content)).send();
  if (content.length <= INLINE_BYTES) {
    const bytes = encodeShared(message.head, trailers === undefined ? { content } : { content, trailers });
    message.headSent = true;
    return stream.write(bytes, { end: true });
  }
  const head = encodeShared(message.head, { announce: content.length });
  message.headSent = true;
  await Promise.all([
    stream.write(head),
    stream.write(content),
    stream.write(encodeHttpEnd(trailers), { end: true }),
  ]);
}

/** Content that is read as it goes out. */
class StreamedContent {
  readonly #message: Outgoing;
  readonly #source: Source;
  /** What the head declares. */
  readonly #declared: number | undefined;
  /** Whether the memory of chunks is ours. */
  readonly #given: boolean;
  /** Bytes taken from the source. */
  #taken = 0;
  /** A first small chunk, kept back: it may be all, and then one write is enough. */
  #held: Uint8Array | undefined;
  #cancelled = false;
  #onAbort: (() => void) | undefined;

  constructor(message: Outgoing, source: Source) {
    this.#message = message;
    this.#source = source;
    this.#given = message.given && !(source instanceof WholeSource);
    this.#declared = message.omitContent ? undefined : declaredLength(message);
  }

  async send(): Promise<void> {
    try {
      await this.#chunks();
      await this.#end(await this.#trailers());
    } catch (error) {
      this.#cancel(error);
      throw error;
    } finally {
      if (this.#onAbort !== undefined) {
        this.#message.stream.signal.removeEventListener("abort", this.#onAbort);
      }
    }
  }

  async #chunks(): Promise<void> {
    for (;;) {
      const data = await this.#next();
      if (data === null) return;
      if (data.length === 0) continue; // on the wire it would end the content
      if (!this.#message.headSent && this.#held === undefined && data.length <= INLINE_BYTES) {
        this.#held = data;
        continue;
      }
      if (this.#held !== undefined) await this.#flush();
      await this.#write(data);
    }
  }

  /** Takes from the source; what is held back goes first when the source makes us wait. */
  async #next(): Promise<Uint8Array | null> {
    const message = this.#message;
    let data: Uint8Array | null | undefined;
    try {
      data = await this.#source.soon();
      if (data === undefined) {
        await this.#flush();
        this.#watch();
        data = await this.#source.read();
      }
    } catch (error) {
      message.sourceFailed = !message.stream.signal.aborted;
      throw error;
    }
    // The source was cancelled because the stream was reset: that is no end of the content.
    if (this.#cancelled) throw message.stream.signal.reason;
    if (data !== null && !(data instanceof Uint8Array)) {
      message.sourceFailed = true;
      throw new TypeError("Cannot send content: a chunk is not a Uint8Array");
    }
    this.#taken += data?.length ?? 0;
    const declared = this.#declared;
    if (declared !== undefined && (data === null ? this.#taken !== declared : this.#taken > declared)) {
      message.sourceFailed = true;
      throw lengthMismatch();
    }
    return data;
  }

  /** A reset must reach a source that is waiting for its next chunk. */
  #watch(): void {
    if (this.#onAbort !== undefined) return;
    const { signal } = this.#message.stream;
    signal.throwIfAborted();
    this.#onAbort = () => this.#cancel(signal.reason);
    signal.addEventListener("abort", this.#onAbort);
  }

  #cancel(reason: unknown): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#source.cancel(reason);
  }

  /** Writes what is held back: the head, and a chunk behind it. */
  async #flush(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) return await this.#write(held);
    const message = this.#message;
    if (message.headSent) return;
    const head = encodeShared(message.head, {});
    message.headSent = true;
    await message.stream.write(head);
  }

  /** Writes a chunk, behind the head if that is due; a large one as it is, not copied. */
  async #write(data: Uint8Array): Promise<void> {
    const message = this.#message;
    const { stream } = message;
    if (message.headSent && data.length <= COPY_BYTES) return await stream.write(encodeHttpChunk(data));
    const before = message.headSent
      ? encodeHttpChunkHeader(data.length)
      : encodeShared(message.head, { announce: data.length });
    message.headSent = true;
    await Promise.all([stream.write(before), stream.write(data)]);
    if (this.#given) releaseBytes(data);
  }

  /** The trailer lines. The content does not wait for those that take their time: they may depend on its having arrived. */
  async #trailers(): Promise<readonly HttpField[] | undefined> {
    const { trailers } = this.#message;
    if (typeof trailers !== "function") return trailers;
    const taken = takeTrailers(this.#message, trailers);
    if (await settlesSoon(taken)) return await taken;
    await this.#flush();
    return await unlessReset(taken, this.#message.stream);
  }

  async #end(trailers: readonly HttpField[] | undefined): Promise<void> {
    const message = this.#message;
    const { stream } = message;
    if (message.headSent) return await stream.write(encodeHttpEnd(trailers), { end: true });
    const content = this.#held ?? EMPTY;
    const bytes = encodeShared(message.head, trailers === undefined ? { content } : { content, trailers });
    message.headSent = true;
    await stream.write(bytes, { end: true });
  }
}

/** Whether the promise settles within a few microtasks. */
async function settlesSoon(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = () => void (settled = true);
  promise.then(settle, settle);
  for (let turn = 0; turn < READY_TURNS && !settled; turn++) await undefined;
  return settled;
}

/** Settles as `promise` does, or rejects when the stream is reset. */
function unlessReset<T>(promise: Promise<T>, { signal }: HttpStream): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

async function takeTrailers(
  message: Outgoing,
  trailers: () => readonly HttpField[] | Promise<readonly HttpField[]>,
): Promise<readonly HttpField[]> {
  try {
    return await trailers();
  } catch (error) {
    message.sourceFailed = true;
    throw error;
  }
}

/**
 * Content that is read as it goes out, one read at a time: to its end or until it is cancelled. For what is not in a stream,
 * and for a stream that is to be read in a way of one's own; all other streams are given as they are.
 *
 * @example Lines that are made as they are sent
 * ```ts
 * import { HttpSource } from "@betanet/htx/transport";
 *
 * class Countdown extends HttpSource {
 *   #left = 3;
 *
 *   read(): Promise<Uint8Array | null> {
 *     return Promise.resolve(this.#left > 0 ? new TextEncoder().encode(`${this.#left--}\n`) : null);
 *   }
 *
 *   cancel(): void {
 *     this.#left = 0;
 *   }
 * }
 *
 * const body: HttpSource = new Countdown(); // of a request to exchangeOverStream()
 * ```
 */
export abstract class HttpSource {
  /** The next chunk, `null` at the end. */
  abstract read(): Promise<Uint8Array | null>;

  /** Gives the rest up, also while a read is under way. */
  abstract cancel(reason: unknown): void;
}

/** What content is read from. */
interface Source {
  /** What is here already or within a few microtasks; `undefined` when it takes longer. */
  soon(): Promise<Uint8Array | null | undefined>;
  /** The next chunk, `null` at the end. */
  read(): Promise<Uint8Array | null>;
  /** Gives the rest up. */
  cancel(reason: unknown): void;
}

/** Content in hand. */
class WholeSource implements Source {
  #rest: Uint8Array | null;

  constructor(content: Uint8Array) {
    this.#rest = content;
  }

  soon(): Promise<Uint8Array | null> {
    return this.read();
  }

  read(): Promise<Uint8Array | null> {
    const rest = this.#rest;
    this.#rest = null;
    return Promise.resolve(rest);
  }

  cancel(): void {
    this.#rest = null;
  }
}

class BodySource implements Source {
  readonly #body: HttpBody;

  constructor(body: HttpBody) {
    this.#body = body;
  }

  // deno-lint-ignore require-await -- what `tryRead` throws becomes a rejection
  async soon(): Promise<Uint8Array | null | undefined> {
    return this.#body.tryRead();
  }

  read(): Promise<Uint8Array | null> {
    return this.#body.read();
  }

  cancel(reason: unknown): void {
    this.#body.cancel(reason);
  }
}

/** A source whose reads take what time they take. */
abstract class SlowSource<T> implements Source {
  /** The read that `soon` began and did not see the end of. */
  #pending: Promise<T> | undefined;

  abstract begin(): Promise<T>;
  abstract chunk(read: T): Uint8Array | null;
  abstract cancel(reason: unknown): void;

  async soon(): Promise<Uint8Array | null | undefined> {
    const pending = this.begin();
    let read: { readonly value: T } | undefined;
    let failed = false;
    pending.then((value) => read = { value }, () => failed = true);
    for (let turn = 0; turn < READY_TURNS && read === undefined && !failed; turn++) await undefined;
    if (failed) await pending;
    if (read !== undefined) return this.chunk(read.value);
    this.#pending = pending;
    return undefined;
  }

  async read(): Promise<Uint8Array | null> {
    const pending = this.#pending ?? this.begin();
    this.#pending = undefined;
    return this.chunk(await pending);
  }
}

/** A stream. The lock is not given back: there is nothing left to read, and it costs as much as a small exchange. */
class ReaderSource extends SlowSource<ReadableStreamReadResult<Uint8Array>> {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(readable: ReadableStream<Uint8Array>) {
    super();
    this.#reader = readable.getReader();
  }

  begin(): Promise<ReadableStreamReadResult<Uint8Array>> {
    return this.#reader.read();
  }

  chunk({ value, done }: ReadableStreamReadResult<Uint8Array>): Uint8Array | null {
    return done ? null : value;
  }

  cancel(reason: unknown): void {
    this.#reader.cancel(reason).catch(() => {});
  }
}

class OwnSource extends SlowSource<Uint8Array | null> {
  readonly #source: HttpSource;

  constructor(source: HttpSource) {
    super();
    this.#source = source;
  }

  begin(): Promise<Uint8Array | null> {
    return this.#source.read();
  }

  chunk(read: Uint8Array | null): Uint8Array | null {
    return read;
  }

  cancel(reason: unknown): void {
    this.#source.cancel(reason);
  }
}
