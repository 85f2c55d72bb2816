import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import fc from "fast-check";
import { decodeBase64Url, encodeBase64Url } from "./_base64url.ts";
import { AdmissionCookies, type AdmissionOptions, type AdmissionResult } from "./admission.ts";

const KEY = new Uint8Array(32).fill(1);
const OTHER_KEY = new Uint8Array(32).fill(2);
const START = 1_766_000_000_000;

/** The pair that a client sends back. */
const pairOf = (setCookie: string): string => setCookie.split(";", 1)[0]!;
const reasonOf = (result: AdmissionResult): string => result.ok ? "ok" : result.reason;

function cookies(options: Partial<AdmissionOptions> = {}): AdmissionCookies {
  return new AdmissionCookies({ keys: [KEY], now: () => START, ...options });
}

Deno.test("an admission cookie has the attributes of a session cookie, by what the listener is", () => {
  assertMatch(
    cookies().issue(),
    /^__Host-sid=[A-Za-z0-9_-]{87}; Max-Age=900; Path=\/; Secure; HttpOnly; SameSite=Lax$/,
  );
  assertMatch(
    cookies({ secure: false, name: "visit", seconds: 60 }).issue(),
    /^visit=[A-Za-z0-9_-]{87}; Max-Age=60; Path=\/; HttpOnly; SameSite=Lax$/,
  );
  assertEquals(cookies().expire(), "__Host-sid=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax");
});

Deno.test("an admission lasts for its time and not a second more", () => {
  let now = START;
  const admission = cookies({ now: () => now });
  const pair = pairOf(admission.issue());
  for (const seconds of [0, 1, 450, 899]) {
    now = START + seconds * 1000 + 999;
    const result = admission.check([`a=b; ${pair}; c=d`]);
    assert(result.ok);
    assertEquals([result.expiresAt, result.renewal], [START + 900_000, undefined]);
  }
  now = START + 900_000;
  assertEquals(reasonOf(admission.check([pair])), "expired");
  now = START; // what has expired stays so
  assertEquals(reasonOf(admission.check([pair])), "expired");
});

Deno.test("a clock that gives no number once does not make an admission last", () => {
  let now = START;
  const admission = cookies({ now: () => now });
  const cookie = pairOf(admission.issue());
  for (const none of [NaN, Infinity]) {
    now = none;
    assertEquals(reasonOf(admission.check([cookie])), "ok");
  }
  now = START + 900_000;
  assertEquals(reasonOf(admission.check([cookie])), "expired");
});

Deno.test("with sliding, use prolongs an admission up to its end", () => {
  let now = START;
  const admission = cookies({ now: () => now, sliding: true, maxSeconds: 2000 });
  let pair = pairOf(admission.issue());
  const first = admission.check([pair]);
  assert(first.ok && first.renewal === undefined);
  let renewals = 0;
  for (; now < START + 2_000_000; now += 100_000) {
    const result = admission.check([pair]);
    assert(result.ok, `after ${(now - START) / 1000} s`);
    assertEquals(result.id, first.id);
    if (result.renewal === undefined) continue;
    renewals++;
    assertMatch(result.renewal, /^__Host-sid=[A-Za-z0-9_-]{87}; Max-Age=[1-9][0-9]*; Path=/);
    pair = pairOf(result.renewal);
  }
  assertEquals(renewals, 3);
  assertEquals(reasonOf(admission.check([pair])), "expired");
});

Deno.test("rotation keeps old cookies until their key is dropped, which revokes them", () => {
  const admission = cookies();
  const old = pairOf(admission.issue());
  admission.setKeys([OTHER_KEY, KEY]);
  const next = pairOf(admission.issue());
  assert(admission.check([old]).ok && admission.check([next]).ok);
  assertEquals(reasonOf(cookies().check([next])), "not-ours"); // the first key signs
  admission.setKeys([OTHER_KEY]);
  assertEquals(reasonOf(admission.check([old])), "not-ours");
  assert(admission.check([next]).ok);
  const own = KEY.slice();
  const copying = cookies({ keys: [own] });
  own.fill(9);
  assert(copying.check([old]).ok);
});

Deno.test("e-40: whatever is changed in an admission cookie, it is none", () => {
  const admission = cookies();
  const [name, value] = pairOf(admission.issue()).split("=") as [string, string];
  const bytes = decodeBase64Url(value)!;
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = bytes.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    const reason = reasonOf(admission.check([`${name}=${encodeBase64Url(flipped)}`]));
    assertEquals(reason, bit < 8 ? "malformed" : "not-ours");
  }
  const spellings = [
    "",
    "junk",
    value.slice(1),
    `${value}A`,
    `${value}=`,
    ` ${value}`,
    `"${value}"`,
    `${value}%00`,
    `%41${value.slice(1)}`,
    `${value.slice(0, -1)}${value.at(-1) === "B" ? "C" : "B"}`,
  ];
  for (const spelling of spellings) {
    assert(!admission.check([`${name}=${spelling}`]).ok, spelling);
  }
  assert(admission.check([`${name}=${value}`]).ok);
});

Deno.test("two admission cookies are none, and none is none", () => {
  const admission = cookies();
  const pair = pairOf(admission.issue());
  assertEquals(reasonOf(admission.check([])), "missing");
  assertEquals(reasonOf(admission.check(["a=b", ""])), "missing");
  for (
    const lines of [[`${pair}; ${pair}`], [pair, pair], [`${pair}; __Host-sid=x`], [pair, " __Host-sid\t="]]
  ) {
    assertEquals(reasonOf(admission.check(lines)), "repeated");
  }
});

Deno.test("a cookie that any host may set is no admission cookie, adds nothing to one, and goes no further", () => {
  const admission = cookies();
  const pair = pairOf(admission.issue());
  const other = pair.replace("__Host", "__%48ost"); // which browsers do not keep to the host and to TLS
  assertEquals(reasonOf(admission.check([other])), "missing");
  for (const tossed of [other, "__Host%2dsid="]) {
    const { result, rest } = admission.take([`a=b; ${tossed}; ${pair}`, tossed]);
    assertEquals([reasonOf(result), rest], ["ok", ["a=b"]]);
  }
});

Deno.test("a cookie is bound to its name and to its site", () => {
  const value = pairOf(cookies().issue()).split("=")[1]!;
  assertEquals(reasonOf(cookies({ secure: false }).check([`sid=${value}`])), "not-ours");
  assertEquals(reasonOf(cookies({ name: "other" }).check([`__Host-other=${value}`])), "not-ours");
  assertEquals(reasonOf(cookies({ context: "a.example" }).check([`__Host-sid=${value}`])), "not-ours");
  const site = cookies({ context: "a.example" });
  assert(site.check([pairOf(site.issue())]).ok);
});

Deno.test("a cookie of the future is none, but for clocks that differ a little", () => {
  const pair = pairOf(cookies({ now: () => START + 60_000 }).issue());
  assert(cookies().check([pair]).ok);
  const future = pairOf(cookies({ now: () => START + 61_000 }).issue());
  assertEquals(reasonOf(cookies().check([future])), "expired");
});

Deno.test("e-49: take() leaves the other cookies byte for byte", () => {
  const admission = cookies();
  const pair = pairOf(admission.issue());
  const { result, rest } = admission.take([`a="x y";b=1; ${pair};  c`, pair, "d=1"]);
  assertEquals(reasonOf(result), "repeated");
  assertEquals(rest, [`a="x y";b=1;  c`, "d=1"]);
});

Deno.test("every cookie has an identity of its own", () => {
  const admission = cookies();
  assertEquals(new Set(Array.from({ length: 100 }, () => admission.issue())).size, 100);
});

Deno.test("check() never throws and admits nothing, whatever the cookies are", () => {
  const admission = cookies();
  const token = fc.uint8Array({ minLength: 65, maxLength: 65 }).map((bytes) => {
    bytes[0] = 1;
    return encodeBase64Url(bytes);
  });
  const value = fc.oneof(fc.string(), token);
  fc.assert(fc.property(fc.array(value.map((text) => `__Host-sid=${text}`)), (lines) => {
    assert(!admission.check(lines).ok);
  }));
});

Deno.test("unusable options are the caller's mistake", () => {
  assertThrows(() => cookies({ keys: [] }), TypeError);
  assertThrows(() => cookies({ keys: [new Uint8Array(31)] }), RangeError);
  assertThrows(() => cookies({ seconds: 0 }), RangeError);
  assertThrows(() => cookies({ maxSeconds: 1.5 }), RangeError);
  for (const name of ["", "a b", "a;b", "__Host-x", "__secure-x", "a%62"]) {
    assertThrows(() => cookies({ name }), TypeError);
  }
  const admission = cookies();
  const pair = pairOf(admission.issue());
  assertThrows(() => admission.setKeys([]), TypeError);
  assert(admission.check([pair]).ok);
});
