import { Buffer } from "node:buffer";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { selectCrypto } from "../core/mod.ts";
import { seededRandom, VECTOR } from "./_testing.ts";
import {
  chooseCarrier,
  generateTicketKey,
  makeTicket,
  makeTicketBody,
  makeTicketCookie,
  makeTicketQuery,
  TicketClient,
  ticketPublicKey,
} from "./client.ts";
import { extractTickets } from "./extract.ts";
import { decodeTicket } from "./payload.ts";
import { TICKET_CARRIERS, type TicketCarrier, TicketPolicy } from "./policy.ts";
import { TicketVerifier } from "./verifier.ts";

const HTTPS = "https://site.example";

Deno.test("makeTicket() makes the vector's ticket out of its inputs", () => {
  const answers: [length: number, bytes: Uint8Array][] = [
    [4, new Uint8Array(4)],
    [32, VECTOR.nonce],
    [24, VECTOR.pad],
  ];
  const text = makeTicket(VECTOR.key, {
    now: () => VECTOR.now,
    policy: new TicketPolicy({ maxPad: 24 }),
    ephemeralPrivateKeyForTestingOnly: VECTOR.clientPrivate,
    random: (length) => {
      const next = answers.shift();
      assertEquals(next?.[0], length);
      return next![1];
    },
  });
  assertEquals(text, VECTOR.text);
});

Deno.test("generateTicketKey() and ticketPublicKey() agree, and check lengths", () => {
  const key = generateTicketKey(VECTOR.key.keyId);
  assertEquals(key.keyId, VECTOR.key.keyId);
  assertEquals(ticketPublicKey(key.privateKey), key.publicKey);
  assertEquals(ticketPublicKey(VECTOR.key.privateKey), VECTOR.key.publicKey);
  assertThrows(() => generateTicketKey(new Uint8Array(7)), RangeError);
  assertThrows(() => ticketPublicKey(new Uint8Array(31)), RangeError);
  assertThrows(() => makeTicket({ ...key, keyId: new Uint8Array(9) }), RangeError);
  assertThrows(() => makeTicket({ ...key, publicKey: new Uint8Array(33) }), RangeError);
  assertThrows(() => makeTicket({ ...key, publicKey: new Uint8Array(32) }), TypeError, "low order");
  assertThrows(() => new TicketClient({ ...key, publicKey: new Uint8Array(1) }), RangeError);
});

Deno.test("every ticket has an ephemeral key, a nonce and a pad of its own", () => {
  const key = generateTicketKey();
  const tickets = Array.from({ length: 20 }, () => decodeTicket(makeTicket(key)));
  for (const part of ["clientPub", "nonce", "accessTicket", "pad"] as const) {
    assertEquals(new Set(tickets.map((ticket) => String(ticket[part]))).size, 20, part);
  }
});

Deno.test("e-50: without a random source of the caller's, the system's is used and never Math.random", () => {
  const { random } = Math;
  Math.random = () => {
    throw new Error("Math.random was called");
  };
  try {
    makeTicketCookie(generateTicketKey());
    for (let i = 0; i < 20; i++) chooseCarrier(new TicketPolicy());
  } finally {
    Math.random = random;
  }
});

/** Pearson's statistic of counts against equal or given shares. */
function chiSquare(counts: readonly number[], shares: readonly number[]): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return counts.reduce((sum, count, i) => sum + (count - total * shares[i]!) ** 2 / (total * shares[i]!), 0);
}

Deno.test("pad lengths are uniform over the policy's range, carriers follow its weights", () => {
  const key = generateTicketKey();
  const random = seededRandom("pads and carriers");
  const policy = TicketPolicy.parse("v1; carriers=cookie:0.5,query:0.3,body:0.2; len=30..50");
  const { crypto, privateKey } = { crypto: selectCrypto(), privateKey: new Uint8Array(32).fill(1) };
  const pads = new Array<number>(21).fill(0);
  for (let i = 0; i < 2_100; i++) {
    const text = makeTicket(key, { random, policy, crypto, ephemeralPrivateKeyForTestingOnly: privateKey });
    const length = decodeTicket(text).pad.length;
    assert(length >= 30 && length <= 50);
    pads[length - 30]!++;
  }
  // 20 degrees of freedom: 45.3 is passed once in a thousand; the draw is fixed, so this passes always or never
  assert(chiSquare(pads, pads.map(() => 1 / 21)) < 45.3, String(pads));

  const carriers = { cookie: 0, query: 0, body: 0 };
  for (let i = 0; i < 20_000; i++) carriers[chooseCarrier(policy, random)!]++;
  const { cookie, query, body } = carriers;
  assert(chiSquare([cookie, query, body], [0.5, 0.3, 0.2]) < 13.8, JSON.stringify(carriers));

  const without = { cookie: 0, query: 0, body: 0 };
  for (let i = 0; i < 20_000; i++) without[chooseCarrier(policy, random, ["cookie", "query"])!]++;
  assertEquals(without.body, 0);
  assert(chiSquare([without.cookie, without.query], [0.625, 0.375]) < 10.8, JSON.stringify(without));
});

Deno.test("a draw at the very ends falls to a carrier that weighs something", () => {
  const policy = new TicketPolicy({ carriers: { query: 0.1, cookie: 0.7, body: 0 } });
  assertEquals(chooseCarrier(policy, (length) => new Uint8Array(length)), "cookie");
  assertEquals(chooseCarrier(policy, (length) => new Uint8Array(length).fill(0xff)), "query");
  assertEquals(chooseCarrier(policy, (length) => new Uint8Array(length).fill(0xff), ["body"]), undefined);
});

Deno.test("a draw that would favour short pads is made again", () => {
  // 41 lengths: 2^32 is 41 · 104755299 + 37, so that the 37 highest draws are thrown away
  const draws = [
    Uint8Array.of(255, 255, 255, 255),
    Uint8Array.of(255, 255, 255, 219),
    Uint8Array.of(0, 0, 0, 3),
  ];
  let four = 0;
  const text = makeTicket(VECTOR.key, {
    random: (length) => length === 4 ? draws[four++]! : new Uint8Array(length).fill(7),
  });
  assertEquals(four, 3);
  assertEquals(decodeTicket(text).pad.length, 24 + 3);
});

Deno.test("each carrier's ticket is found by the verifier's side and verifies", async () => {
  const key = generateTicketKey();
  const verifier = new TicketVerifier({ keys: [key] });
  const policy = new TicketPolicy({ cookie: "c" });
  const form = new TextEncoder().encode(`a=1&${makeTicketBody(key)}`);
  const parts = [
    { target: "/", cookies: [`a=1; ${makeTicketCookie(key, { policy })}`] },
    { target: `/?${makeTicketQuery(key)}` },
    { target: "/", form },
  ];
  for (const part of parts) {
    const found = extractTickets(part, "c");
    assertEquals(found.tickets.length, 1);
    assert((await verifier.verify(found.tickets)).ok);
  }
});

async function partsOf(request: Request) {
  const { pathname, search } = new URL(request.url);
  const cookie = request.headers.get("cookie");
  return {
    target: pathname + search,
    cookies: cookie === null ? [] : [cookie],
    form: request.method === "POST" ? new Uint8Array(await request.arrayBuffer()) : undefined,
  };
}

Deno.test("TicketClient.apply() adds to what the request has, and the verifier's side takes just that out", async () => {
  const key = generateTicketKey();
  const verifier = new TicketVerifier({ keys: [key] });
  const type = { "content-type": "application/x-www-form-urlencoded" };
  const requests: [carrier: TicketCarrier, request: () => Request][] = [
    ["cookie", () => new Request(`${HTTPS}/p`)],
    ["cookie", () => new Request(`${HTTPS}/p?q`, { headers: { cookie: "a=1; b=2" } })],
    ["query", () => new Request(`${HTTPS}/p`)],
    ["query", () => new Request(`${HTTPS}/p?`)],
    ["query", () => new Request(`${HTTPS}/p?x=%20&y#z`)],
    ["query", () => new Request(`${HTTPS}/p?x`, { method: "POST", body: "x=1", headers: type })],
    ["body", () => new Request(`${HTTPS}/p?x`, { method: "POST" })],
    ["body", () => new Request(`${HTTPS}/p?x`, { method: "POST", body: "x=1", headers: type })],
  ];
  for (const [carrier, make] of requests) {
    const request = await new TicketClient(key, { carrier }).apply(make());
    assertEquals(request.method, make().method);
    if (carrier === "body") assertEquals(request.headers.get("content-type"), type["content-type"]);
    const found = extractTickets(await partsOf(request));
    assertEquals(found.tickets.map((ticket) => ticket.carrier), [carrier]);
    assert((await verifier.verify(found.tickets)).ok);
    const before = await partsOf(make());
    if (before.target === "/p" && carrier === "query" && make().url.endsWith("?")) before.target = "/p?";
    assertEquals(
      { ...found, tickets: undefined },
      { ...before, tickets: undefined },
      `${carrier} ${make().url}`,
    );
  }
});

Deno.test("TicketClient.apply() draws only among carriers that the request can take", async () => {
  const key = generateTicketKey();
  const policy = new TicketPolicy({ carriers: { body: 1000, query: 1 } });
  const client = new TicketClient(key, { policy });
  assert((await client.apply(new Request(HTTPS))).url.includes("?bn1="));
  const put = await client.apply(new Request(HTTPS, { method: "PUT", body: "x" }));
  assert(put.url.includes("?bn1="));
  assertEquals(await put.text(), "x");

  const form = { "content-type": "application/x-www-form-urlencoded" };
  const large = await client.apply(
    new Request(HTTPS, { method: "POST", headers: form, body: "x".repeat(16_300) }),
  );
  assert(large.url.includes("?bn1="), "a form that would pass 16 KiB");
  assertEquals((await large.text()).length, 16_300);
  const json = await client.apply(
    new Request(HTTPS, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" }),
  );
  assert(json.url.includes("?bn1="));
  assertEquals(await json.text(), "{}");

  const body = new TicketClient(key, { carrier: "body" });
  await assertRejects(() => body.apply(new Request(HTTPS)), TypeError, "GET");
  const only = new TicketClient(key, { policy: new TicketPolicy({ carriers: { body: 1 } }) });
  await assertRejects(() => only.apply(new Request(HTTPS)), TypeError, "no place");
});

Deno.test("TicketClient.addToUrl() gives a WebSocket its ticket", async () => {
  const key = generateTicketKey();
  const client = new TicketClient(key);
  const url = client.addToUrl("wss://site.example/chat?room=%20#x");
  assert(url.startsWith("wss://site.example/chat?room=%20&bn1=") && url.endsWith("#x"));
  const found = extractTickets({ target: url.slice("wss://site.example".length, -2) });
  assertEquals(found.target, "/chat?room=%20");
  assert((await new TicketVerifier({ keys: [key] }).verify(found.tickets)).ok);
  assert(client.addToUrl(new URL("ws://127.0.0.1:80/")).startsWith("ws://127.0.0.1/?bn1="));
});

Deno.test("e-28: no ticket is put into a request that would travel in clear to another machine", async () => {
  for (const carrier of TICKET_CARRIERS) {
    const client = new TicketClient(generateTicketKey(), { carrier });
    for (const url of ["http://site.example/", "http://192.0.2.1/", "http://127.0.0.1.site.example/"]) {
      await assertRejects(() => client.apply(new Request(url, { method: "POST" })), TypeError, "clear");
    }
    for (const url of [`${HTTPS}/`, "http://127.0.0.1:8080/", "http://localhost/", "http://[::1]:1/"]) {
      await client.apply(new Request(url, { method: "POST" }));
    }
  }
  const client = new TicketClient(generateTicketKey());
  assertThrows(() => client.addToUrl("ws://site.example/"), TypeError, "clear");
  const knowing = new TicketClient(generateTicketKey(), {
    carrier: "query",
    dangerouslyAllowCleartext: true,
  });
  await knowing.apply(new Request("http://site.example/"));
});

Deno.test("e-13: a client that met the decoy asks again at once, under a new ephemeral key", async () => {
  const key = generateTicketKey();
  const verifier = new TicketVerifier({ keys: [key] });
  const keys = new Set<string>();
  let thief = true;
  const gateway = async (request: Request) => {
    const { tickets } = extractTickets(await partsOf(request));
    keys.add(String(decodeTicket(tickets[0]!.text).clientPub));
    if (thief) await verifier.verify(tickets); // somebody on the way spends it first
    thief = false;
    return new Response((await verifier.verify(tickets)).ok ? "inside" : "decoy");
  };
  const client = new TicketClient(key);
  const admitted = async (response: Response) => await response.clone().text() === "inside";
  const response = await client.fetch(new Request(HTTPS), { admitted, fetch: gateway });
  assertEquals(await response.text(), "inside");
  assertEquals(keys.size, 2);

  let asked = 0;
  const closed = (_: Request) => Promise.resolve(new Response(`decoy ${++asked}`));
  const request = new Request(HTTPS, { method: "POST", body: "x" });
  assertEquals(
    await (await client.fetch(request, { admitted, fetch: closed, attempts: 3 })).text(),
    "decoy 3",
  );
});

Deno.test("TicketClient.fetch() hands a body on, and copies it only where it may send it again", async () => {
  const client = new TicketClient(generateTicketKey(), { carrier: "query" });
  const upload = () => {
    const body = new ReadableStream({ start: (controller) => controller.close() });
    return new Request(HTTPS, { method: "POST", body });
  };
  const fetch = async (request: Request) => new Response(await request.text());
  const handedOn = upload();
  await client.fetch(handedOn, { fetch });
  assert(handedOn.body?.locked, "a copy would keep in memory what was sent");
  const kept = upload();
  await client.fetch(kept, { fetch, admitted: () => true });
  assertEquals(kept.bodyUsed, false);
});

Deno.test("TicketClient.fetch() lets `admitted` read the answer, and asks as often as it was told", async () => {
  const client = new TicketClient(generateTicketKey(), { carrier: "query" });
  let asked = 0;
  const fetch = () => Promise.resolve(new Response(`decoy ${++asked}`));
  const admitted = async (response: Response) => !(await response.text()).startsWith("decoy");
  const request = new Request(HTTPS);
  assertEquals(await (await client.fetch(request, { admitted, fetch, attempts: 3 })).text(), "decoy 3");
  for (const attempts of [0, -1, 1.5, NaN, Infinity]) {
    await assertRejects(() => client.fetch(request, { admitted, fetch, attempts }), RangeError);
  }
  assertEquals(asked, 3);
});

Deno.test("TicketClient.apply() makes no form of a request that says it is something else", async () => {
  const anywhere = new TicketClient(generateTicketKey(), {
    policy: new TicketPolicy({ carriers: { body: 1 } }),
  });
  for (
    const headers of [{ "content-type": "application/json" }, { "content-encoding": "gzip" }]
  ) {
    await assertRejects(() => anywhere.apply(new Request(HTTPS, { method: "POST", headers })), TypeError);
  }
  const applied = await anywhere.apply(new Request(HTTPS, { method: "POST" }));
  assertEquals(applied.headers.get("content-type"), "application/x-www-form-urlencoded");
});

Deno.test("TicketClient.apply() ends with the request's signal while it reads a form", async () => {
  const stop = new AbortController();
  const request = new Request(HTTPS, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new ReadableStream({ pull: () => stop.abort(new Error("enough")) }), // and no byte ever comes
    signal: stop.signal,
  });
  await assertRejects(() => new TicketClient(generateTicketKey()).apply(request), Error, "enough");
});

Deno.test("TicketClient.apply() keeps the request's settings", async () => {
  const settings = {
    mode: "same-origin",
    credentials: "include",
    cache: "no-store",
    redirect: "manual",
    referrerPolicy: "no-referrer",
    integrity: "sha256-AAAA",
    keepalive: true,
  } as const;
  for (const carrier of TICKET_CARRIERS) {
    const client = new TicketClient(generateTicketKey(), { carrier });
    const applied = await client.apply(new Request(HTTPS, { method: "POST", ...settings }));
    for (const [name, value] of Object.entries(settings)) {
      assertEquals(Reflect.get(applied, name), value, name);
    }
  }
});

Deno.test("a key is made and derived with the default primitives where crypto is undefined", () => {
  const key = generateTicketKey(undefined, { crypto: undefined });
  assertEquals(ticketPublicKey(key.privateKey, { crypto: undefined }), key.publicKey);
});

Deno.test("keys are copied from Node's Buffers too, whose slice() is a view", async () => {
  const key = generateTicketKey(Buffer.from(VECTOR.key.keyId));
  const [publicKey, keyId] = [Buffer.from(key.publicKey), Buffer.from(key.keyId)];
  const client = new TicketClient({ publicKey, keyId });
  publicKey.fill(9);
  keyId.fill(9);
  assert((await new TicketVerifier({ keys: [key] }).verify(client.ticket())).ok);
  const given = Buffer.from(VECTOR.key.keyId);
  const made = generateTicketKey(given);
  given.fill(9);
  assertEquals(made.keyId, VECTOR.key.keyId);
});
