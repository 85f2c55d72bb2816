/**
 * IP addresses as rate limits see them: strictly parsed, grouped by network (HTX 1.1 §6).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ipv4Of, parseIpAddress as parse } from "../core/_ip_address.ts";
import { type Bytes, toHex } from "../core/mod.ts";

/** Bits of an IPv4 address that share a bucket. */
export const IPV4_BUCKET_BITS = 24;
/** Bits of an IPv6 address that share a bucket. */
export const IPV6_BUCKET_BITS = 56;
/** The one bucket of everything that is no IP address: a UNIX socket, a missing or forged field. */
export const UNKNOWN_BUCKET = "unknown";

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
  return parse(text);
}

/**
 * The rate-limit bucket of an address: its IPv4 /24 or IPv6 /56; an IPv4-mapped IPv6 address counts as IPv4.
 *
 * @param address text of an IP address; anything else, and `undefined`, share one bucket
 */
export function rateBucketOf(address: string | undefined): string {
  const bytes = address === undefined ? undefined : parseIpAddress(address);
  if (bytes === undefined) return UNKNOWN_BUCKET;
  const ipv4 = ipv4Of(bytes);
  return ipv4 !== undefined
    ? `4:${toHex(ipv4.subarray(0, IPV4_BUCKET_BITS / 8))}`
    : `6:${toHex(bytes.subarray(0, IPV6_BUCKET_BITS / 8))}`;
}
