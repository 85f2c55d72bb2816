import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { connectOverStream, encodeHttpRequest, serveHttpExchange } from "../transport/mod.ts";
import { overStreams, PEER } from "./_testing.ts";
import { appendForwarding, ForwardingPolicy } from "./forwarded.ts";
import { parseRequest, pathOf } from "./request.ts";

/** What Deno's server hands out: a request whose URL and method nothing has touched. */
function received(url: string, method = "GET", headers: [string, string][] = []): Request {
  const request = new Request("http://a/", { headers });
  Object.defineProperties(request, { url: { value: url }, method: { value: method } });
  return request;
}

const parse = (url: string, method?: string, headers?: [string, string][]) =>
  parseRequest(received(url, method, headers), PEER, 32_768);

Deno.test("parseRequest() takes the path byte for byte, and a Host with a slash moves no border", () => {
  for (const path of ["/", "/a/../b", "/%2e%2e/?q#".slice(0, -1), "/a//b?x=1&x=2", "/\\x", "/?"]) {
    assertEquals(parse(`http://host:81${path}`, "GET", [["host", "host:81"]]).path, path);
  }
  const odd = parse("http://a/../b/p", "GET", [["host", "a/../b"]]);
  assertEquals([odd.path, odd.fault?.status], ["/p", 400]);
  assertEquals(parse("http://host", "GET").path, "/");
  assertEquals(parse("http://host?x", "GET").path, "/?x");
  assertEquals(parse("http://host/*", "OPTIONS").path, "*");
  assertEquals(parse("http://other/x", "GET", [["host", "mine"]]).authority, "other"); // absolute form (RFC 9112 §3.2.2)
});

Deno.test("e-45: parseRequest() judges all lines of a field together, also where the front tells them apart", () => {
  const lines = (...fields: [string, string][]) =>
    parseRequest(received("http://a/", "POST"), { ...PEER, fields: [["host", "a"], ...fields] }, 32_768);
  const coded = lines(["transfer-encoding", "gzip"], ["transfer-encoding", "chunked"]);
  assertEquals([coded.transferEncoding, coded.fault?.status], ["gzip, chunked", 501]);
  assertEquals(lines(["transfer-encoding", "chunked"]).fault, undefined);
  const form = lines(
    ["content-type", "text/plain"],
    ["content-type", "application/x-www-form-urlencoded"],
    ["content-encoding", "gzip"],
    ["content-encoding", "identity"],
  );
  // What a front that joins them shows.
  assertEquals(form.contentType, "text/plain, application/x-www-form-urlencoded");
  assertEquals(form.contentEncoding, "gzip, identity");
});

Deno.test("e-39: pathOf() leaves out query and fragment, whichever comes first", () => {
  for (const path of ["/a", "/a?bn1=x", "/a#bn1=x", "/a#b?bn1=x", "/a?b#bn1=x"]) {
    assertEquals(pathOf(path), "/a");
  }
});

Deno.test("pathOf() shows as escapes what would steer a terminal or break a line of a log", () => {
  assertEquals(
    pathOf("/\u009b31m\u0085\u2028\u202e\x1b\n é\ud800?x"),
    "/%C2%9B31m%C2%85%E2%80%A8%E2%80%AE%1B%0A%20%C3%A9%EF%BF%BD",
  );
  assertEquals(pathOf("/a%20b/~|^"), "/a%20b/~|^");
});

Deno.test("parseRequest() never throws, and what it finds no fault with can be encoded (e-45)", () => {
  const name = fc.constantFrom(
    "host",
    "connection",
    "upgrade",
    "te",
    "cookie",
    "content-length",
    "forwarded",
    "x-a",
    "expect",
  );
  const value = fc.string({
    unit: fc.constantFrom("a", "1", ",", ";", " ", "=", '"', "upgrade", "x-a", "%", "chunked"),
    maxLength: 12,
  });
  fc.assert(
    fc.property(
      fc.string({
        unit: fc.constantFrom("a", "/", ".", "%", "?", "#", ":", "@", "[", "]", " ", "é", "\\", "|", "~"),
        maxLength: 20,
      }),
      fc.constantFrom("GET", "POST", "OPTIONS", "CONNECT", "TRACE", "PUT", "X"),
      fc.array(fc.tuple(name, value), { maxLength: 6 }),
      (rest, method, headers) => {
        const parsed = parse(`http://${rest}`, method, headers.map(([n, v]) => [n, v.trim()]));
        if (parsed.fault !== undefined) return;
        const fields = [...parsed.fields];
        const policy = new ForwardingPolicy({ trustedProxies: ["192.0.2.0/24"] });
        appendForwarding(fields, policy.facts("192.0.2.7", false, parsed.authority, parsed.forwarding));
        try {
          encodeHttpRequest({
            method,
            scheme: "http",
            authority: parsed.authority,
            path: parsed.path,
            fields,
          });
        } catch (error) {
          // The one thing left to the encoder is a content-length that is no number, which fronts refuse before.
          assert(error instanceof TypeError && error.message.includes("content-length"), String(error));
        }
      },
    ),
    { numRuns: 2000 },
  );
});

Deno.test("e-18: whatever a client writes, an untrusted peer's chain is the peer alone", () => {
  const open = new ForwardingPolicy();
  const closed = new ForwardingPolicy({
    trustedProxies: ["10.0.0.0/8", "2001:db8::/32"],
    proxyHeader: "forwarded",
  });
  fc.assert(
    fc.property(fc.string(), fc.string(), (forwarded, list) => {
      const fields = { forwarded, for: list, proto: "https", host: "evil" };
      assertEquals(open.facts("203.0.113.1", false, "h", fields).chain, ["203.0.113.1"]);
      assertEquals(closed.facts("203.0.113.1", false, "h", fields).scheme, "http");
      const { chain } = closed.facts("10.1.1.1", false, "h", fields);
      assertEquals(chain.at(-1), "10.1.1.1");
      for (const hop of chain.slice(1)) assert(closed.isTrusted(hop));
    }),
    { numRuns: 500 },
  );
});

Deno.test("Forwarded of a trusted proxy: quoted, with ports, IPv6, from the right", () => {
  const policy = new ForwardingPolicy({
    trustedProxies: ["10.0.0.1", "2001:db8::/32"],
    proxyHeader: "forwarded",
  });
  const facts = policy.facts("10.0.0.1", false, "h", {
    forwarded:
      'for=1.2.3.4, for="[2001:db8:0::7]:443";proto=https;host="site.example", for=198.51.100.7;proto=https;host=site.example',
    for: "6.6.6.6",
  });
  assertEquals(facts, {
    address: "198.51.100.7",
    chain: ["198.51.100.7", "10.0.0.1"],
    scheme: "https",
    host: "site.example",
  });
  const through = policy.facts("10.0.0.1", false, "h", {
    forwarded:
      'for=1.2.3.4;proto=http, for=198.51.100.9;proto=https;host=a.example, for="[2001:db8::7]:443";proto=http',
  });
  assertEquals(through.chain, ["198.51.100.9", "2001:db8::7", "10.0.0.1"]);
  assertEquals([through.scheme, through.host], ["https", "a.example"]);
  const fields: [string, string][] = [];
  appendForwarding(fields, through);
  assertEquals(fields, [
    ["forwarded", 'for=198.51.100.9;host=a.example;proto=https, for="[2001:db8::7]", for=10.0.0.1'],
    ["x-forwarded-for", "198.51.100.9, 2001:db8::7, 10.0.0.1"],
    ["x-forwarded-host", "a.example"],
    ["x-forwarded-proto", "https"],
  ]);
  assertEquals(policy.facts("::ffff:192.0.2.1", false, "h", undefined).address, "192.0.2.1");
  for (const bad of ["10.0.0.0/33", "10.0.0", "x", "::/129", "10.0.0.0/"]) {
    assertThrows(() => new ForwardingPolicy({ trustedProxies: [bad] }), TypeError);
  }
});

Deno.test("onUpgrade gets WebSocket requests that were let in, with the head to send upstream", async () => {
  let answered = "";
  await using g = overStreams((stream) =>
    serveHttpExchange(stream, (request) => {
      answered = `${request.method} ${request.path}`;
      return {
        status: 200,
        fields: [["sec-websocket-protocol", "chat"]],
        upgrade: (tunnel) => tunnel.closeWrite(),
      };
    }), {
    onUpgrade: async (upgrade) => {
      const stream = await upgrade.open();
      const { status, tunnel } = await connectOverStream(stream, upgrade.head);
      await tunnel!.closeWrite();
      const end = upgrade.hold(() => {});
      end();
      return new Response(
        `${status} ${upgrade.client.address} ${
          upgrade.head.fields.some(([name]) => name === "sec-websocket-key")
        }`,
      );
    },
  });
  const headers = {
    connection: "keep-alive, Upgrade",
    upgrade: "websocket",
    "sec-websocket-key": "x",
    "sec-websocket-version": "13",
  };
  assertEquals(await (await g.ask("/chat?x", { headers })).text(), "200 192.0.2.7 false");
  assertEquals(answered, "CONNECT /chat?x");
  assertEquals(g.gateway.metrics.outcomes.upgraded, 1);
});
