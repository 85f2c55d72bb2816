/**
 * Which IP addresses lie on the public internet (IANA special-purpose registries, RFC 6890).
 *
 * @module
 */

import { parseIpAddress } from "../core/_ip_address.ts";

/** IPv4 blocks that do not: first address and prefix length. */
const PRIVATE_V4: readonly (readonly [string, number])[] = /* @__PURE__ */ Object.freeze([
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3],
]);

/**
 * Whether `address` is an IP address of the public internet. Anything else is not: names, zones, forms that embed
 * another address (mapped, 6to4, Teredo, NAT64) and all of IPv6 outside 2000::/3.
 */
export function isPublicAddress(address: string): boolean {
  const bytes = address.includes("%") ? undefined : parseIpAddress(address);
  if (bytes === undefined) return false;
  if (bytes.length === 4) {
    const value = toNumber(bytes);
    return !PRIVATE_V4.some(([block, length]) =>
      value >>> (32 - length) === toNumber(parseIpAddress(block)!) >>> (32 - length)
    );
  }
  const [first, second] = [bytes[0]! << 8 | bytes[1]!, bytes[2]! << 8 | bytes[3]!];
  if (first >>> 13 !== 1) return false; // 2000::/3
  if (first === 0x2001 && (second < 0x200 || second === 0x0db8)) return false; // protocol assignments, Teredo, examples
  return first !== 0x2002 && (first !== 0x3fff || second >= 0x1000); // 6to4, examples
}

function toNumber(ipv4: Uint8Array): number {
  return new DataView(ipv4.buffer, ipv4.byteOffset, 4).getUint32(0);
}
