/**
 * {@linkcode HttpMessageDecoder}: the bytes of an RFC 9292 message, in pieces of any size, to events. Sans-IO.
 *
 *     request  = 0 | 2   method scheme authority path      header section   content   trailer section   padding
 *     response = 1 | 3   (1xx header section)* status      header section   content   trailer section   padding
 *
 *     known length (0, 1):   section = varint length, then lines        content = varint length, then bytes
 *     indeterminate (2, 3):  section = lines, then a zero byte          content = (varint length, bytes)*, zero byte
 *     line = varint length, name, varint length, value
 *
 * A message may end early after its final control data, its header section or its content (RFC 9292 §3.8); what
 * is missing then is empty. Declared lengths are held against the limits before anything is buffered for them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isBlank } from "../../core/_blanks.ts";
import { decodeVarint, HtxError } from "../../core/mod.ts";
import {
  connectionOptions,
  isAuthority,
  isCarried,
  isPath,
  LOWER_TOKEN,
  parseContentLength,
  TOKEN,
} from "./_grammar.ts";
import {
  hasNoContent,
  type HttpField,
  type HttpLimits,
  type HttpRequestHead,
  type HttpResponseHead,
  isWebSocketRequest,
  malformedMessage,
  opensTunnel,
  oversizedMessage,
  resolveLimits,
} from "./message.ts";

/** What a decoder reports, in the order of the message. */
export type HttpEvent =
  | {
    /** An informational response (1xx), before the final one. */
    readonly type: "informational";
    /** Status and fields. */
    readonly head: HttpResponseHead;
  }
  | {
    /** The head of a request. */
    readonly type: "request";
    /** Control data and fields. */
    readonly head: HttpRequestHead;
  }
  | {
    /** The head of the final response. */
    readonly type: "response";
    /** Status and fields. */
    readonly head: HttpResponseHead;
  }
  | {
    /** Some content. */
    readonly type: "data";
    /** Never empty; a view of the chunk that was pushed. */
    readonly data: Uint8Array;
  }
  | {
    /** The trailer section, if it has any lines. */
    readonly type: "trailers";
    /** The lines. */
    readonly fields: readonly HttpField[];
  }
  | {
    /** The message is complete and whatever is here behind it is padding. */
    readonly type: "end";
  };

/** Options of {@linkcode HttpMessageDecoder}. */
export interface HttpDecoderOptions {
  /** Bounds on the message. @default {DEFAULT_HTTP_LIMITS} */
  limits?: HttpLimits | undefined;
  /** For a response: the method it answers, since HEAD and CONNECT change what follows. @default {"GET"} */
  requestMethod?: string | undefined;
}

type State = "framing" | "control" | "fields" | "content" | "trailers" | "padding" | "tunnel" | "failed";

const END_EVENT: HttpEvent = /* @__PURE__ */ Object.freeze({ type: "end" });
const EMPTY = /* @__PURE__ */ new Uint8Array(0);
const NO_FIELDS: readonly HttpField[] = /* @__PURE__ */ Object.freeze([]);
const ascii = /* @__PURE__ */ new TextDecoder();
const REQUEST_CONTROL = ["method", "scheme", "authority", "path"] as const;

/**
 * Decodes one message. Push what arrives, then take events until `undefined` asks for more; say `end()` when the
 * direction has ended.
 *
 * Pushed bytes are not copied as long as they can be used in place: they must stay as they are until `next()`
 * has returned `undefined`, and the `data` of events are views of them.
 *
 * @example
 * ```ts
 * import { encodeHttpRequest, HttpMessageDecoder } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const head = { method: "GET", scheme: "https", authority: "example.com", path: "/a?b", fields: [] };
 * const decoder = new HttpMessageDecoder("request");
 * decoder.push(encodeHttpRequest(head));
 * decoder.end();
 * assertEquals(decoder.next(), { type: "request", head });
 * assertEquals(decoder.next(), { type: "end" });
 * ```
 */
export class HttpMessageDecoder {
  readonly #request: boolean;
  readonly #limits: Readonly<Record<keyof HttpLimits, number>>;
  readonly #requestMethod: string;

  /** Unconsumed input is `#buf[#pos..#end]`. While a head is read, `#pos` stays at its first byte. */
  #buf: Uint8Array = EMPTY;
  #pos = 0;
  #end = 0;
  /** Whether `#buf` is ours to append to. */
  #owned = false;
  #fin = false;

  #state: State = "framing";
  #known = false;
  /** Where scanning goes on, from `#pos`: elements before it are complete. */
  #scan = 0;
  /** Start of the section being scanned, from `#pos`. */
  #sectionStart = 0;
  /** Declared length of that section; -1 in the indeterminate form, -2 before it is known. */
  #sectionLength = -2;
  /** Start and end of each complete string of the head or trailers, from `#pos`. */
  readonly #spans: number[] = [];
  /** How many of `#spans` belong to control data. */
  #controlSpans = 0;
  #status = 0;
  #informational = 0;

  #contentLength: number | undefined;
  #noContent = false;
  #received = 0;
  /** Rest of the current chunk (or of known-length content); -1 when a length is due. */
  #remaining = -1;
  #chunks = false;
  #padding = 0;
  #ended = false;
  #error: HtxError | undefined;
  #failedMethod: string | undefined;

  /** Makes a decoder for one message. */
  constructor(kind: "request" | "response", options: HttpDecoderOptions = {}) {
    this.#request = kind === "request";
    this.#limits = resolveLimits(options.limits);
    this.#requestMethod = options.requestMethod ?? "GET";
  }

  /** The error that `next()` threw, and throws again. */
  get error(): HtxError | undefined {
    return this.#error;
  }

  /** Of a request whose head failed: the method, if it had come. What answers a HEAD has no content, even then. */
  get failedMethod(): string | undefined {
    return this.#failedMethod;
  }

  /** Whether the whole message has been reported. */
  get ended(): boolean {
    return this.#ended;
  }

  /** The value of `content-length`, once the head was reported; `undefined` without that field. */
  get contentLength(): number | undefined {
    return this.#contentLength;
  }

  /** Takes the next bytes of the direction. */
  push(chunk: Uint8Array): void {
    if (this.#fin) throw new TypeError("Cannot push: the direction has ended");
    const rest = this.#end - this.#pos;
    if (rest === 0) {
      this.#buf = chunk;
      this.#pos = 0;
      this.#end = chunk.length;
      this.#owned = false;
      return;
    }
    this.#own(chunk.length);
    this.#buf.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** Says that the direction has ended: what was pushed is all there will be. */
  end(): void {
    this.#fin = true;
  }

  /**
   * The next event; `undefined` when more bytes (or `end()`) are needed, and after the last one.
   *
   * @throws {HtxError} `MALFORMED` or `LIMIT_EXCEEDED`, with the part at fault in `field`; again at each later call
   */
  next(): HttpEvent | undefined {
    if (this.#error !== undefined) throw this.#error;
    try {
      const event = this.#step();
      // Pushed bytes are only borrowed: what waits for more is kept on a buffer of our own.
      if (event === undefined && this.#pos < this.#end && !this.#owned) this.#own(0);
      return event;
    } catch (error) {
      this.#failedMethod = this.#scannedMethod();
      this.#state = "failed";
      this.#buf = EMPTY;
      this.#pos = this.#end = 0;
      this.#error = error instanceof HtxError ? error : malformedMessage("message", "unexpected failure");
      throw this.#error;
    }
  }

  /**
   * Takes what was pushed and not yet used. After a CONNECT head (or a 2xx answer to one) the direction is a
   * tunnel: these are its first bytes, and `next()` reports nothing more.
   */
  takeRemaining(): Uint8Array {
    const rest = this.#buf.subarray(this.#pos, this.#end);
    this.#buf = EMPTY;
    this.#pos = this.#end = 0;
    return rest;
  }

  /**
   * @internal Bytes of the last event on memory that is nobody else's, so that it may be transferred. They stand on what
   * was pushed, together with what is still to be decoded: whichever is less is copied.
   */
  _detach(data: Uint8Array): Uint8Array {
    const rest = this.#end - this.#pos;
    if (data.length <= rest) return data.slice();
    this.#buf = rest === 0 ? EMPTY : this.#buf.slice(this.#pos, this.#end);
    this.#pos = 0;
    this.#end = rest;
    this.#owned = rest > 0;
    return data;
  }

  /** Moves the unconsumed input to a buffer of our own with room for `more` bytes. */
  #own(more: number): void {
    const rest = this.#end - this.#pos;
    if (this.#owned && this.#end + more <= this.#buf.length) return;
    // Doubling keeps a message that comes a byte at a time linear. Never moved in place: events may be views.
    const buf = new Uint8Array(Math.max(256, 2 * (rest + more)));
    buf.set(this.#buf.subarray(this.#pos, this.#end));
    this.#buf = buf;
    this.#pos = 0;
    this.#end = rest;
    this.#owned = true;
  }

  /** Length in bytes of the varint last read by {@linkcode #varint}. */
  #varintLength = 0;

  /** The varint at `at`, or -1 when it is not all here. */
  #varint(at: number): number {
    if (at >= this.#end) return -1;
    const first = this.#buf[at]!;
    if (first < 0x40) {
      this.#varintLength = 1;
      return first;
    }
    const length = 1 << (first >>> 6);
    if (at + length > this.#end) return -1;
    this.#varintLength = length;
    if (length === 2) return ((first & 0x3f) << 8) | this.#buf[at + 1]!;
    return decodeVarint(this.#buf, at)!.value;
  }

  #step(): HttpEvent | undefined {
    for (;;) {
      switch (this.#state) {
        case "framing":
          if (!this.#framing()) return undefined;
          break;
        case "control":
          if (!(this.#request ? this.#requestControl() : this.#responseControl())) return undefined;
          break;
        case "fields": {
          if (!this.#section(this.#limits.headerBytes, "header section")) return undefined;
          const event = this.#head();
          if (event !== undefined) return event;
          break;
        }
        case "content": {
          const data = this.#content();
          if (data !== null) return data;
          break;
        }
        case "trailers": {
          if (!this.#section(this.#limits.trailerBytes, "trailer section")) return undefined;
          const fields = this.#takeFields(0, false).fields;
          this.#consume();
          this.#state = "padding";
          if (fields.length > 0) return { type: "trailers", fields };
          break;
        }
        case "padding":
          this.#zeros();
          if (this.#ended) return undefined;
          this.#ended = true;
          return END_EVENT;
        case "tunnel":
        case "failed":
          return undefined;
      }
    }
  }

  /** More input is needed to go on; malformed when there is none to come. */
  #more(what: string): false {
    if (this.#fin) throw malformedMessage("message", `it ends inside ${what}`);
    return false;
  }

  /** Drops what was scanned. */
  #consume(): void {
    this.#pos += this.#scan;
    this.#scan = 0;
    this.#spans.length = 0;
    this.#sectionLength = -2;
  }

  /** RFC 9292 §3.3. */
  #framing(): boolean {
    const indicator = this.#varint(this.#pos);
    if (indicator < 0) return this.#more("the framing indicator");
    const known = this.#request ? 0 : 1;
    if (indicator !== known && indicator !== known + 2) {
      throw malformedMessage("framing", "the framing indicator is not one of this kind of message");
    }
    this.#known = indicator === known;
    this.#pos += this.#varintLength;
    this.#state = "control";
    return true;
  }

  /** RFC 9292 §3.4. */
  #requestControl(): boolean {
    const limits = this.#limits;
    while (this.#spans.length < 8) {
      const part = REQUEST_CONTROL[this.#spans.length >> 1]!;
      const length = this.#varint(this.#pos + this.#scan);
      if (length < 0) return this.#more("the control data");
      const limit = part === "method"
        ? limits.methodBytes
        : part === "authority"
        ? limits.authorityBytes
        : part === "path"
        ? limits.pathBytes
        : 5; // "https"
      if (length > limit) {
        if (part === "scheme") throw malformedMessage("scheme", "the scheme is neither http nor https");
        throw oversizedMessage(part, limit);
      }
      const start = this.#scan + this.#varintLength;
      if (this.#pos + start + length > this.#end) return this.#more("the control data");
      this.#spans.push(start, start + length);
      this.#scan = start + length;
    }
    this.#controlSpans = 8;
    this.#state = "fields";
    return true;
  }

  /** RFC 9292 §3.5. */
  #responseControl(): boolean {
    const status = this.#varint(this.#pos + this.#scan);
    if (status < 0) return this.#more("the control data");
    if (status < 100 || status > 599) throw malformedMessage("status", "the status is not within 100..599");
    if (status === 101) throw malformedMessage("status", "101 has no meaning in a stream");
    if (status < 200 && ++this.#informational > this.#limits.informational) {
      throw oversizedMessage("informational", this.#limits.informational);
    }
    this.#status = status;
    this.#scan += this.#varintLength;
    this.#controlSpans = 0;
    this.#state = "fields";
    return true;
  }

  /** The method of a request whose head has not been reported. */
  #scannedMethod(): string | undefined {
    const [start, end] = this.#spans;
    const head = this.#state === "control" || this.#state === "fields";
    if (!this.#request || !head || start === undefined || end === undefined) return undefined;
    return latin1(this.#buf.subarray(this.#pos + start, this.#pos + end));
  }

  /** Scans a header or trailer section (RFC 9292 §3.6); true when all of it is here. */
  #section(byteLimit: number, what: "header section" | "trailer section"): boolean {
    const lineLimit = this.#limits.headerLines;
    if (this.#sectionLength === -2) {
      this.#sectionStart = this.#scan;
      if (!this.#known) {
        this.#sectionLength = -1;
      } else {
        const length = this.#varint(this.#pos + this.#scan);
        if (length < 0) return this.#truncated(what);
        if (length > byteLimit) throw oversizedMessage(what, byteLimit);
        this.#scan += this.#varintLength;
        this.#sectionStart = this.#scan;
        this.#sectionLength = length;
      }
    }
    const declaredEnd = this.#sectionLength < 0 ? -1 : this.#sectionStart + this.#sectionLength;
    for (;;) {
      if (this.#scan === declaredEnd) return true;
      const nameLength = this.#varint(this.#pos + this.#scan);
      if (nameLength < 0) return this.#truncated(what);
      const nameStart = this.#scan + this.#varintLength;
      if (nameLength === 0) {
        if (declaredEnd >= 0) throw malformedMessage(what, "a field name is empty");
        this.#scan = nameStart;
        return true;
      }
      if (this.#spans.length - this.#controlSpans >= 4 * lineLimit) throw oversizedMessage(what, lineLimit);
      const nameEnd = nameStart + nameLength;
      this.#inSection(nameEnd, declaredEnd, byteLimit, what);
      const valueLength = this.#varint(this.#pos + nameEnd);
      if (valueLength < 0) return this.#truncated(what);
      const valueStart = nameEnd + this.#varintLength;
      const valueEnd = valueStart + valueLength;
      this.#inSection(valueEnd, declaredEnd, byteLimit, what);
      if (this.#pos + valueEnd > this.#end) return this.#truncated(what);
      this.#spans.push(nameStart, nameEnd, valueStart, valueEnd);
      this.#scan = valueEnd;
    }
  }

  /** Holds the end of an element against the declared length and the limit of its section. */
  #inSection(at: number, declaredEnd: number, byteLimit: number, what: string): void {
    if (declaredEnd >= 0 && at > declaredEnd) {
      throw malformedMessage(what, `a field line runs past the ${what}`);
    }
    if (at - this.#sectionStart > byteLimit) throw oversizedMessage(what, byteLimit);
  }

  /** The section is not all here. An end before its first byte leaves it out (RFC 9292 §3.8). */
  #truncated(what: "header section" | "trailer section"): boolean {
    if (!this.#fin) return false;
    const final = what === "trailer section" || this.#request || this.#status >= 200;
    const nothing = this.#pos + this.#scan === this.#end && this.#scan === this.#sectionStart &&
      this.#spans.length === this.#controlSpans && this.#sectionLength < 0;
    if (final && nothing) return true;
    throw malformedMessage("message", `it ends inside the ${what}`);
  }

  /** Turns a scanned head into an event. */
  #head(): HttpEvent | undefined {
    return this.#request ? this.#requestHead() : this.#responseHead();
  }

  /** The scanned strings, each at its place, as one text of one character per byte. */
  #text(): string {
    const bytes = this.#buf.subarray(this.#pos, this.#pos + this.#scan);
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i]! >= 0x80) return this.#mixedText(bytes.slice());
    }
    return ascii.decode(bytes);
  }

  /** The same for bytes above 0x7F, which mostly stand in the lengths between the strings. */
  #mixedText(bytes: Uint8Array): string {
    const spans = this.#spans;
    let at = 0;
    for (let i = 0; i < spans.length; i += 2) {
      bytes.fill(0, at, spans[i]!);
      at = spans[i + 1]!;
    }
    bytes.fill(0, at);
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i]! >= 0x80) return latin1(bytes);
    }
    return ascii.decode(bytes);
  }

  #requestHead(): HttpEvent {
    const spans = this.#spans;
    const text = this.#text();
    const method = text.substring(spans[0]!, spans[1]!);
    const scheme = text.substring(spans[2]!, spans[3]!);
    let authority = text.substring(spans[4]!, spans[5]!);
    const path = text.substring(spans[6]!, spans[7]!);

    if (method === "") throw malformedMessage("method", "the method is empty");
    for (let i = 0; i < method.length; i++) {
      if (TOKEN[method.charCodeAt(i)] === 0) throw malformedMessage("method", "the method is not a token");
    }
    const connect = method === "CONNECT";
    const bare = connect && scheme === "" && path === "";
    if (scheme !== "https" && scheme !== "http" && !bare) {
      throw malformedMessage("scheme", "the scheme is neither http nor https");
    }
    if (!bare && !isPath(path, method)) {
      throw malformedMessage("path", "the path is not one of bytes 0x21..0x7E that begins with a slash");
    }

    const { fields, hosts, host } = this.#takeFields(8, connect, text);
    // HTX 1.1 §5: an empty authority is taken from a single host field; neither, or two that differ, is malformed.
    if (hosts > 1) throw malformedMessage("host", "there is more than one host field");
    if (authority === "") {
      if (hosts === 0 || host === "") throw malformedMessage("authority", "there is no authority");
      authority = host;
      if (authority.length > this.#limits.authorityBytes) {
        throw oversizedMessage("authority", this.#limits.authorityBytes);
      }
    } else if (hosts === 1 && host.toLowerCase() !== authority.toLowerCase()) {
      throw malformedMessage("host", "authority and host field differ");
    }
    if (!isAuthority(authority)) throw malformedMessage("authority", "the authority is not a host and port");

    this.#consume();
    const head: HttpRequestHead = { method, scheme, authority, path, fields };
    if (connect) {
      if (bare && isWebSocketRequest(head)) {
        throw malformedMessage("path", "a WebSocket needs scheme and path");
      }
      this.#state = "tunnel";
    } else {
      this.#state = "content";
    }
    return { type: "request", head };
  }

  #responseHead(): HttpEvent {
    const { fields } = this.#takeFields(0, false);
    this.#consume();
    const head: HttpResponseHead = { status: this.#status, fields };
    if (this.#status < 200) {
      this.#contentLength = undefined;
      this.#state = "control";
      return { type: "informational", head };
    }
    this.#noContent = hasNoContent(this.#status, this.#requestMethod);
    this.#state = opensTunnel(this.#status, this.#requestMethod) ? "tunnel" : "content";
    return { type: "response", head };
  }

  /** Validates the scanned lines and drops what is not carried (HTX 1.1 §5). */
  #takeFields(
    first: number,
    connect: boolean,
    text?: string,
  ): { fields: readonly HttpField[]; hosts: number; host: string } {
    const spans = this.#spans;
    const trailers = this.#state === "trailers";
    let hosts = 0;
    let host = "";
    if (spans.length === first) return { fields: NO_FIELDS, hosts, host };
    text ??= this.#text();
    const buf = this.#buf;
    const base = this.#pos;
    const fields: HttpField[] = [];
    let cookie = -1;
    let named: string[] | undefined;
    for (let i = first; i < spans.length; i += 4) {
      const nameStart = spans[i]!,
        nameEnd = spans[i + 1]!,
        valueStart = spans[i + 2]!,
        valueEnd = spans[i + 3]!;
      for (let at = base + nameStart; at < base + nameEnd; at++) {
        if (LOWER_TOKEN[buf[at]!] === 0) {
          throw malformedMessage("field name", "a field name is not a lower-case token");
        }
      }
      for (let at = base + valueStart; at < base + valueEnd; at++) {
        const c = buf[at]!;
        if (c === 0x00 || c === 0x0a || c === 0x0d) {
          throw malformedMessage("field value", "a field value has NUL, CR or LF");
        }
      }
      if (valueEnd > valueStart && (isBlank(buf[base + valueStart]!) || isBlank(buf[base + valueEnd - 1]!))) {
        throw malformedMessage("field value", "a field value has outer blanks");
      }
      const name = text.substring(nameStart, nameEnd);
      const value = text.substring(valueStart, valueEnd);
      switch (name) {
        case "host":
          if (this.#request && !trailers) {
            hosts++;
            host = value;
          }
          if (this.#request || trailers) continue;
          break;
        case "content-length":
          if (trailers) continue;
          this.#setContentLength(value, fields);
          continue;
        case "cookie":
          if (cookie >= 0) {
            fields[cookie] = ["cookie", `${fields[cookie]![1]}; ${value}`];
            continue;
          }
          cookie = fields.length;
          break;
        case "connection":
          (named ??= []).push(...connectionOptions(value));
          continue;
        default:
          if (!isCarried(name, value, connect)) continue;
      }
      fields.push([name, value]);
    }
    if (named !== undefined && named.length > 0) {
      const drop = new Set(named);
      // The one connection field with a meaning here is the CONNECT form's own.
      if (connect) drop.delete("upgrade");
      return { fields: fields.filter(([name]) => !drop.has(name)), hosts, host };
    }
    return { fields, hosts, host };
  }

  /** RFC 9110 §8.6: equal numbers are one, anything else is malformed. */
  #setContentLength(value: string, fields: HttpField[]): void {
    const length = parseContentLength(value);
    if (length === undefined) throw malformedMessage("content-length", "content-length is not a number");
    if (this.#contentLength === undefined) {
      this.#contentLength = length;
      fields.push(["content-length", String(length)]);
    } else if (this.#contentLength !== length) {
      throw malformedMessage("content-length", "there are two content-length fields that differ");
    }
  }

  /** Content (RFC 9292 §3.7): an event, `undefined` for more, or `null` to go on in another state. */
  #content(): HttpEvent | undefined | null {
    if (this.#remaining < 0) {
      const length = this.#varint(this.#pos);
      if (length < 0) {
        if (!this.#fin) return undefined;
        if (this.#pos < this.#end || this.#chunks) this.#more("the content");
        this.#contentEnd();
        return null;
      }
      this.#pos += this.#varintLength;
      if (length === 0) {
        this.#contentEnd();
        return null;
      }
      if (this.#noContent) throw malformedMessage("content", "this response has no content");
      const total = this.#received + length;
      if (!Number.isSafeInteger(total)) {
        throw malformedMessage("content", "the content is longer than 2^53-1");
      }
      const expected = this.#contentLength;
      if (expected !== undefined && (this.#known ? total !== expected : total > expected)) {
        throw malformedMessage("content-length", "the content is not as long as content-length says");
      }
      this.#chunks = true;
      this.#remaining = length;
    }
    const available = this.#end - this.#pos;
    if (available === 0) {
      if (this.#fin) this.#more("the content");
      return undefined;
    }
    const take = Math.min(available, this.#remaining);
    const data = this.#buf.subarray(this.#pos, this.#pos + take);
    this.#pos += take;
    this.#received += take;
    this.#remaining -= take;
    if (this.#remaining === 0) {
      if (this.#known) this.#contentEnd();
      else this.#remaining = -1;
    }
    return { type: "data", data };
  }

  #contentEnd(): void {
    const expected = this.#contentLength;
    // Responses to HEAD and 304 tell the length of what they leave out (RFC 9110 §8.6).
    const exempt = !this.#request && (this.#requestMethod === "HEAD" || this.#status === 304);
    if (expected !== undefined && expected !== this.#received && !exempt) {
      throw malformedMessage("content-length", "the content is not as long as content-length says");
    }
    this.#sectionStart = 0;
    this.#sectionLength = -2;
    this.#scan = 0;
    this.#controlSpans = 0;
    this.#state = "trailers";
  }

  /** RFC 9292 §3.8: zero bytes may follow the message. */
  #zeros(): void {
    for (let at = this.#pos; at < this.#end; at++) {
      if (this.#buf[at] !== 0) {
        throw malformedMessage("padding", "a byte other than zero follows the message");
      }
    }
    this.#padding += this.#end - this.#pos;
    this.#pos = this.#end;
    if (this.#padding > this.#limits.paddingBytes) {
      throw malformedMessage(
        "padding",
        `more than ${this.#limits.paddingBytes} bytes of padding follow the message`,
      );
    }
  }
}

/** One character per byte. */
function latin1(bytes: Uint8Array): string {
  let out = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    out += String.fromCharCode(...bytes.subarray(at, at + 4096));
  }
  return out;
}
