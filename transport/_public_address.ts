/**
 * Which IP addresses lie on the public internet (IANA special-purpose registries, RFC 6890).
 *
 * @module
 */

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
  const v4 = parseV4(address);
  if (v4 !== undefined) {
    return !PRIVATE_V4.some(([block, length]) => v4 >>> (32 - length) === parseV4(block)! >>> (32 - length));
  }
  const groups = parseV6(address);
  if (groups === undefined) return false;
  const [first, second] = groups;
  if (first! >>> 13 !== 1) return false; // 2000::/3
  if (first === 0x2001 && (second! < 0x200 || second === 0x0db8)) return false; // protocol assignments, Teredo, examples
  return first !== 0x2002 && (first !== 0x3fff || second! >= 0x1000); // 6to4, examples
}

function parseV4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  let value = 0;
  for (const part of match.slice(1)) {
    if (Number(part) > 255 || (part.length > 1 && part.startsWith("0"))) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

/** The eight groups; the URL parser knows every spelling of IPv6. */
function parseV6(text: string): number[] | undefined {
  if (!text.includes(":") || !URL.canParse(`http://[${text}]/`)) return undefined;
  const normal = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const [head = "", tail] = normal.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - before.length - after.length;
  return [...before, ...Array.from({ length: zeros }, () => "0"), ...after].map((group) =>
    Number.parseInt(group, 16)
  );
}
