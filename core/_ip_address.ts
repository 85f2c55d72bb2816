/**
 * IP addresses, strictly parsed.
 *
 * @module
 */

import type { Bytes } from "./crypto.ts";

const GROUP = /^[0-9A-Fa-f]{1,4}$/;
const OCTET = /^(?:0|[1-9][0-9]{0,2})$/;
/** RFC 4007 §11: the link of a link-local address, such as `%eth0`. */
const ZONE = /%[0-9A-Za-z._~-]+$/;

/**
 * The bytes of an IP address: 4 or 16, or `undefined` for any other text. No brackets, no port, no octal, no blanks; a
 * zone after IPv6 is dropped.
 */
export function parseIpAddress(text: string): Bytes | undefined {
  if (text.length > 128) return undefined;
  return text.includes(":") ? parseIpv6(text.replace(ZONE, "")) : parseIpv4(text);
}

/** The 4 bytes of an IPv4 address, or of one that is mapped into IPv6 (RFC 4291 §2.5.5.2); `undefined` for others. */
export function ipv4Of(bytes: Bytes): Bytes | undefined {
  if (bytes.length === 4) return bytes;
  const mapped = bytes[10] === 0xff && bytes[11] === 0xff &&
    bytes.subarray(0, 10).every((byte) => byte === 0);
  return mapped ? bytes.subarray(12) : undefined;
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
