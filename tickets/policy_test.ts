import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { HtxError } from "../core/mod.ts";
import { TicketPolicy } from "./policy.ts";

Deno.test("TicketPolicy.parse() reads the header of the specification, and formats it again", () => {
  const header = "v1; carriers=cookie:0.5,query:0.3,body:0.2; len=24..64; cookie=__Host-bn1";
  const policy = TicketPolicy.parse(header);
  assertEquals(policy.carriers, { cookie: 0.5, query: 0.3, body: 0.2 });
  assertEquals([policy.minPad, policy.maxPad, policy.cookie], [24, 64, "__Host-bn1"]);
  assertEquals(String(policy), header);
  assertEquals(String(new TicketPolicy()), header);
});

Deno.test("TicketPolicy.parse() normalises weights by their sum", () => {
  const policy = TicketPolicy.parse("v1; carriers=cookie:1,query:2,body:5; len=24..24");
  assertEquals(policy.shares, { cookie: 0.125, query: 0.25, body: 0.625 });
  assertEquals(TicketPolicy.parse("v1;carriers=body:7;len=30..40").shares, { cookie: 0, query: 0, body: 1 });
  assertEquals(TicketPolicy.parse("v1;carriers=query:0,body:3;len=30..40").shares, {
    cookie: 0,
    query: 0,
    body: 1,
  });
});

Deno.test("TicketPolicy.parse() ignores unknown carriers and parameters, and has defaults", () => {
  const policy = TicketPolicy.parse(
    "v1 ;\t carriers=header:9,cookie:1 , dns:x,query:1; new=thing; flag;; cookie=sid",
  );
  assertEquals(policy.shares, { cookie: 0.5, query: 0.5, body: 0 });
  assertEquals([policy.minPad, policy.maxPad, policy.cookie], [24, 64, "sid"]);
  assertEquals(TicketPolicy.parse("v1; carriers=body:1").cookie, "__Host-bn1");
});

Deno.test("TicketPolicy.parse() refuses what section 6 calls invalid, and names the part", () => {
  const bad: [header: string, field: string][] = [
    ["", "version"],
    ["v2; carriers=cookie:1; len=24..64", "version"],
    ["V1; carriers=cookie:1; len=24..64", "version"],
    ["carriers=cookie:1; len=24..64", "version"],
    ["v1; carriers=cookie:1; len=24..64, v1; carriers=cookie:1; len=24..64", "parameter"],
    ["v1; carriers=cookie:1; carriers=cookie:1; len=24..64", "parameter"],
    ["v1; carriers=cookie:1; len=24..64; len=24..64", "parameter"],
    ["v1; carriers=cookie:1; len=24..64; cookie=a; cookie=a", "parameter"],
    ["v1; carriers=cookie:1; len=24..64; other=1; other=2", "parameter"],
    ["v1; carriers=cookie:1; len=24..64; flag; flag", "parameter"],
    ["v1", "carriers"],
    ["v1; len=24..64", "carriers"],
    ["v1; carriers=; len=24..64", "carriers"],
    ["v1; carriers=header:1; len=24..64", "carriers"],
    ["v1; carriers=cookie:0,query:0,body:0; len=24..64", "carriers"],
    ["v1; carriers=cookie:0,header:1; len=24..64", "carriers"],
    ["v1; carriers=cookie:-1,query:2; len=24..64", "carriers"],
    ["v1; carriers=cookie:1e3; len=24..64", "carriers"],
    ["v1; carriers=cookie:NaN; len=24..64", "carriers"],
    ["v1; carriers=cookie:Infinity; len=24..64", "carriers"],
    [`v1; carriers=cookie:${"9".repeat(400)}; len=24..64`, "carriers"],
    ["v1; carriers=cookie:; len=24..64", "carriers"],
    ["v1; carriers=cookie; len=24..64", "carriers"],
    ["v1; carriers=cookie:1,cookie:1; len=24..64", "carriers"],
    ["v1; carriers=cookie:1; len=23..64", "len"],
    ["v1; carriers=cookie:1; len=24..65", "len"],
    ["v1; carriers=cookie:1; len=64..24", "len"],
    ["v1; carriers=cookie:1; len=24", "len"],
    ["v1; carriers=cookie:1; len=24...64", "len"],
    ["v1; carriers=cookie:1; len=24.5..64", "len"],
    ["v1; carriers=cookie:1; len=-24..64", "len"],
    ["v1; carriers=cookie:1; len= 24..64", "len"],
    ["v1; carriers=cookie:1; len", "len"],
    ["v1; carriers=cookie:1; cookie=", "cookie"],
    ["v1; carriers=cookie:1; cookie=a b", "cookie"],
    ['v1; carriers=cookie:1; cookie="a"', "cookie"],
    ["v1; carriers=cookie:1; cookie=a\r\nX: y", "cookie"],
  ];
  for (const [header, field] of bad) {
    const error = assertThrows(() => TicketPolicy.parse(header), HtxError, undefined, header);
    assertEquals([error.code, error.field], ["MALFORMED", field], header);
  }
});

Deno.test("new TicketPolicy() refuses what its header could not say", () => {
  for (
    const carriers of [{}, { cookie: 0 }, { cookie: -1, query: 2 }, { cookie: NaN }, { cookie: Infinity }]
  ) {
    assertThrows(() => new TicketPolicy({ carriers }), RangeError);
  }
  assertThrows(() => new TicketPolicy({ minPad: 23 }), RangeError);
  assertThrows(() => new TicketPolicy({ maxPad: 65 }), RangeError);
  assertThrows(() => new TicketPolicy({ minPad: 40, maxPad: 39 }), RangeError);
  assertThrows(() => new TicketPolicy({ minPad: 24.5 }), RangeError);
  assertThrows(() => new TicketPolicy({ cookie: "a;b" }), TypeError);
});

Deno.test("a policy reads back from its own header", () => {
  const weight = fc.double({ min: 0, max: 1e30, noNaN: true });
  fc.assert(
    fc.property(weight, weight, weight, fc.integer({ min: 24, max: 64 }), (cookie, query, body, minPad) => {
      fc.pre(cookie + query + body > 0);
      const policy = new TicketPolicy({ carriers: { cookie, query, body }, minPad });
      const again = TicketPolicy.parse(String(policy));
      assertEquals(again.carriers, policy.carriers);
      assertEquals(again, policy);
    }),
  );
});

Deno.test("TicketPolicy.parse() reads a header of blanks in no time", () => {
  const started = performance.now();
  TicketPolicy.parse(`v1; x${" ".repeat(256 * 1024)}y; carriers=cookie:1`);
  assert(performance.now() - started < 5_000); // a minute where it grows with the square
});

Deno.test("TicketPolicy.parse() throws a MALFORMED error or gives a policy, for any header", () => {
  const words = fc.constantFrom(
    "v1",
    ";",
    " ",
    "carriers=",
    "cookie:",
    "body:",
    "1",
    "0.5",
    ",",
    "len=",
    "24..64",
    "..",
    "=",
    "x",
  );
  fc.assert(fc.property(fc.array(words, { maxLength: 20 }), (parts) => {
    try {
      TicketPolicy.parse(parts.join(""));
    } catch (error) {
      if (!(error instanceof HtxError && error.code === "MALFORMED")) throw error;
    }
  }));
});
