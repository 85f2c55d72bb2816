import { malformed } from "./_malformed.ts";

const IPV4 = /^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}$/;
/** RFC 4007 §11: the link of a link-local address, such as `%eth0`. */
const ZONE = /%[0-9A-Za-z._~-]+$/;

/**
 * The network of an IP address as a key: its IPv4 /24 or its IPv6 /56. An IPv4-mapped IPv6 address counts as IPv4; a zone
 * after IPv6 says nothing of the network.
 *
 * @throws {HtxError} `MALFORMED`, field `address`
 */
export function networkOf(address: string): { kind: "ipv4" | "ipv6"; key: string } {
  if (IPV4.test(address)) return { kind: "ipv4", key: address.slice(0, address.lastIndexOf(".")) };
  const groups = ipv6Groups(address.replace(ZONE, ""));
  if (!groups) throw malformed("address", "address", "is no IP address");
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return { kind: "ipv4", key: `${groups[6]! >> 8}.${groups[6]! & 0xff}.${groups[7]! >> 8}` };
  }
  // /56: three groups and the upper half of the fourth.
  const key = [...groups.slice(0, 3), groups[3]! & 0xff00].map((group) => group.toString(16)).join(":");
  return { kind: "ipv6", key };
}

function ipv6Groups(text: string): number[] | undefined {
  if (text.length > 45 || !/^[0-9A-Fa-f:.]+$/.test(text) || !URL.canParse(`http://[${text}]/`)) {
    return undefined;
  }
  // The URL parser checks it and writes it in the one form of RFC 5952, without dots.
  const [head = "", tail] = new URL(`http://[${text}]/`).hostname.slice(1, -1).split("::");
  const parse = (part: string) =>
    part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16));
  const [before, after] = [parse(head), parse(tail ?? "")];
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}
