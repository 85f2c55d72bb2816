/**
 * A request as the front received it, taken apart once: what goes upstream, what the gateway itself needs, what is
 * wrong with it. The path is taken as text and never goes through a URL parser.
 *
 * @module
 */

import { type ForwardingFields, isForwardingField } from "./forwarded.ts";
import type { FrontInfo } from "./front.ts";

/** Why a request cannot be carried, with the status that says so. */
export interface RequestFault {
  /** The status. */
  readonly status: 400 | 414 | 431 | 501;
  /** A few words for the client. */
  readonly why: string;
}

/** A request taken apart. */
export interface ParsedRequest {
  readonly method: string;
  /** Host and port as asked for. */
  readonly authority: string;
  /** Path and query byte for byte. */
  readonly path: string;
  /** The fields that go upstream, without cookies and what speaks of the connection or of where it came from. */
  readonly fields: [string, string][];
  /** The `cookie` lines. */
  readonly cookies: readonly string[];
  readonly contentLength: string | undefined;
  readonly contentType: string | undefined;
  readonly contentEncoding: string | undefined;
  readonly transferEncoding: string | undefined;
  readonly forwarding: ForwardingFields | undefined;
  readonly requestId: string | undefined;
  /** Whether the client asks for a WebSocket in the HTTP/1.1 way. */
  readonly webSocket: boolean;
  readonly fault: RequestFault | undefined;
}

/** Bytes of a path (HTX 1.1 §5). */
export const MAX_PATH_BYTES = 16_384;

const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]{0,5})?$/;

/**
 * Path without query and fragment: what may stand in a log. Deno's server takes any UTF-8 in a request line, with what
 * steers terminals and breaks lines: all but visible ASCII is escaped.
 */
export function pathOf(path: string): string {
  const mark = path.search(/[?#]/);
  const shown = mark < 0 ? path : path.slice(0, mark);
  return /[^\x21-\x7e]/.test(shown)
    ? shown.toWellFormed().replace(/[^\x21-\x7e]+/g, encodeURIComponent)
    : shown;
}

/** Takes a request apart. Never throws. */
export function parseRequest(request: Request, info: FrontInfo, headerBytes: number): ParsedRequest {
  const { method, url } = request;
  const parsed = new Parsed(method, info.requestTrailers !== undefined);
  if (info.fields !== undefined) {
    for (const [name, value] of info.fields) parsed.take(name, value);
  } else {
    request.headers.forEach((value, name) => parsed.take(name, value));
  }
  parsed.setTarget(url, info.target);
  parsed.judge(headerBytes);
  return parsed;
}

class Parsed implements ParsedRequest {
  readonly method: string;
  authority = "";
  path = "/";
  fields: [string, string][] = [];
  cookies: string[] = [];
  contentLength: string | undefined;
  contentType: string | undefined;
  contentEncoding: string | undefined;
  transferEncoding: string | undefined;
  forwarding: ForwardingFields | undefined;
  requestId: string | undefined;
  webSocket = false;
  fault: RequestFault | undefined;
  #bytes = 0;
  #host: string | undefined;
  #hosts = 0;
  #connection: string | undefined;
  #upgrade: string | undefined;

  readonly #trailers: boolean;

  constructor(method: string, trailers: boolean) {
    this.method = method;
    this.#trailers = trailers;
  }

  take(name: string, value: string): void {
    this.#bytes += name.length + value.length + 4;
    switch (name) {
      case "host":
        if (this.#host !== undefined) this.#hosts++;
        this.#host = value;
        return;
      case "cookie":
        this.cookies.push(value);
        return;
      case "connection":
        this.#connection = this.#connection === undefined ? value : `${this.#connection},${value}`;
        return;
      case "upgrade":
        this.#upgrade = value;
        return;
      case "transfer-encoding":
        this.transferEncoding = joined(this.transferEncoding, value);
        return;
      case "keep-alive":
      case "proxy-connection":
      case "proxy-authorization":
      case "http2-settings":
      case "expect": // answered by the front
        return;
      case "te":
        if (/(?:^|,)\s*trailers\s*(?:,|$)/i.test(value)) this.fields.push(["te", "trailers"]);
        return;
      case "trailer":
        if (!this.#trailers) return; // the front drops them
        break;
      case "content-length":
        this.contentLength = value;
        break;
      case "content-type":
        this.contentType = joined(this.contentType, value);
        break;
      case "content-encoding":
        this.contentEncoding = joined(this.contentEncoding, value);
        break;
      case "x-request-id":
        this.requestId = value;
        return;
      case "forwarded":
        (this.forwarding ??= {}).forwarded = joined(this.forwarding.forwarded, value);
        return;
      case "x-forwarded-for":
        (this.forwarding ??= {}).for = joined(this.forwarding.for, value);
        return;
      case "x-forwarded-proto":
        (this.forwarding ??= {}).proto = joined(this.forwarding.proto, value);
        return;
      case "x-forwarded-host":
        (this.forwarding ??= {}).host = joined(this.forwarding.host, value);
        return;
      default:
        if (isForwardingField(name)) return;
    }
    this.fields.push([name, value]);
  }

  setTarget(url: string, target: string | undefined): void {
    const start = url.indexOf("://") + 3;
    const host = this.#host;
    // A Host that holds a slash would otherwise move the border between authority and path.
    if (host !== undefined && target === undefined && host.length > 0 && url.startsWith(host, start)) {
      this.authority = host;
      this.path = url.slice(start + host.length);
    } else {
      let end = start;
      for (; end < url.length; end++) {
        const c = url.charCodeAt(end);
        if (c === 0x2f || c === 0x3f || c === 0x23) break;
      }
      this.authority = url.slice(start, end);
      this.path = url.slice(end);
    }
    if (target !== undefined) {
      if (target.startsWith("/") || target === "*") {
        this.path = target;
        this.authority = host ?? this.authority;
      } else {
        const absolute = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target);
        this.authority = absolute?.[1] ?? this.authority;
        this.path = absolute?.[2] ?? target;
      }
    }
    if (this.path === "" || this.path.charCodeAt(0) === 0x3f) this.path = `/${this.path}`;
    // `OPTIONS *` reaches Deno's handlers as a path of its own.
    if (this.method === "OPTIONS" && this.path === "/*" && target === undefined) this.path = "*";
  }

  judge(headerBytes: number): void {
    const { method, path } = this;
    const upgrade = this.#upgrade?.toLowerCase();
    if (this.#connection !== undefined) {
      const named = new Set(this.#connection.toLowerCase().split(",").map((name) => name.trim()));
      this.webSocket = upgrade === "websocket" && named.has("upgrade") && method === "GET";
      if (this.fields.some(([name]) => named.has(name))) {
        this.fields = this.fields.filter(([name]) => !named.has(name));
        if (named.has("content-length")) {
          this.fault = { status: 400, why: "content-length is no connection option" };
        }
      }
      if (named.has("cookie")) this.cookies = [];
    }
    if (method === "CONNECT" || method === "TRACE") {
      this.fault = { status: 501, why: `${method} is not offered here` };
    } else if (this.#hosts > 0 || !AUTHORITY.test(this.authority) || this.authority.length > 261) {
      this.fault = { status: 400, why: "the host is not valid" };
    } else if (path.length > MAX_PATH_BYTES) {
      this.fault = { status: 414, why: "the path is too long" };
    } else if (!isCarriedPath(path, method)) {
      this.fault = { status: 400, why: "the path is not valid" };
    } else if (
      (method === "GET" || method === "HEAD") &&
      (this.transferEncoding !== undefined ||
        (this.contentLength !== undefined && !/^0+$/.test(this.contentLength)))
    ) {
      this.fault = { status: 400, why: `${method} with a body` };
    } else if (
      this.transferEncoding !== undefined && this.transferEncoding.trim().toLowerCase() !== "chunked"
    ) {
      this.fault = { status: 501, why: "the transfer coding is not known" };
    } else if (this.#bytes > headerBytes) {
      this.fault = { status: 431, why: "the header fields are too large" };
    }
  }
}

function joined(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before}, ${value}`;
}

/** HTX 1.1 §5: a slash, then bytes 0x21..0x7E without a fragment; or `*` with OPTIONS. */
function isCarriedPath(path: string, method: string): boolean {
  if (path.charCodeAt(0) !== 0x2f) return path === "*" && method === "OPTIONS";
  for (let i = 1; i < path.length; i++) {
    const c = path.charCodeAt(i);
    if (c < 0x21 || c > 0x7e || c === 0x23) return false;
  }
  return true;
}
