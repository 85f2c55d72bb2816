/**
 * The character classes of HTTP (RFC 9110 §5.6.2, §5.5) as tables and tests, shared by encoder and decoder.
 *
 * @module
 */

import { trimBlanks } from "../../core/_blanks.ts";

/** Characters of a token other than letters and digits. */
const TCHAR = "!#$%&'*+-.^_`|~";

function tokenTable(upperTo: "same" | "lower" | "none"): Uint8Array {
  const table = new Uint8Array(256);
  for (const c of TCHAR) table[c.charCodeAt(0)] = c.charCodeAt(0);
  for (let c = 0x30; c <= 0x39; c++) table[c] = c;
  for (let c = 0x61; c <= 0x7a; c++) table[c] = c;
  for (let c = 0x41; c <= 0x5a; c++) {
    if (upperTo !== "none") table[c] = upperTo === "lower" ? c + 0x20 : c;
  }
  return table;
}

/** Token characters, both cases: nonzero where allowed. */
export const TOKEN: Uint8Array = /* @__PURE__ */ tokenTable("same");
/** Token characters without upper case: nonzero where allowed. */
export const LOWER_TOKEN: Uint8Array = /* @__PURE__ */ tokenTable("none");
/** Token characters mapped to lower case; zero where not allowed. */
export const TO_LOWER_TOKEN: Uint8Array = /* @__PURE__ */ tokenTable("lower");

/** RFC 3986 §3.2 without userinfo: a registered name or IPv4 address, or a bracketed IPv6 address; a port. */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]{0,5})?$/;

/** Whether the text is `host` or `host:port`, with no user information. */
export function isAuthority(text: string): boolean {
  return AUTHORITY.test(text);
}

/**
 * Whether the path may be carried: `/` and bytes 0x21..0x7E without a fragment, or `*` with OPTIONS
 * (HTX 1.1 §5).
 */
export function isPath(path: string, method: string): boolean {
  if (path.charCodeAt(0) !== 0x2f) return path === "*" && method === "OPTIONS";
  for (let i = 1; i < path.length; i++) {
    const c = path.charCodeAt(i);
    if (c < 0x21 || c > 0x7e || c === 0x23) return false;
  }
  return true;
}

/** The value of `content-length`: one or more equal decimal numbers; `undefined` when it is anything else. */
export function parseContentLength(value: string): number | undefined {
  if (/^[0-9]{1,16}$/.test(value)) {
    const length = Number(value);
    return Number.isSafeInteger(length) ? length : undefined;
  }
  // RFC 9110 §8.6: a list of equal numbers may be taken as the one number.
  if (!value.includes(",")) return undefined;
  let length: number | undefined;
  for (const part of value.split(",")) {
    const text = trimBlanks(part);
    const one = /^[0-9]{1,16}$/.test(text) ? Number(text) : NaN;
    if (!Number.isSafeInteger(one) || (length !== undefined && one !== length)) return undefined;
    length = one;
  }
  return length;
}

/**
 * Whether a field belongs to one connection and is not carried (RFC 9110 §7.6.1, HTX 1.1 §5). `upgrade` and `te`
 * have rules of their own; see {@linkcode isCarried}.
 */
export function isCarried(name: string, value: string, webSocket: boolean): boolean {
  switch (name) {
    case "connection":
    case "proxy-connection":
    case "keep-alive":
    case "transfer-encoding":
      return false;
    case "te":
      return value.toLowerCase() === "trailers";
    case "upgrade":
      return webSocket && value.toLowerCase() === "websocket";
    default:
      return true;
  }
}

/** The field names that a `connection` value lists, in lower case. */
export function connectionOptions(value: string): string[] {
  return value.toLowerCase().split(",").map((part) => part.trim()).filter((part) => part !== "");
}
