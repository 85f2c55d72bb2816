// These hold for the real @std/encoding as well: run them without the `workspace` entry of deno.json.
import { decodeBase64, encodeBase64 } from "@std/encoding/base64";
import { decodeBase64Url, encodeBase64Url } from "@std/encoding/base64url";
import { decodeHex, encodeHex } from "@std/encoding/hex";
import { assertEquals, assertThrows } from "@std/assert";

const bytes = new Uint8Array([0xfb, 0xff, 0xbf, 0x01]);

Deno.test("hex goes both ways, in either case, and refuses the rest", () => {
  assertEquals(encodeHex(bytes), "fbffbf01");
  assertEquals(encodeHex("abc"), "616263");
  assertEquals(encodeHex(bytes.buffer), "fbffbf01");
  assertEquals(decodeHex("fbFFbf01"), bytes);
  assertEquals(decodeHex(""), new Uint8Array());
  assertThrows(() => decodeHex("0g"), TypeError);
  assertThrows(() => decodeHex("012"), Error);
});

Deno.test("base64 (RFC 4648 section 10) goes both ways and refuses the rest", () => {
  const rows: [string, string][] = [
    ["", ""],
    ["f", "Zg=="],
    ["fo", "Zm8="],
    ["foo", "Zm9v"],
    ["foob", "Zm9vYg=="],
    ["foobar", "Zm9vYmFy"],
  ];
  for (const [text, code] of rows) {
    assertEquals(encodeBase64(text), code);
    assertEquals(decodeBase64(code), new TextEncoder().encode(text));
  }
  assertEquals(encodeBase64(bytes), "+/+/AQ==");
  for (const bad of ["Zg=", "Z", "-_-_"]) assertThrows(() => decodeBase64(bad), Error);
});

Deno.test("base64url has no padding and its own alphabet", () => {
  assertEquals(encodeBase64Url(bytes), "-_-_AQ");
  assertEquals(decodeBase64Url("-_-_AQ"), bytes);
  for (const bad of ["+/+/AQ", "A", "a b"]) assertThrows(() => decodeBase64Url(bad), Error);
});
