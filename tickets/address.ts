/**
 * IP addresses as rate limits see them: strictly parsed, grouped by network (HTX 1.1 §6).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Bytes, toHex } from "../core/mod.ts";

/** Bits of an IPv4 address that share a bucket. */
export const IPV4_BUCKET_BITS = 24;
/** Bits of an IPv6 address that share a bucket. */
export const IPV6_BUCKET_BITS = 56;
/** The one bucket of everything that is no IP address: a UNIX socket, a missing or forged field. */
export const UNKNOWN_BUCKET = "unknown";

const GROUP = /^[0-9A-Fa-f]{1,4}$/;
const OCTET = /^(?:0|[1-9][0-9]{0,2})$/;
const ZONE = /%[0-9A-Za-z._~-]+$/;

/**
 * The bytes of an IP address: 4 or 16, or `undefined` for any other text. No brackets, no port, no octal, no blanks; a
 * zone (`%eth0`) is allowed after IPv6 and dropped.
 *
 * @example Strict parsing
 * ```ts
 * import { parseIpAddress } from "@betanet/htx/tickets";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseIpAddress("192.0.2.1"), new Uint8Array([192, 0, 2, 1]));
 * assertEquals(parseIpAddress("192.0.2.01"), undefined);
 * ```
 */
export function parseIpAddress(text: string): Bytes | undefined {
  if (text.length > 128) return undefined;
  return text.includes(":") ? parseIpv6(text.replace(ZONE, "")) : parseIpv4(text);
}

/**
 * The rate-limit bucket of an address: its IPv4 /24 or IPv6 /56; an IPv4-mapped IPv6 address counts as IPv4.
 *
 * @param address text of an IP address; anything else, and `undefined`, share one bucket
 */
export function rateBucketOf(address: string | undefined): string {
  const bytes = address === undefined ? undefined : parseIpAddress(address);
  if (bytes === undefined) return UNKNOWN_BUCKET;
  const ipv4 = bytes.length === 4 ? bytes : isIpv4Mapped(bytes) ? bytes.subarray(12) : undefined;
  return ipv4 !== undefined
    ? `4:${toHex(ipv4.subarray(0, IPV4_BUCKET_BITS / 8))}`
    : `6:${toHex(bytes.subarray(0, IPV6_BUCKET_BITS / 8))}`;
}

function isIpv4Mapped(bytes: Uint8Array): boolean {
  return bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((byte) => byte === 0);
}

function parseIpv4(text: string): Bytes | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => OCTET.test(part) && Number(part) <= 255)) return undefined;
  return Uint8Array.from(parts, Number);
}

/** RFC 4291 §2.2: eight groups, one run of zeros as `::`, the last four bytes as IPv4 if wanted. */
function parseIpv6(text: string): Bytes | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 1 ? [] : parseGroups(halves[1]!, true);
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined; // `::` stands for one group at least
  const bytes = new Uint8Array(16);
  bytes.set(head);
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

function parseGroups(text: string, last: boolean): number[] | undefined {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (const [i, group] of groups.entries()) {
    if (last && i === groups.length - 1 && group.includes(".")) {
      const ipv4 = parseIpv4(group);
      if (ipv4 === undefined) return undefined;
      bytes.push(...ipv4);
    } else {
      if (!GROUP.test(group)) return undefined;
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    }
  }
  return bytes;
}
