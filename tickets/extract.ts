/**
 * Finds the tickets of a request and takes them out (HTX 1.1 §6). Works on the text as it came over the wire, never on
 * parsed URLs, so that what is not a ticket stays byte for byte.
 *
 * Names are compared after percent-decoding; values are taken as sent. Every occurrence counts, over all carriers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Bytes } from "../core/mod.ts";
import { trimBlanks } from "../core/_blanks.ts";
import { DEFAULT_TICKET_COOKIE, TICKET_PARAMETER, type TicketCarrier } from "./policy.ts";

/** Most bytes of a form that may carry a ticket (§6). */
export const MAX_TICKET_BODY_LENGTH = 16 * 1024;

const FORM_TYPE = "application/x-www-form-urlencoded";

/** A ticket as it stood in a request. */
export interface FoundTicket {
  /** Where it stood. */
  readonly carrier: TicketCarrier;
  /** Its text as sent: anything at all, verified by nobody yet. */
  readonly text: string;
}

/** What one part of a request held, and what remains of it. */
export interface Taken<Rest> {
  /** The values found, in order. */
  readonly values: readonly string[];
  /** The part without them, byte for byte; the very same value when there were none. */
  readonly rest: Rest;
}

/** The parts of a request that may hold a ticket, as they came over the wire. */
export interface TicketRequestParts {
  /** Path and query: the request target in origin form. */
  readonly target: string;
  /** The `cookie` lines, in order. @default {[]} */
  readonly cookies?: readonly string[] | undefined;
  /**
   * The whole body, only where {@linkcode mayCarryTicket} said that it may hold a ticket.
   *
   * @default {undefined}
   */
  readonly form?: Uint8Array | undefined;
}

/** A request's tickets, and the request without them. */
export interface ExtractedTickets {
  /** Every occurrence over all carriers; the request is to be refused unless there is exactly one. */
  readonly tickets: readonly FoundTicket[];
  /** The request target without them. */
  readonly target: string;
  /** The `cookie` lines without them; a line that held nothing else is gone. */
  readonly cookies: readonly string[];
  /** The body without them: its `content-length` changes with it. */
  readonly form: Uint8Array | undefined;
}

/**
 * Finds every ticket of a request and removes it, in whatever spelling its name is.
 *
 * @param parts see {@linkcode TicketRequestParts}
 * @param cookieName name of the ticket's cookie, {@linkcode TicketPolicy.cookie}
 *
 * @example A ticket in the query
 * ```ts
 * import { extractTickets } from "@betanet/htx/tickets";
 * import { assertEquals } from "@std/assert";
 *
 * const found = extractTickets({ target: "/a/../b?x=%31&%62n1=TEXT&y", cookies: ["k=v"] });
 * assertEquals(found.tickets, [{ carrier: "query", text: "TEXT" }]);
 * assertEquals(found.target, "/a/../b?x=%31&y");
 * ```
 */
export function extractTickets(
  parts: TicketRequestParts,
  cookieName: string = DEFAULT_TICKET_COOKIE,
): ExtractedTickets {
  const tickets: FoundTicket[] = [];
  const cookies: string[] = [];
  for (const line of parts.cookies ?? []) {
    const { values, rest } = takeFromCookies(line, cookieName);
    for (const text of values) tickets.push({ carrier: "cookie", text });
    if (rest !== undefined) cookies.push(rest);
  }
  const query = takeFromTarget(parts.target, TICKET_PARAMETER);
  for (const text of query.values) tickets.push({ carrier: "query", text });
  let form = parts.form;
  if (form !== undefined) {
    const taken = takeFromForm(form, TICKET_PARAMETER);
    for (const text of taken.values) tickets.push({ carrier: "body", text });
    form = taken.rest;
  }
  return { tickets, target: query.rest, cookies, form };
}

/** The fields of a request that say whether its body may hold a ticket; `null` and `undefined` are absence. */
export interface TicketBodyFields {
  /** The request's method. */
  readonly method: string;
  /** The `content-type` field. */
  readonly contentType?: string | null | undefined;
  /** The `content-length` field. */
  readonly contentLength?: string | null | undefined;
  /** The `content-encoding` field. */
  readonly contentEncoding?: string | null | undefined;
  /** The `transfer-encoding` field. */
  readonly transferEncoding?: string | null | undefined;
}

/**
 * Whether a body has to be read because it may hold a ticket: a POST of a form with a `content-length` of at most
 * 16 KiB. Any other body carries none and streams through.
 *
 * @example Two uploads
 * ```ts
 * import { mayCarryTicket } from "@betanet/htx/tickets";
 * import { assert } from "@std/assert";
 *
 * const form = "application/x-www-form-urlencoded";
 * assert(mayCarryTicket({ method: "POST", contentType: form, contentLength: "300" }));
 * assert(!mayCarryTicket({ method: "POST", contentType: form, contentLength: "16385" }));
 * ```
 */
export function mayCarryTicket(fields: TicketBodyFields): boolean {
  const { method, contentType, contentLength, contentEncoding, transferEncoding } = fields;
  if (method !== "POST") return false;
  if (contentType?.split(";", 1)[0]?.trim().toLowerCase() !== FORM_TYPE) return false;
  if (transferEncoding !== undefined && transferEncoding !== null) return false;
  const coding = contentEncoding?.trim().toLowerCase() ?? "";
  if (coding !== "" && coding !== "identity") return false; // compressed bytes are not the form
  return /^[0-9]+$/.test(contentLength ?? "") && Number(contentLength) <= MAX_TICKET_BODY_LENGTH;
}

/**
 * Takes every cookie of a name out of one `cookie` line.
 *
 * @param line the value of the field
 * @param name compared after percent-decoding both
 * @returns `rest` is `undefined` when the line held nothing else
 */
export function takeFromCookies(line: string, name: string): Taken<string | undefined> {
  const wanted = percentDecode(name);
  const values: string[] = [];
  const rest: string[] = [];
  for (const pair of line.split(";")) {
    const [found, value] = splitPair(pair);
    if (percentDecode(trimBlanks(found)) === wanted) values.push(value);
    else rest.push(pair);
  }
  if (values.length === 0) return { values, rest: line };
  const kept = rest.join(";").replace(/^[ \t]+/, ""); // the blank that stood after the removed pair's semicolon
  return { values, rest: kept === "" ? undefined : kept };
}

/** The values of a cookie in one `cookie` line, where its name is spelled as browsers spell it. */
export function literalCookies(line: string, name: string): string[] {
  return line.split(";").map(splitPair).filter(([found]) => trimBlanks(found) === name).map(([, value]) =>
    value
  );
}

/** Takes every query parameter of a name out of a request target; a query of nothing else goes with its `?`. */
export function takeFromTarget(target: string, name: string): Taken<string> {
  const mark = target.indexOf("?");
  if (mark < 0) return { values: [], rest: target };
  const { values, rest } = takeFromPairs(target.slice(mark + 1), name);
  if (values.length === 0) return { values, rest: target };
  return { values, rest: rest === undefined ? target.slice(0, mark) : `${target.slice(0, mark + 1)}${rest}` };
}

/** Takes every field of a name out of an `application/x-www-form-urlencoded` body. */
export function takeFromForm(body: Uint8Array, name: string): Taken<Uint8Array> {
  let text = "";
  for (const byte of body) text += String.fromCharCode(byte); // one character per byte, back again below
  const { values, rest } = takeFromPairs(text, name);
  if (values.length === 0) return { values, rest: body };
  return { values, rest: latin1(rest ?? "") };
}

function takeFromPairs(text: string, name: string): Taken<string | undefined> {
  const values: string[] = [];
  const rest: string[] = [];
  for (const pair of text.split("&")) {
    const [found, value] = splitPair(pair);
    if (percentDecode(found) === name) values.push(value);
    else rest.push(pair);
  }
  return { values, rest: rest.length === 0 ? undefined : rest.join("&") };
}

function splitPair(pair: string): [name: string, value: string] {
  const equals = pair.indexOf("=");
  return equals < 0 ? [pair, ""] : [pair.slice(0, equals), pair.slice(equals + 1)];
}

/** One pass, byte by byte; what is no escape stays as it is. Names of interest are ASCII, so bytes are characters. */
function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  return text.replace(
    /%([0-9A-Fa-f]{2})/g,
    (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function latin1(text: string): Bytes {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}
