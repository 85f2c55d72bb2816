import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { concat, fromHex, HtxError, selectCrypto } from "../core/mod.ts";
import { decodeBase64Url, encodeBase64Url } from "./_base64url.ts";
import { VECTOR } from "./_testing.ts";
import {
  decodeTicket,
  deriveAccessTicket,
  deriveTicketSalt,
  encodeTicket,
  MAX_TICKET_TEXT_LENGTH,
  MIN_TICKET_TEXT_LENGTH,
  readTicket,
  ticketHour,
} from "./payload.ts";

const PARTS = {
  clientPub: VECTOR.clientPub,
  ticketKeyId: VECTOR.key.keyId,
  nonce: VECTOR.nonce,
  accessTicket: VECTOR.accessTicket,
  pad: VECTOR.pad,
};

Deno.test("the vector in the repository is the one of the project", async () => {
  const url = new URL("../../shared/vectors/htx.json", import.meta.url);
  let shared;
  try {
    shared = JSON.parse(await Deno.readTextFile(url));
  } catch {
    console.log("skipped: ../shared/vectors/htx.json is not there; the repository's copy stands alone");
    return;
  }
  const own = JSON.parse(await Deno.readTextFile(new URL("testdata/ticket.json", import.meta.url)));
  assertEquals(own, shared.ticket);
});

for (const name of ["native", "noble"] as const) {
  Deno.test(`the vector's values come out of its inputs (${name})`, () => {
    const crypto = selectCrypto(name);
    const ephemeral = crypto.x25519(VECTOR.clientPrivate);
    assertEquals(ephemeral.publicKey, VECTOR.clientPub);
    const shared = ephemeral.dh(VECTOR.key.publicKey);
    assertEquals(shared, VECTOR.shared);
    assertEquals(crypto.x25519(VECTOR.key.privateKey).dh(VECTOR.clientPub), VECTOR.shared);
    assertEquals(ticketHour(VECTOR.now), VECTOR.hour);
    const salt = deriveTicketSalt(crypto, VECTOR.key.keyId, VECTOR.hour);
    assertEquals(salt, VECTOR.salt);
    assertEquals(deriveAccessTicket(crypto, VECTOR.shared, salt), VECTOR.accessTicket);
  });
}

Deno.test("encodeTicket() and decodeTicket() give the vector's text and parts", () => {
  assertEquals(encodeTicket(PARTS), VECTOR.text);
  assertEquals(encodeBase64Url(VECTOR.payload), VECTOR.text);
  assertEquals(decodeTicket(VECTOR.text), PARTS);
});

Deno.test("encodeTicket() refuses parts of another length", () => {
  for (
    const [name, length] of [["clientPub", 31], ["ticketKeyId", 9], ["nonce", 0], [
      "accessTicket",
      33,
    ]] as const
  ) {
    assertThrows(() => encodeTicket({ ...PARTS, [name]: new Uint8Array(length) }), RangeError, name);
  }
  for (const length of [0, 23, 65]) {
    assertThrows(() => encodeTicket({ ...PARTS, pad: new Uint8Array(length) }), RangeError, "24 to 64");
  }
  assertEquals(encodeTicket({ ...PARTS, pad: new Uint8Array(24) }).length, MIN_TICKET_TEXT_LENGTH);
  assertEquals(encodeTicket({ ...PARTS, pad: new Uint8Array(64) }).length, MAX_TICKET_TEXT_LENGTH);
});

Deno.test("e-16: every prefix of the longest ticket is a ticket of an allowed length or malformed", () => {
  const longest = encodeTicket({ ...PARTS, pad: new Uint8Array(64).fill(0xff) });
  for (let length = 0; length < longest.length; length++) {
    const read = readTicket(longest.slice(0, length));
    if (typeof read === "string") continue;
    assert(length >= 172 && length % 4 !== 1);
    assertEquals(encodeTicket(read), longest.slice(0, length));
  }
  assertEquals(readTicket(`${longest}A`), "length");
  assertEquals(readTicket(VECTOR.text.slice(0, 171)), "length");
});

Deno.test("e-16: decodeTicket() takes canonical Base64URL alone", () => {
  const text = encodeTicket({ ...PARTS, pad: new Uint8Array(25) }); // 130 bytes: 174 characters, four stray bits
  assertEquals(text.length, 174);
  const bad: Record<string, string> = {
    "stray bits": `${text.slice(0, -1)}B`,
    "padding characters": `${text.slice(0, -2)}==`,
    "padding characters after": `${text}==`,
    "the other alphabet, plus": text.replace("A", "+"),
    "the other alphabet, slash": text.replace("A", "/"),
    "a blank": ` ${text.slice(1)}`,
    "a line break": `${text}\n`,
    "NUL": `${text}\0`,
    "a percent-encoded letter": `${text}%41`,
    "beyond ASCII": `${text}\u0141`,
    "beyond the table": `${text}\u{1F600}`,
  };
  for (const [what, spelling] of Object.entries(bad)) {
    const error = assertThrows(() => decodeTicket(spelling), HtxError, undefined, what);
    assertEquals([error.code, error.field], ["MALFORMED", "text"], what);
  }
});

Deno.test("decodeTicket() refuses another version, and says nothing of the ticket", () => {
  for (const version of [0, 2, 0x81, 255]) {
    const text = encodeBase64Url(concat(Uint8Array.of(version), VECTOR.payload.subarray(1)));
    const error = assertThrows(() => decodeTicket(text), HtxError);
    assertEquals(error.field, "version");
    assert(!error.message.includes(text.slice(2, 20)));
  }
});

Deno.test("Base64URL: RFC 4648 vectors, and one spelling per value", () => {
  const vectors = [["", ""], ["66", "Zg"], ["666f", "Zm8"], ["666f6f", "Zm9v"], ["fbff", "-_8"]] as const;
  for (const [hex, text] of vectors) {
    assertEquals(encodeBase64Url(fromHex(hex)), text);
    assertEquals(decodeBase64Url(text), fromHex(hex));
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    assertEquals(decodeBase64Url(encodeBase64Url(bytes)), new Uint8Array(bytes));
  }));
  const characters = fc.constantFrom(..."ABCDEFGHabcdef0123456789-_+/= \n");
  fc.assert(fc.property(fc.string({ unit: characters, maxLength: 40 }), (text) => {
    const bytes = decodeBase64Url(text);
    if (bytes !== undefined) assertEquals(encodeBase64Url(bytes), text);
  }));
});

Deno.test("decodeTicket() throws a MALFORMED error or gives what encodes back, for any text", () => {
  const random = fc.uint8Array({ minLength: 120, maxLength: 180 }).map((bytes) => {
    bytes[0] = 1;
    return encodeBase64Url(bytes);
  });
  fc.assert(fc.property(fc.oneof(fc.string({ maxLength: 300 }), random), (text) => {
    try {
      assertEquals(encodeTicket(decodeTicket(text)), text);
    } catch (error) {
      assert(error instanceof HtxError && error.code === "MALFORMED");
    }
  }));
});
