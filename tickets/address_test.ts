import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { toHex } from "../core/mod.ts";
import { parseIpAddress, rateBucketOf, UNKNOWN_BUCKET } from "./address.ts";

Deno.test("parseIpAddress() reads IPv4 and IPv6 in every legal spelling", () => {
  const good: [text: string, hex: string][] = [
    ["0.0.0.0", "00000000"],
    ["192.0.2.255", "c00002ff"],
    ["::", "00000000000000000000000000000000"],
    ["::1", "00000000000000000000000000000001"],
    ["1::", "00010000000000000000000000000000"],
    ["2001:DB8::8:800:200c:417a", "20010db80000000000080800200c417a"],
    ["2001:db8:0:0:8:800:200C:417A", "20010db80000000000080800200c417a"],
    ["1:2:3:4:5:6:7::", "00010002000300040005000600070000"],
    ["::2:3:4:5:6:7:8", "00000002000300040005000600070008"],
    ["::ffff:192.0.2.1", "00000000000000000000ffffc0000201"],
    ["::ffff:c000:201", "00000000000000000000ffffc0000201"],
    ["64:ff9b::192.0.2.33", "0064ff9b0000000000000000c0000221"],
    ["1:2:3:4:5:6:1.2.3.4", "00010002000300040005000601020304"],
    ["fe80::1%eth0", "fe800000000000000000000000000001"],
  ];
  for (const [text, hex] of good) assertEquals(toHex(parseIpAddress(text)!), hex, text);
});

Deno.test("parseIpAddress() refuses whatever is no address", () => {
  const bad = [
    "",
    " ",
    "localhost",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "1.2.3.4 ",
    " 1.2.3.4",
    "01.2.3.4",
    "1.2.3.0x4",
    "1.2.3.-4",
    "1.2.3.4:80",
    "1.2.3.4/24",
    "1.2.3.4%eth0",
    "16909060",
    "1..3.4",
    "+1.2.3.4",
    "١.2.3.4",
    ":",
    ":::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::1::",
    "12345::",
    "g::",
    "[::1]",
    "[::1]:80",
    "::1 ",
    "::1.2.3",
    "::1.2.3.4:1",
    "1.2.3.4::",
    "1:2:3:4:5:6:7:1.2.3.4",
    ":1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:",
    "::1%",
    "::1%a b",
    "::ffff:256.0.0.1",
    `::${"0".repeat(200)}`,
  ];
  for (const text of bad) assertEquals(parseIpAddress(text), undefined, text);
});

Deno.test("e-17: a bucket is an IPv4 /24 or an IPv6 /56, and IPv4-mapped counts as IPv4", () => {
  const same = [
    ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7", "::ffff:c000:207", "0:0:0:0:0:FFFF:192.0.2.9"],
    ["2001:db8:0:100::", "2001:db8:0:1ff:ffff:ffff:ffff:ffff"],
  ];
  for (const addresses of same) assertEquals(new Set(addresses.map(rateBucketOf)).size, 1, addresses[0]);
  const different = [
    "192.0.2.0",
    "192.0.3.0",
    "::192.0.2.0", // not mapped: an IPv6 address
    "2001:db8:0:100::",
    "2001:db8:0:200::",
    "64:ff9b::192.0.2.0",
  ];
  assertEquals(new Set(different.map(rateBucketOf)).size, different.length);
  assertEquals([undefined, "", "x", "1.2.3.4:5"].map(rateBucketOf), Array(4).fill(UNKNOWN_BUCKET));
});

Deno.test("parseIpAddress() reads back what any address is written as", () => {
  fc.assert(fc.property(fc.ipV4(), (text) => {
    assertEquals(parseIpAddress(text), Uint8Array.from(text.split("."), Number));
  }));
  fc.assert(fc.property(fc.ipV6(), (text) => {
    assertEquals(parseIpAddress(text)?.length, 16, text);
  }));
  fc.assert(fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
    const text = toHex(bytes).match(/.{4}/g)!.join(":");
    assertEquals(parseIpAddress(text), new Uint8Array(bytes));
  }));
});
