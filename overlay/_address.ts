import { ipv4Of, parseIpAddress } from "../core/_ip_address.ts";
import { malformed } from "./_malformed.ts";

/**
 * The network of an IP address as a key: its IPv4 /24 or its IPv6 /56. An IPv4-mapped IPv6 address counts as IPv4; a zone
 * after IPv6 says nothing of the network.
 *
 * @throws {HtxError} `MALFORMED`, field `address`
 */
export function networkOf(address: string): { kind: "ipv4" | "ipv6"; key: string } {
  const bytes = parseIpAddress(address);
  if (bytes === undefined) throw malformed("address", "address", "is no IP address");
  const ipv4 = ipv4Of(bytes);
  if (ipv4 !== undefined) return { kind: "ipv4", key: ipv4.subarray(0, 3).join(".") };
  // /56: three groups and the upper half of the fourth.
  const group = (i: number) => (bytes[2 * i]! << 8 | (i < 3 ? bytes[2 * i + 1]! : 0)).toString(16);
  return { kind: "ipv6", key: [0, 1, 2, 3].map(group).join(":") };
}
