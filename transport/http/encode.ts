/**
 * The encoding side of RFC 9292 in its indeterminate-length form: heads, chunks, endings. Sans-IO.
 *
 * Names are lower-cased, connection fields and those that `connection` names are left out, `host` becomes the
 * authority, several `cookie` lines become one (HTX 1.1 §5). A value that could not be read back as it is
 * (CR, LF, NUL, a character above 0xFF) is refused with a `TypeError`: nothing of a message can imitate another.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { trimBlanks } from "../../core/_blanks.ts";
import { type Bytes, varintLength, writeVarint } from "../../core/mod.ts";
import {
  connectionOptions,
  isAuthority,
  isCarried,
  isPath,
  parseContentLength,
  TO_LOWER_TOKEN,
  TOKEN,
} from "./_grammar.ts";
import {
  type HttpField,
  type HttpRequestHead,
  type HttpResponseHead,
  isWebSocketRequest,
} from "./message.ts";

const INDETERMINATE_REQUEST = 2;
const INDETERMINATE_RESPONSE = 3;

/**
 * Where messages are put together, one behind the other: what is being written is `slab[from..at]`. A message that
 * has been taken is never written over, so that it may be handed out without a copy.
 */
let slab: Bytes | undefined;
let from = 0;
let at = 0;

const SLAB_BYTES = 16_384;

/** Room for `length` more bytes at `at`. */
function reserve(length: number): Bytes {
  if (slab !== undefined && at + length <= slab.length) return slab;
  const begun = at - from;
  const next = new Uint8Array(Math.max(SLAB_BYTES, 2 * (begun + length)));
  if (slab !== undefined) next.set(slab.subarray(from, at));
  slab = next;
  from = 0;
  at = begun;
  return slab;
}

function begin(): void {
  at = from;
}

/** What was written, as a view of memory that other messages share. */
function take(): Bytes {
  const out = reserve(0).subarray(from, at);
  from = at;
  return out;
}

function putVarint(value: number): void {
  const into = reserve(8); // first: it may move `at`
  at += writeVarint(value, into, at);
}

function putAscii(text: string): void {
  putVarint(text.length);
  const into = reserve(text.length);
  for (let i = 0; i < text.length; i++) into[at + i] = text.charCodeAt(i);
  at += text.length;
}

function putBytes(data: Uint8Array): void {
  reserve(data.length).set(data, at);
  at += data.length;
}

/** The name in lower case. @throws {TypeError} when it is not a token */
function fieldName(name: string): string {
  let upper = false;
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    const lower = c < 256 ? TO_LOWER_TOKEN[c]! : 0;
    if (lower === 0) throw new TypeError("Cannot encode field: its name is not a token");
    if (lower !== c) upper = true;
  }
  if (name === "") throw new TypeError("Cannot encode field: its name is empty");
  return upper ? name.toLowerCase() : name;
}

/** The value without outer blanks. @throws {TypeError} when it has NUL, CR, LF or a character above 0xFF */
function putValue(name: string, value: string): void {
  const text = trimBlanks(value);
  putVarint(text.length);
  const into = reserve(text.length);
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x00 || c === 0x0a || c === 0x0d || c > 0xff) {
      throw new TypeError(
        `Cannot encode field "${name}": its value has NUL, CR, LF or a character above 0xFF`,
      );
    }
    into[at++] = c;
  }
}

/** What of the fields is left out, or stands elsewhere. */
interface FieldRules {
  readonly webSocket: boolean;
  readonly request: boolean;
  readonly trailers: boolean;
  readonly contentLength: boolean;
}

const RESPONSE_RULES: FieldRules = /* @__PURE__ */ Object.freeze({
  webSocket: false,
  request: false,
  trailers: false,
  contentLength: true,
});
const BARE_RESPONSE_RULES: FieldRules = /* @__PURE__ */ Object.freeze({
  ...RESPONSE_RULES,
  contentLength: false,
});
const REQUEST_RULES: FieldRules = /* @__PURE__ */ Object.freeze({ ...RESPONSE_RULES, request: true });
const WEBSOCKET_RULES: FieldRules = /* @__PURE__ */ Object.freeze({ ...REQUEST_RULES, webSocket: true });
const TRAILER_RULES: FieldRules = /* @__PURE__ */ Object.freeze({
  ...RESPONSE_RULES,
  trailers: true,
  contentLength: false,
});

/** Field lines and the terminator of their section. */
function putFields(fields: readonly HttpField[], rules: FieldRules): void {
  let named: Set<string> | undefined;
  let cookies = 0;
  let length: number | undefined;
  for (const [name, value] of fields) {
    if (name.length === 10 && name.toLowerCase() === "connection") {
      named ??= new Set();
      for (const option of connectionOptions(value)) named.add(option);
    } else if (name.length === 6 && rules.request && name.toLowerCase() === "cookie") {
      cookies++;
    }
  }
  if (rules.webSocket) named?.delete("upgrade");
  for (const [given, value] of fields) {
    const name = fieldName(given);
    if (!isCarried(name, value, rules.webSocket) || (named !== undefined && named.has(name))) continue;
    if (name === "host" && (rules.request || rules.trailers)) continue;
    if (name === "content-length") {
      if (!rules.contentLength) continue;
      const one = parseContentLength(value);
      if (one === undefined || (length !== undefined && one !== length)) {
        throw new TypeError("Cannot encode field: content-length is not one number");
      }
      if (length === undefined) {
        putAscii(name);
        putAscii(String(one));
      }
      length = one;
      continue;
    }
    if (name === "cookie" && cookies > 1) {
      if (cookies === Infinity) continue;
      cookies = Infinity;
      const all = fields.filter(([other]) => other.toLowerCase() === "cookie")
        .map(([, one]) => trimBlanks(one));
      putAscii(name);
      putValue(name, all.join("; "));
      continue;
    }
    putAscii(name);
    putValue(name, value);
  }
  reserve(1)[at++] = 0;
}

/** The only `host` field's value. */
function hostField(fields: readonly HttpField[]): string | undefined {
  for (const [name, value] of fields) {
    if (name.length === 4 && name.toLowerCase() === "host") return trimBlanks(value);
  }
  return undefined;
}

function putRequestHead(head: HttpRequestHead): void {
  const { method, scheme, path, fields } = head;
  if (method === "") throw new TypeError("Cannot encode request: the method is empty");
  for (let i = 0; i < method.length; i++) {
    const c = method.charCodeAt(i);
    if (c > 0xff || TOKEN[c] === 0) throw new TypeError("Cannot encode request: the method is not a token");
  }
  const webSocket = isWebSocketRequest(head);
  const bare = method === "CONNECT" && scheme === "" && path === "" && !webSocket;
  if (!bare) {
    if (scheme !== "https" && scheme !== "http") {
      throw new TypeError("Cannot encode request: the scheme is neither http nor https");
    }
    if (!isPath(path, method)) {
      throw new TypeError(
        "Cannot encode request: the path is not one of bytes 0x21..0x7E that begins with a slash",
      );
    }
  }
  const authority = head.authority === "" ? hostField(fields) ?? "" : head.authority;
  if (!isAuthority(authority)) {
    throw new TypeError("Cannot encode request: the authority is not a host and port");
  }
  reserve(1)[at++] = INDETERMINATE_REQUEST;
  putAscii(method);
  putAscii(scheme);
  putAscii(authority);
  putAscii(path);
  putFields(fields, webSocket ? WEBSOCKET_RULES : REQUEST_RULES);
}

function putResponseHead(head: HttpResponseHead): void {
  const { status, fields } = head;
  if (!Number.isInteger(status) || status < 100 || status > 599 || status === 101) {
    throw new TypeError(`Cannot encode response: ${status} is not a status that can be sent`);
  }
  putVarint(status);
  // RFC 9110 §8.6: no content-length in 1xx and 204.
  putFields(fields, status < 200 || status === 204 ? BARE_RESPONSE_RULES : RESPONSE_RULES);
}

function putChunk(data: Uint8Array): void {
  if (data.length === 0) return;
  putVarint(data.length);
  putBytes(data);
}

function putEnd(trailers: readonly HttpField[] | undefined): void {
  reserve(1)[at++] = 0;
  if (trailers === undefined || trailers.length === 0) reserve(1)[at++] = 0;
  else putFields(trailers, TRAILER_RULES);
}

/** What {@linkcode encodeHttpRequest} and {@linkcode encodeHttpResponse} add to a head. */
export interface HttpMessageRest {
  /** The whole content. With it (even empty) or `trailers` the message is complete; else only the head is encoded. */
  content?: Uint8Array;
  /** The trailer section. */
  trailers?: readonly HttpField[];
}

function finish(rest: HttpMessageRest & { announce?: number }): Bytes {
  if (rest.announce !== undefined) putVarint(rest.announce);
  if (rest.content !== undefined) putChunk(rest.content);
  if (rest.content !== undefined || rest.trailers !== undefined) putEnd(rest.trailers);
  return take();
}

/** Which head, as the functions below take it. */
export type AnyHead =
  | { readonly request: HttpRequestHead }
  | { readonly response: HttpResponseHead; readonly continued: boolean };

/**
 * {@linkcode encodeHttpRequest} and {@linkcode encodeHttpResponse} as a view of shared memory, to be written at once.
 * `announce` is the length of a first chunk whose bytes are written by the caller.
 */
export function encodeShared(head: AnyHead, rest: HttpMessageRest & { announce?: number }): Bytes {
  begin();
  if ("request" in head) {
    putRequestHead(head.request);
  } else {
    if (!head.continued) reserve(1)[at++] = INDETERMINATE_RESPONSE;
    putResponseHead(head.response);
  }
  return finish(rest);
}

/**
 * Framing indicator, control data and header section of a request; the rest of it too when `rest` says so.
 *
 * @throws {TypeError} when a part cannot be carried
 *
 * @example
 * ```ts
 * import { encodeHttpRequest } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 * import { encodeHex } from "@std/encoding/hex";
 *
 * const bytes = encodeHttpRequest(
 *   { method: "GET", scheme: "https", authority: "a", path: "/", fields: [["x", "1"]] },
 *   { content: new Uint8Array(0) },
 * );
 * assertEquals(encodeHex(bytes), "0203474554056874747073" + "0161" + "012f" + "01780131" + "00" + "00" + "00");
 * ```
 */
export function encodeHttpRequest(head: HttpRequestHead, rest: HttpMessageRest = {}): Bytes {
  return encodeShared({ request: head }, rest).slice();
}

/**
 * Framing indicator, status and header section of a response; the rest of it too when `rest` says so.
 * `continued` leaves out the framing indicator: informational responses went before.
 *
 * @throws {TypeError} when a part cannot be carried
 */
export function encodeHttpResponse(
  head: HttpResponseHead,
  rest: HttpMessageRest & {
    /** Whether an informational response of the same message went before. @default {false} */
    continued?: boolean;
  } = {},
): Bytes {
  return encodeShared({ response: head, continued: rest.continued ?? false }, rest).slice();
}

/** The length that goes before a chunk of `length` bytes, which is at least 1. */
export function encodeHttpChunkHeader(length: number): Bytes {
  if (length === 0) throw new RangeError("Cannot encode chunk: an empty one would end the content");
  begin();
  putVarint(length);
  return take().slice();
}

/** A whole chunk, copied behind its length; nothing for no data. */
export function encodeHttpChunk(data: Uint8Array): Bytes {
  begin();
  reserve(varintLength(data.length) + data.length);
  putChunk(data);
  return take().slice();
}

/** What ends the content and the message: two terminators, with the trailer lines between them. */
export function encodeHttpEnd(trailers?: readonly HttpField[]): Bytes {
  begin();
  putEnd(trailers);
  return take().slice();
}
