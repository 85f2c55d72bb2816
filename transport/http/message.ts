/**
 * What an HTTP message is made of here: heads, fields, limits, and the errors of a message that does not parse
 * (HTX 1.1 §5, RFC 9292).
 *
 * Values are strings of bytes, as in `Headers`: each character is one byte (0x00..0xFF). Paths and authorities
 * are ASCII and carried byte for byte: nothing here runs them through a URL parser.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { HtxError } from "../../core/mod.ts";

/** A field line: a lower-case name and a value, one character per byte. */
export type HttpField = readonly [name: string, value: string];

/** The control data and header section of a request (RFC 9292 §3.4). */
export interface HttpRequestHead {
  /** The method, in the case it was sent. */
  readonly method: string;
  /** `http` or `https`; empty only in a CONNECT without a target URL. */
  readonly scheme: string;
  /** Host and optional port; never empty after decoding. When encoding, an empty one is filled from `host`. */
  readonly authority: string;
  /** Path and query as they stood in the request line, byte for byte; `*` for OPTIONS; empty only in CONNECT. */
  readonly path: string;
  /** Field lines in the order of the message. */
  readonly fields: readonly HttpField[];
}

/** The control data and header section of a response (RFC 9292 §3.5). */
export interface HttpResponseHead {
  /** 200..599, or 100..199 for an informational response. */
  readonly status: number;
  /** Field lines in the order of the message. */
  readonly fields: readonly HttpField[];
}

/** Bounds on a received message; each is checked before anything is buffered for it (HTX 1.1 §5). */
export interface HttpLimits {
  /** Bytes of a header section as encoded, its terminator aside. @default {65536} */
  headerBytes?: number | undefined;
  /** Field lines of a header section (or trailer section). @default {256} */
  headerLines?: number | undefined;
  /** Bytes of the trailer section as encoded. @default {16384} */
  trailerBytes?: number | undefined;
  /** Bytes of the method. @default {32} */
  methodBytes?: number | undefined;
  /** Bytes of the path with its query. @default {16384} */
  pathBytes?: number | undefined;
  /** Bytes of the authority: a 255-byte name, a colon, five digits. @default {261} */
  authorityBytes?: number | undefined;
  /** Zero bytes after the message. @default {65536} */
  paddingBytes?: number | undefined;
  /** Informational responses before the final one. @default {16} */
  informational?: number | undefined;
}

/** The limits of HTX 1.1 §5, which hold where {@linkcode HttpLimits} says nothing. */
export const DEFAULT_HTTP_LIMITS: Readonly<Record<keyof HttpLimits, number>> = /* @__PURE__ */ Object.freeze({
  headerBytes: 65536,
  headerLines: 256,
  trailerBytes: 16384,
  methodBytes: 32,
  pathBytes: 16384,
  authorityBytes: 261,
  paddingBytes: 65536,
  informational: 16,
});

/** Fills in the defaults. @throws {RangeError} when a limit is not a non-negative integer */
export function resolveLimits(limits: HttpLimits | undefined): Readonly<Record<keyof HttpLimits, number>> {
  if (limits === undefined) return DEFAULT_HTTP_LIMITS;
  const out: Record<keyof HttpLimits, number> = { ...DEFAULT_HTTP_LIMITS };
  for (const key of Object.keys(out) as (keyof HttpLimits)[]) {
    const value = limits[key];
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`Cannot use limit "${key}": ${value} is not a non-negative integer`);
    }
    out[key] = value;
  }
  return out;
}

/** A message that does not parse: code `MALFORMED`, the part at fault in `field`. */
export function malformedMessage(field: string, why: string): HtxError {
  return new HtxError("MALFORMED", `Cannot decode HTTP message: ${why}`, { field });
}

/** A message past a limit: code `LIMIT_EXCEEDED`, the limit's part in `field`. */
export function oversizedMessage(field: string, limit: number): HtxError {
  return new HtxError(
    "LIMIT_EXCEEDED",
    `Cannot decode HTTP message: ${field} is past the limit of ${limit}`,
    {
      field,
    },
  );
}

/**
 * The status that answers a request whose head failed to decode: 414 for a path or authority past its limit,
 * 431 for any other limit, 400 for what is malformed (HTX 1.1 §5).
 *
 * @example
 * ```ts
 * import { HttpMessageDecoder, httpStatusOf } from "@betanet/htx/transport";
 * import { HtxError } from "@betanet/htx/core";
 * import { assertEquals } from "@std/assert";
 *
 * const decoder = new HttpMessageDecoder("request");
 * decoder.push(new Uint8Array([9])); // no such framing indicator
 * try {
 *   decoder.next();
 * } catch (error) {
 *   assertEquals(httpStatusOf(error as HtxError), 400);
 * }
 * ```
 */
export function httpStatusOf(error: HtxError): 400 | 414 | 431 {
  if (error.code !== "LIMIT_EXCEEDED") return 400;
  return error.field === "path" || error.field === "authority" ? 414 : 431;
}

/** Whether a head asks for a WebSocket: CONNECT with the field `upgrade: websocket` (HTX 1.1 §5). */
export function isWebSocketRequest(head: HttpRequestHead): boolean {
  if (head.method !== "CONNECT") return false;
  for (const [name, value] of head.fields) {
    if (name.length === 7 && name === "upgrade" && value.toLowerCase() === "websocket") return true;
  }
  return false;
}

/** Whether what follows a final response with this status, to this method, is a tunnel and no content (RFC 9110 §9.3.6). */
export function opensTunnel(status: number, requestMethod: string): boolean {
  return requestMethod === "CONNECT" && status < 300;
}

/** Whether a response with this status, to this method, has no content whatever its fields say (RFC 9110 §6.4.1). */
export function hasNoContent(status: number, requestMethod: string): boolean {
  return status === 204 || status === 304 || requestMethod === "HEAD";
}
