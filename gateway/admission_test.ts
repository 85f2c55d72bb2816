import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { configureSync, type LogRecord, resetSync } from "@logtape/logtape";
import { encodeBase64Url } from "@std/encoding/base64url";
import {
  generateTicketKey,
  makeTicket,
  makeTicketBody,
  makeTicketCookie,
  makeTicketQuery,
  MemoryRateLimiter,
  MemoryReplayStore,
  TicketPolicy,
  type TicketRefusal,
  type TicketStep,
} from "../tickets/mod.ts";
import { over, raw, tell, told } from "./_testing.ts";
import { makeCertificate } from "./_testing_tls.ts";
import { decoyAlone, fixedDecoy, staticDecoy } from "./decoy.ts";
import { denoFront } from "./front.ts";
import type { TicketAdmissionOptions } from "./admission.ts";
import { createGateway } from "./gateway.ts";
import { nodeFront } from "./node_front.ts";

const FORM = "application/x-www-form-urlencoded";
const key = generateTicketKey();

function guard(more: Partial<TicketAdmissionOptions> = {}): TicketAdmissionOptions {
  return {
    verifier: {
      keys: [key],
      limiter: new MemoryRateLimiter({ perMinute: 1e6, burst: 1e6 }),
      carriers: ["cookie", "query", "body"],
    },
    session: { keys: [new Uint8Array(32).fill(9)] },
    ...more,
  };
}

const cookieOf = (response: Response) => response.headers.getSetCookie()[0]?.split(";")[0] ?? "";

Deno.test("e-29, e-49: each carrier lets in once, and no trace of the ticket goes upstream", async () => {
  await using g = over(tell, { admission: guard() });
  for (const carrier of ["cookie", "query", "body", "encoded"] as const) {
    const ticket = makeTicket(key);
    const ask = () =>
      carrier === "cookie"
        ? g.ask("/p?a=1", { headers: { cookie: `x=1; __Host-bn1=${ticket}; y=2` } })
        : carrier === "query"
        ? g.ask(`/p?a=1&bn1=${ticket}`)
        : carrier === "encoded"
        ? g.ask(`/p?%62%6E1=${ticket}&a=1`)
        : g.ask("/p?a=1", {
          method: "POST",
          body: `u=v&bn1=${ticket}&w=%20`,
          headers: { "content-type": FORM, "content-length": String(8 + 4 + ticket.length + 2) },
        });
    const response = await ask();
    assertEquals(response.status, 200, carrier);
    const text = await response.clone().text();
    assert(!text.includes(ticket) && !text.includes("bn1"), text);
    const answer = await told(response);
    assertEquals(answer.path, "/p?a=1");
    if (carrier === "cookie") assertEquals(answer.header("cookie"), "x=1; y=2");
    if (carrier === "body") {
      assertEquals(answer.body, "u=v&w=%20");
      assertEquals(answer.header("content-length"), "9");
    }
    const again = await ask();
    assertEquals([again.status, await again.text()], [404, "404 Not Found\n"], carrier);
    // The session cookie lets in from now on, and does not go upstream either.
    const session = cookieOf(response);
    assert(session.startsWith("sid="), session);
    const next = await g.ask("/next", { headers: { cookie: `k=v; ${session}` } });
    assertEquals((await told(next)).header("cookie"), "k=v");
    // With a session, tickets are removed and not spent.
    const fresh = makeTicket(key);
    const both = await told(await g.ask(`/next?bn1=${fresh}`, { headers: { cookie: session } }));
    assertEquals([both.path, both.header("cookie")], ["/next", undefined]);
    assertEquals((await g.ask(`/?bn1=${fresh}`)).status, 200);
  }
  assertEquals(g.gateway.metrics.tickets.accepted, 8);
  assertEquals(g.gateway.metrics.tickets.replayed, 4);
});

Deno.test("a ticket in the referer is removed in whatever spelling, and neither counts nor is spent", async () => {
  await using g = over(tell, { admission: guard() });
  const session = cookieOf(await g.ask(`/?${makeTicketQuery(key)}`));
  for (const name of ["bn1", "%62%6E1"]) {
    const ticket = makeTicket(key);
    const referer = `http://site.example/p?a=1&${name}=${ticket}&b=%20`;
    const answer = await told(await g.ask("/", { headers: { cookie: session, referer } }));
    assertEquals(answer.header("referer"), "http://site.example/p?a=1&b=%20");
    assertEquals((await g.ask("/", { headers: { referer } })).status, 404);
    const first = await told(await g.ask(`/?bn1=${ticket}`, { headers: { referer } }));
    assertEquals(first.header("referer"), "http://site.example/p?a=1&b=%20");
  }
});

Deno.test("a gateway is refused, and a reload, where ticket and session would have one cookie", async () => {
  const refused = (cookie: string, name: string) => {
    const session = { keys: [new Uint8Array(32).fill(9)], name };
    return guard({ policy: new TicketPolicy({ cookie }), session });
  };
  await using g = over(tell, { admission: guard() });
  for (const [cookie, name] of [["sid", "sid"], ["__Host-own", "own"], ["s%69d", "sid"]] as const) {
    const admission = refused(cookie, name);
    assertThrows(() => createGateway({ upstream: g.upstream, admission }), TypeError, "one cookie");
    assertThrows(() => g.gateway.reload({ admission }), TypeError, "one cookie");
  }
  assertEquals((await g.ask(`/?${makeTicketQuery(key)}`)).status, 200);
  await using other = over(tell, { admission: refused("__Host-sid2", "sid") });
  assertEquals((await other.ask(`/?${makeTicketQuery(key)}`)).status, 200);
});

Deno.test("the session cookie: plain without TLS, Secure with __Host- by https or a trusted proxy that says so", async () => {
  await using g = over(tell, { admission: guard(), forwarding: { trustedProxies: ["10.0.0.1"] } });
  const ask = (info: object, headers: Record<string, string> = {}) =>
    g.ask(`/?${makeTicketQuery(key)}`, { info, headers });
  const plain = (await ask({})).headers.getSetCookie()[0]!;
  assert(/^sid=[^;]+; Max-Age=900; Path=\/; HttpOnly; SameSite=Lax$/.test(plain), plain);
  const secure = (await ask({ encrypted: true })).headers.getSetCookie()[0]!;
  assert(/^__Host-sid=[^;]+; Max-Age=900; Path=\/; Secure; HttpOnly; SameSite=Lax$/.test(secure), secure);
  const proxied = { remoteAddr: { hostname: "10.0.0.1", port: 1 } };
  assert(
    (await ask(proxied, { "x-forwarded-proto": "https" })).headers.getSetCookie()[0]!.startsWith(
      "__Host-sid=",
    ),
  );
  assert((await ask({}, { "x-forwarded-proto": "https" })).headers.getSetCookie()[0]!.startsWith("sid="));
  // Both names are kept from the upstream, whichever counts.
  const answer = await told(
    await g.ask("/", { headers: { cookie: `${plain.split(";")[0]}; __Host-sid=x; a=b` } }),
  );
  assertEquals(answer.header("cookie"), "a=b");
});

Deno.test("an answer that brings the session cookie is kept by no cache in front; the next one is as its application says", async () => {
  const app = () =>
    new Response("for all", { headers: { "cache-control": "public, max-age=600, s-maxage=3600" } });
  await using g = over(app, { admission: guard() });
  const first = await g.ask(`/?${makeTicketQuery(key)}`);
  assertEquals(first.headers.get("cache-control"), "max-age=600, private");
  const next = await g.ask("/", { headers: { cookie: cookieOf(first) } });
  assertEquals(next.headers.getSetCookie(), []);
  assertEquals(next.headers.get("cache-control"), "public, max-age=600, s-maxage=3600");
});

Deno.test("e-40: sliding prolongs, rotation of keys keeps, removal revokes", async () => {
  let now = 1_800_000_000_000;
  const [old, fresh] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  const admission = (keys: Uint8Array[]) =>
    guard({ session: { keys, sliding: true, seconds: 100, now: () => now } });
  await using g = over(tell, { admission: admission([old]) });
  const session = cookieOf(await g.ask(`/?${makeTicketQuery(key)}`));
  const ask = async (cookie: string) => {
    const response = await g.ask("/", { headers: { cookie } });
    await response.body?.cancel();
    return response;
  };
  now += 60_000;
  const renewed = cookieOf(await ask(session));
  assert(renewed !== "" && renewed !== session);
  now += 60_000;
  assertEquals((await ask(session)).status, 404); // its time is over
  assertEquals((await ask(renewed)).status, 200);
  g.gateway.reload({ admission: admission([fresh, old]) });
  assertEquals((await ask(renewed)).status, 200);
  g.gateway.reload({ admission: admission([fresh]) });
  assertEquals((await ask(renewed)).status, 404);
});

Deno.test("a store that fails closes the door", async () => {
  await using g = over(tell, {
    admission: guard({
      verifier: { keys: [key], replay: { checkAndRecord: () => Promise.reject(new Error("store gone")) } },
    }),
  });
  const response = await g.ask(`/?${makeTicketQuery(key)}`);
  assertEquals(response.status, 404);
  assertEquals(g.gateway.metrics.tickets["store-failed"], 1);
});

/** Every way to fail, as raw HTTP. */
function failures(): [string, string][] {
  const get = (target: string, ...lines: string[]) =>
    `GET ${target} HTTP/1.1\r\nHost: site.example\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`;
  const post = (body: string, ...lines: string[]) =>
    `POST /page HTTP/1.1\r\nHost: site.example\r\n${lines.map((line) => `${line}\r\n`).join("")}` +
    `Content-Type: ${FORM}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const good = makeTicket(key);
  const bytes = Uint8Array.fromBase64(good, { alphabet: "base64url" });
  const changed = (at: number, to: (byte: number) => number) => {
    const copy = bytes.slice();
    copy[at] = to(copy[at]!);
    return encodeBase64Url(copy);
  };
  const lowOrder = bytes.slice();
  lowOrder.fill(0, 1, 33);
  const old = makeTicket(key, { now: () => Date.now() - 5 * 3_600_000 });
  const other = makeTicket({ ...generateTicketKey(), keyId: key.keyId });
  const unknown = makeTicket(generateTicketKey());
  return [
    ["missing", get("/page")],
    ["empty cookie", get("/page", "Cookie: __Host-bn1=")],
    ["junk", get("/page?bn1=%%%")],
    ["short", get(`/page?bn1=${good.slice(0, 100)}`)],
    ["long", get(`/page?bn1=${good}${good}`)],
    ["padding characters", get(`/page?bn1=${good}==`)],
    ["wrong version", get(`/page?bn1=${changed(0, () => 2)}`)],
    ["unknown key id", get(`/page?bn1=${unknown}`)],
    ["low-order key", get(`/page?bn1=${encodeBase64Url(lowOrder)}`)],
    ["e-07: bit 255", get(`/page?bn1=${changed(32, (byte) => byte ^ 0x80)}`)],
    ["flipped proof", get(`/page?bn1=${changed(80, (byte) => byte ^ 1)}`)],
    ["expired", get(`/page?bn1=${old}`)],
    ["other key", get(`/page?bn1=${other}`)],
    ["twice in one carrier", get(`/page?bn1=${makeTicket(key)}&bn1=${makeTicket(key)}`)],
    ["twice over carriers", get(`/page?bn1=${makeTicket(key)}`, `Cookie: __Host-bn1=${makeTicket(key)}`)],
    ["forged session", get("/page", "Cookie: sid=AQAAAAAA")],
    ["form without ticket", post("a=b")],
    ["form with junk", post("bn1=junk")],
    ["HEAD", "HEAD /page HTTP/1.1\r\nHost: site.example\r\n\r\n"],
    ["trace", "TRACE /page HTTP/1.1\r\nHost: site.example\r\n\r\n"],
    ["connect", "CONNECT site.example:443 HTTP/1.1\r\nHost: site.example\r\n\r\n"],
    ["GET with a body", get("/page", "Content-Length: 0")],
    [
      "websocket",
      get(
        "/page",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      ),
    ],
    ["large header", get("/page", `X-Large: ${"x".repeat(40_000)}`)],
    ["long path", get(`/${"x".repeat(17_000)}`)],
    ["bad host", "GET /page HTTP/1.1\r\nHost: a@b\r\n\r\n"],
    ["large form", post(`bn1=${"x".repeat(17_000)}`)],
    ["range", get("/page", "Range: bytes=1-2")],
    ["revalidation", get("/page", 'If-None-Match: "nothing"')],
    ["not there", get("/no-such-page")],
  ];
}

const dated = (text: string) => text.replace(/date: [^\r]+/i, "date: -");

Deno.test("e-14, e-41: thirty kinds of refusal are byte-equal to the decoy alone, with both fronts and both decoys", async () => {
  const root = await Deno.makeTempDir();
  await Deno.writeTextFile(`${root}/page`, "an ordinary page\n");
  await Deno.writeTextFile(`${root}/index.html`, "<p>home</p>\n");
  await Deno.utime(`${root}/page`, 1_700_000_000, 1_700_000_000);
  for (const make of [denoFront, nodeFront]) {
    for (const decoy of [staticDecoy(root), fixedDecoy({ status: 200, body: "hello\n" })]) {
      await using g = over(tell, { admission: guard(), decoy });
      await using front = await make(g.gateway.handler, { port: 0 });
      await using alone = await make(decoyAlone(decoy), { port: 0 });
      await Promise.all(
        failures().map(async ([name, request]) => {
          const [ours, theirs] = await Promise.all([
            raw(front.addr.port, request, 120),
            raw(alone.addr.port, request, 120),
          ]);
          assertEquals(dated(ours), dated(theirs), name);
          assert(ours.startsWith("HTTP/1.1 "), `${name}: ${ours}`);
        }),
      );
      assertEquals(g.upstream.server.connections.size, 0); // e-29: nobody came as far as Noise
    }
  }
  await Deno.remove(root, { recursive: true });
});

Deno.test("e-14, e-41: a replayed ticket and a rate-limited one look the same; so does what is cut off anywhere", async () => {
  const decoy = fixedDecoy({ status: 200, body: "hello\n" });
  const admission = guard({
    verifier: { keys: [key], limiter: new MemoryRateLimiter({ perMinute: 1, burst: 2 }) },
  });
  await using g = over(tell, { admission, decoy });
  await using front = denoFront(g.gateway.handler, { port: 0 });
  await using alone = denoFront(decoyAlone(decoy), { port: 0 });
  const request = `GET /?bn1=${makeTicket(key)} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
  assertStringIncludes(await raw(front.addr.port, request), '"path":"/"');
  const plain = dated(await raw(alone.addr.port, request));
  for (let i = 0; i < 4; i++) assertEquals(dated(await raw(front.addr.port, request)), plain);
  assert(g.gateway.metrics.tickets["rate-limited"] > 0 && g.gateway.metrics.tickets.replayed > 0);
  // Truncated at every length, then FIN: same answer, same end.
  const form =
    `POST / HTTP/1.1\r\nHost: a\r\nContent-Type: ${FORM}\r\nContent-Length: 20\r\n\r\nbn1=0123456789abcdef`;
  const cuts = Array.from({ length: Math.ceil(form.length / 6) }, (_, i) => form.slice(0, i * 6 + 1));
  await Promise.all(cuts.map(async (cut) => {
    const [ours, theirs] = await Promise.all([
      raw(front.addr.port, cut, 250, true),
      raw(alone.addr.port, cut, 250, true),
    ]);
    assertEquals(dated(ours), dated(theirs), JSON.stringify(cut));
  }));
});

Deno.test("e-14: every refusal takes the same counted expensive steps", async () => {
  const steps: TicketStep[] = [];
  const replay = new MemoryReplayStore();
  await using g = over(tell, {
    admission: guard({ verifier: { keys: [key], replay, onStep: (step) => steps.push(step) } }),
    forwarding: { trustedProxies: ["192.0.2.7"] },
  });
  const counts = new Map<string, string>();
  let n = 0;
  for (const [name, request] of failures()) {
    const [line, ...lines] = request.split("\r\n\r\n", 1)[0]!.split("\r\n");
    const [method, target] = line!.split(" ");
    if (method !== "GET" && method !== "POST") continue;
    if (/large|long|host/.test(name)) continue;
    steps.length = 0;
    const headers = lines.map((one) => one.split(/: (.*)/s).slice(0, 2) as [string, string])
      .filter(([header]) => !/^host$/i.test(header));
    const body = method === "POST" ? request.split("\r\n\r\n")[1]! : undefined;
    // Each from a network of its own, so that no bucket runs empty.
    headers.push(["x-forwarded-for", `10.${++n}.0.1`]);
    const response = await g.ask(target!, { method: method!, headers, ...(body !== undefined && { body }) });
    assertEquals(response.status, 404, name);
    await response.body?.cancel();
    counts.set(name, steps.join(","));
  }
  assertEquals(new Set(counts.values()).size, 1, JSON.stringify([...counts]));
  const all: TicketRefusal[] = [
    "missing",
    "malformed",
    "wrong-version",
    "unknown-key",
    "low-order-key",
    "non-canonical-key",
    "proof-failed",
    "repeated",
  ];
  for (const reason of all) assert(g.gateway.metrics.tickets[reason] > 0, reason);
});

Deno.test("e-39: no key, ticket, cookie, query or body stands in a log, at any level", async () => {
  const records: LogRecord[] = [];
  configureSync({
    reset: true,
    sinks: { memory: (record) => records.push(record) },
    loggers: [{ category: [], lowestLevel: "trace", sinks: ["memory"] }],
  });
  try {
    await using g = over(tell, { admission: guard() });
    const ticket = makeTicket(key);
    const first = await g.ask(`/path?bn1=${ticket}&secretquery=1`, {
      headers: { cookie: "login=secretcookie" },
    });
    const session = cookieOf(first);
    await first.text();
    const cookie = makeTicketCookie(key);
    await (await g.ask("/other", { headers: { cookie } })).text();
    const body = makeTicketBody(key);
    await (await g.ask("/form", {
      method: "POST",
      body: `${body}&a=secretbody`,
      headers: { "content-type": FORM, "content-length": String(body.length + 13) },
    })).text();
    await (await g.ask("/again", { method: "POST", body: "secretbody", headers: { cookie: session } }))
      .text();
    await (await g.ask(`/refused?bn1=${ticket}&secretquery=1`)).text();
    const text = JSON.stringify(records, (_name, value) => typeof value === "bigint" ? String(value) : value);
    assertStringIncludes(text, "/path");
    assertStringIncludes(text, "replayed");
    const privateHex = Array.from(key.privateKey, (byte) => byte.toString(16).padStart(2, "0")).join("");
    for (
      const secret of [
        ticket,
        cookie,
        body,
        session,
        session.split("=")[1]!,
        privateHex,
        "secretquery",
        "secretcookie",
        "secretbody",
        "bn1=",
      ]
    ) {
      assert(!text.includes(secret), secret);
    }
    const line = records.find(({ category, properties }) =>
      category[1] === "gateway" && properties["path"] === "/path"
    )!;
    const inside = records.find(({ category, properties }) =>
      category[1] === "handler" && properties["path"] === "/path"
    )!;
    assertEquals(inside.properties["id"], line.properties["id"]); // ids run through
    assertEquals(line.category, ["htx", "gateway"]);
    for (const name of ["id", "method", "status", "bytes", "time_ms", "upstream_time_ms"]) {
      assert(name in line.properties, name);
    }
  } finally {
    resetSync();
  }
});

Deno.test("carriers that the policy leaves out are not taken, and their tickets are removed all the same", async () => {
  await using g = over(tell, {
    admission: {
      ...guard(),
      verifier: { keys: [key] },
      policy: new TicketPolicy({ carriers: { cookie: 1 } }),
    },
  });
  assertEquals((await g.ask(`/?${makeTicketQuery(key)}`)).status, 404);
  const session = cookieOf(await g.ask("/", { headers: { cookie: makeTicketCookie(key) } }));
  const answer = await told(await g.ask("/?bn1=x&a", { headers: { cookie: session } }));
  assertEquals(answer.path, "/?a");
});

Deno.test("e-13: a ticket that somebody else spent first gives the decoy; the next one, at once, lets in", async () => {
  await using g = over(tell, { admission: guard() });
  const seen = makeTicketQuery(key);
  assertEquals((await g.ask(`/?${seen}`)).status, 200); // the thief
  assertEquals((await g.ask(`/?${seen}`)).status, 404);
  assertEquals((await g.ask(`/?${makeTicketQuery(key)}`)).status, 200);
});

Deno.test("e-28: a TLS front answers nobody in clear, so that no ticket is read there", async () => {
  await using g = over(tell, { admission: guard() });
  const base = await Deno.makeTempDir();
  const pem = await makeCertificate(base);
  await Deno.remove(base, { recursive: true });
  await using front = denoFront(g.gateway.handler, { port: 0, tls: pem });
  const answer = await raw(front.addr.port, `GET /?${makeTicketQuery(key)} HTTP/1.1\r\nHost: a\r\n\r\n`);
  assert(!answer.includes("HTTP/1.1 200"), answer);
  assertEquals(g.gateway.metrics.tickets.accepted, 0);
});
