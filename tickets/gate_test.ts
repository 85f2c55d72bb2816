import { assert, assertEquals } from "@std/assert";
import { fromUtf8, utf8 } from "../core/mod.ts";
import { seededRandom, VECTOR } from "./_testing.ts";
import { AdmissionCookies } from "./admission.ts";
import { makeTicket, makeTicketCookie, makeTicketQuery } from "./client.ts";
import { TicketGate } from "./gate.ts";
import { MemoryReplayStore } from "./replay_store.ts";
import { TicketVerifier } from "./verifier.ts";

const NOW = () => VECTOR.now;

function gateWith(options: { sliding?: boolean; now?: () => number; replay?: MemoryReplayStore } = {}) {
  const { now = NOW, sliding = false, replay = new MemoryReplayStore() } = options;
  return new TicketGate({
    verifier: new TicketVerifier({ keys: [VECTOR.key], now, replay }),
    admission: new AdmissionCookies({ keys: [new Uint8Array(32).fill(3)], now, sliding }),
  });
}

const ticketQuery = () => makeTicketQuery(VECTOR.key, { now: NOW });

Deno.test("a ticket admits once, its cookie admits afterwards, the ticket again gets the decoy", async () => {
  const gate = gateWith();
  const line = makeTicketCookie(VECTOR.key, { now: NOW });
  const first = await gate.admit({ target: "/", cookies: [`a=1; ${line}`] });
  assert(first.ok && first.by === "ticket" && first.setCookie !== undefined);
  assertEquals(first.parts.cookies, ["a=1"]);
  const again = await gate.admit({ target: "/", cookies: [line] });
  assert(!again.ok);
  assertEquals([again.reason, again.admission], ["replayed", "missing"]);
  const session = first.setCookie.split(";")[0]!;
  for (let i = 0; i < 40; i++) {
    const result = await gate.admit({ target: "/x", cookies: [`${session}; a=1`] });
    assert(result.ok && result.by === "admission" && result.setCookie === undefined);
    assertEquals(result.parts.cookies, ["a=1"]);
  }
});

Deno.test("e-49: with an admission cookie tickets are taken out and not spent, in every spelling", async () => {
  const replay = new MemoryReplayStore();
  const gate = gateWith({ replay });
  const first = await gate.admit({ target: `/?${ticketQuery()}` });
  assert(first.ok && first.setCookie !== undefined);
  const session = first.setCookie.split(";")[0]!;
  const text = makeTicket(VECTOR.key, { now: NOW });
  const result = await gate.admit({
    target: `/a?k=1&%62n1=${text}&bn1=x`,
    cookies: [`${session}; __Host%2Dbn1=${text}; b="1 2"`],
    form: utf8(`bn1=${text}&f=%20`),
  });
  assert(result.ok && result.by === "admission");
  assertEquals(result.parts.target, "/a?k=1");
  assertEquals(result.parts.cookies, [`b="1 2"`]);
  assertEquals(result.parts.form && fromUtf8(result.parts.form), "f=%20");
  assertEquals(replay.size, 1);
  assert((await gate.admit({ target: `/?bn1=${text}` })).ok);
});

Deno.test("with sliding, an admission is prolonged through the gate", async () => {
  let now = VECTOR.now;
  const gate = gateWith({ sliding: true, now: () => now });
  const first = await gate.admit({ target: `/?${ticketQuery()}` });
  assert(first.ok && first.setCookie !== undefined);
  now += 600_000;
  const second = await gate.admit({ target: "/", cookies: [first.setCookie.split(";")[0]!] });
  assert(second.ok && second.setCookie !== undefined);
  now += 600_000;
  assert((await gate.admit({ target: "/", cookies: [second.setCookie.split(";")[0]!] })).ok);
  assert(!(await gate.admit({ target: "/", cookies: [first.setCookie.split(";")[0]!] })).ok);
});

Deno.test("e-29: nothing but a ticket or an admission opens the gate", async () => {
  const gate = gateWith();
  const random = seededRandom("gate");
  for (let i = 0; i < 2_000; i++) {
    const junk = Array.from(random(1 + i % 200), (byte) => String.fromCharCode(33 + byte % 94)).join("");
    const result = await gate.admit({
      target: `/${junk}?bn1=${junk}`.slice(0, 1 + i % 90),
      cookies: [`__Host-sid=${junk}`, `__Host-bn1=${junk}`].slice(i % 3),
      form: i % 2 === 0 ? utf8(junk) : undefined,
    });
    assert(!result.ok);
  }
});

Deno.test("a line of very many cookies is a refusal, not an error", async () => {
  const cookies = ["__Host-sid=x;".repeat(300_000)];
  const result = await gateWith().admit({ target: "/", cookies });
  assert(!result.ok);
  assertEquals([result.reason, result.admission], ["missing", "repeated"]);
});

Deno.test("without admission cookies every request needs a ticket", async () => {
  const gate = new TicketGate({
    verifier: new TicketVerifier({ keys: [VECTOR.key], now: NOW }),
    cookie: "c",
  });
  const first = await gate.admit({
    target: "/",
    cookies: [`c=${makeTicket(VECTOR.key, { now: NOW })}; __Host-sid=x`],
  });
  assert(first.ok && first.setCookie === undefined);
  assertEquals(first.parts.cookies, ["__Host-sid=x"]);
  const second = await gate.admit({ target: "/" });
  assert(!second.ok && second.admission === "missing");
});
