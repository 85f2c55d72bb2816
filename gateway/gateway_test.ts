import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Hono } from "hono";
import { streamText } from "hono/streaming";
import { timingSafeEqual } from "../core/bytes.ts";
import { HtxError } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { serveHttpExchange } from "../transport/mod.ts";
import { type LocalUpstream, localUpstream } from "./local.ts";
import { curl, over, overStreams, PEER, raw, serve, tell, told, until } from "./_testing.ts";
import { createGateway } from "./gateway.ts";
import { denoFront } from "./front.ts";
import { nodeFront } from "./node_front.ts";

Deno.test("a request reaches the upstream with method, path, fields and body, and its answer comes back", async () => {
  await using g = over(tell);
  const answer = await told(
    await g.ask("/a/%2e%2e/b?x=1&y", {
      method: "POST",
      body: "hello",
      headers: { "x-own": "1", cookie: "k=v" },
    }),
  );
  assertEquals(answer.method, "POST");
  assertEquals(answer.body, "hello");
  assertEquals(answer.header("x-own"), "1");
  assertEquals(answer.header("cookie"), "k=v");
});

Deno.test("the raw path is forwarded as received (curl --path-as-is)", async () => {
  await using g = over((_request, info) => new Response(info.rawPath));
  await using front = denoFront(g.gateway.handler, { port: 0 });
  for (const path of ["/a/../b", "/%2e%2e/x", "//x", '/a|b^c"<>?q=%00&q=a+b', "/?", "/a;b=c/./d", "/%zz"]) {
    assertEquals((await curl("-g", `http://127.0.0.1:${front.addr.port}${path}`)).out, path);
  }
  assertStringIncludes(
    await raw(front.addr.port, "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    "\r\n\r\n*",
  );
});

Deno.test("hop-by-hop fields are dropped both ways, and what connection names", async () => {
  await using g = over(async (request, info) => {
    const answer = await tell(request, info);
    answer.headers.set("connection", "x-hop");
    answer.headers.set("x-hop", "1");
    answer.headers.set("keep-alive", "timeout=5");
    answer.headers.append("set-cookie", "a=1");
    answer.headers.append("set-cookie", "b=2");
    return answer;
  });
  await using front = denoFront(g.gateway.handler, { port: 0 });
  const { out } = await curl(
    "-i",
    ...[
      "Connection: x-mine, x-forwarded-for",
      "X-Mine: 1",
      "Keep-Alive: 3",
      "TE: gzip",
      "Upgrade: h2c",
      "Proxy-Connection: x",
    ]
      .flatMap((line) => ["-H", line]),
    `http://127.0.0.1:${front.addr.port}/`,
  );
  const [head, body] = out.split("\r\n\r\n");
  for (const name of ["x-mine", "keep-alive", '"te"', "upgrade", "proxy-connection", '"connection"']) {
    assert(!body!.includes(name), name);
  }
  assert(!/x-hop|keep-alive: timeout=5/i.test(head!), head);
  assertStringIncludes(head!, "set-cookie: a=1\r\nset-cookie: b=2");
  // A client cannot have the gateway's own fields dropped by naming them (e-18).
  assertStringIncludes(body!, '["x-forwarded-for","127.0.0.1"]');
});

Deno.test("e-18: forwarding fields of an untrusted client are replaced, not extended", async () => {
  await using g = over(tell);
  const answer = await told(
    await g.ask("/", {
      headers: {
        "x-forwarded-for": "1.1.1.1",
        forwarded: "for=1.1.1.1",
        "x-real-ip": "1.1.1.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil",
        "x-forwarded-port": "1",
      },
    }),
  );
  assertEquals(answer.header("x-forwarded-for"), "192.0.2.7");
  assertEquals(answer.header("forwarded"), "for=192.0.2.7;host=site.example;proto=http");
  assertEquals(answer.header("x-forwarded-proto"), "http");
  assertEquals(answer.header("x-forwarded-host"), "site.example");
  assertEquals(answer.header("x-real-ip"), undefined);
  assertEquals(answer.header("x-forwarded-port"), undefined);
});

Deno.test("e-18: a trusted proxy's chain is read from the right", async () => {
  await using g = over(tell, { forwarding: { trustedProxies: ["192.0.2.0/24", "10.0.0.0/8"] } });
  const answer = await told(
    await g.ask("/", {
      headers: { "x-forwarded-for": "6.6.6.6, 203.0.113.9, 10.1.1.1", "x-forwarded-proto": "https" },
    }),
  );
  assertEquals(answer.header("x-forwarded-for"), "203.0.113.9, 10.1.1.1, 192.0.2.7");
  assertEquals(answer.header("x-forwarded-proto"), "https");
  const nonsense = await told(await g.ask("/", { headers: { "x-forwarded-for": "8.8.8.8, unknown" } }));
  assertEquals(nonsense.header("x-forwarded-for"), "192.0.2.7");
});

Deno.test("HEAD, 204 and 304 have no body; HEAD keeps its content-length", async () => {
  await using g = over((request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/204") return new Response(null, { status: 204 });
    if (pathname === "/304") return new Response(null, { status: 304, headers: { etag: '"x"' } });
    return new Response(request.method === "HEAD" ? null : "12345", { headers: { "content-length": "5" } });
  });
  for (const make of [denoFront, nodeFront]) {
    await using front = await make(g.gateway.handler, { port: 0 });
    const url = `http://127.0.0.1:${front.addr.port}`;
    assertStringIncludes((await curl("-I", `${url}/`)).out.toLowerCase(), "content-length: 5");
    assertStringIncludes((await curl("-i", `${url}/204`)).out, "204 No Content");
    assertStringIncludes((await curl("-i", `${url}/304`)).out, 'etag: "x"');
    assertEquals((await curl(`${url}/`)).out, "12345");
  }
});

Deno.test("a HEAD whose answer tells no length is given none", async () => {
  const bytes = new TextEncoder().encode("nobody knows how much");
  await using g = over(() => new Response(ReadableStream.from([bytes])));
  for (const make of [denoFront, nodeFront]) {
    await using front = await make(g.gateway.handler, { port: 0 });
    const url = `http://127.0.0.1:${front.addr.port}/`;
    const { out } = await curl("-I", url);
    assertStringIncludes(out, "200 OK");
    assert(!out.toLowerCase().includes("content-length"), out); // RFC 9110 §8.6: it would be the one of a GET
    assertEquals((await curl(url)).out, "nobody knows how much");
  }
});

Deno.test("GET and HEAD that announce a body get 400, TRACE and CONNECT 501", async () => {
  await using g = over(tell);
  await using front = denoFront(g.gateway.handler, { port: 0 });
  const { port } = front.addr;
  for (
    const [head, status] of [
      ["GET / HTTP/1.1\r\nContent-Length: 3", 400],
      ["HEAD / HTTP/1.1\r\nContent-Length: 3", 400],
      ["GET / HTTP/1.1\r\nTransfer-Encoding: chunked", 400],
      ["GET / HTTP/1.1\r\nContent-Length: 0", 200],
      ["TRACE / HTTP/1.1", 501],
      ["CONNECT a:80 HTTP/1.1", 501],
      ["GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket", 501],
    ] as const
  ) {
    assertStringIncludes(await raw(port, `${head}\r\nHost: a\r\n\r\n`), `HTTP/1.1 ${status} `, head);
  }
});

Deno.test("e-45: hostile HTTP is refused or carried as the one request it is", async () => {
  const seen: string[] = [];
  await using g = over(async (request, info) => {
    seen.push(`${request.method} ${info.rawPath} ${await request.text()}`);
    return new Response("ok");
  });
  for (const make of [denoFront, nodeFront]) {
    await using front = await make(g.gateway.handler, { port: 0 });
    const { port } = front.addr;
    const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (
      const attack of [
        `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
        `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcd${smuggled}`,
        `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${smuggled}`,
        `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n${smuggled}`,
        `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n${smuggled}`,
        `GET /\u0000x HTTP/1.1\r\nHost: a\r\n\r\n`,
        `GET /x#frag HTTP/1.1\r\nHost: a\r\n\r\n`,
        `GET /x HTTP/1.1\r\nHost: a/../b\r\n\r\n`,
        `GET /x HTTP/1.1\r\nHost: a@b\r\n\r\n`,
        `GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n`,
        `GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\u0000c\r\n\r\n`,
        `GET x HTTP/1.1\r\nHost: a\r\n\r\n`,
        `GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
        `GET / HTTP/1.1\r\nHost: a\r\nX-Big: ${"a".repeat(40_000)}\r\n\r\n`,
      ]
    ) {
      const answer = await raw(port, attack, 150);
      assert(
        /^(?:<end>|HTTP\/1\.1 (?:4\d\d|501) )/.test(answer),
        `${attack.slice(0, 60)}: ${answer.slice(0, 80)}`,
      );
    }
    // A body that looks like requests stays a body.
    const body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    await raw(port, `POST /real HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`, 150);
    assertEquals(seen.pop(), `POST /real ${body}`);
  }
  assert(!seen.some((line) => line.includes(" /smuggled")), seen.join("\n"));
});

Deno.test("upstream down is 502, slow 504, refused 503: short plain text", async (t) => {
  await t.step("down", async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    listener.close();
    await using gateway = createGateway({ upstream: { port, publicKey: KeyPair.generate().publicKey } });
    const response = await gateway.handler(new Request("http://a/"), PEER);
    assertEquals(response.status, 502);
    assertEquals(response.headers.get("content-type"), "text/plain; charset=utf-8");
    assertEquals(await response.text(), "502 Bad Gateway: the upstream cannot be reached\n");
    assertEquals(gateway.metrics.outcomes["upstream-down"], 1);
  });
  await t.step("slow", async () => {
    await using g = over((request) =>
      new Promise((resolve) => {
        request.signal.addEventListener("abort", () => resolve(new Response()));
      }), { limits: { responseTimeoutMs: 120 } });
    const response = await g.ask("/");
    assertEquals(response.status, 504);
    await response.body?.cancel();
  });
  await t.step("refused", async () => {
    await using g = overStreams((stream) => stream.reset("REFUSED"));
    const response = await g.ask("/");
    assertEquals([response.status, response.headers.get("retry-after")], [503, "1"]);
    await response.body?.cancel();
  });
  await t.step("not let in by the upstream", async () => {
    await using server = serve(() => new Response(), { authorize: () => false, handshakeTimeoutMs: 200 });
    await using gateway = createGateway({
      upstream: { port: server.addr.port!, publicKey: server.publicKey },
    });
    const response = await gateway.handler(new Request("http://a/"), PEER);
    assertEquals(response.status, 503);
    await response.body?.cancel();
  });
});

Deno.test("the client's abort resets the stream", async () => {
  const aborted = Promise.withResolvers<void>();
  await using g = over((request) => {
    request.signal.addEventListener("abort", () => aborted.resolve());
    return new Promise<Response>((resolve) => aborted.promise.then(() => resolve(new Response())));
  });
  await using front = denoFront(g.gateway.handler, { port: 0 });
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
  await conn.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  await until(() => g.gateway.metrics.active === 1);
  conn.close();
  await aborted.promise;
  await until(() => g.gateway.metrics.active === 0);
  assertEquals(g.gateway.metrics.outcomes["client-gone"], 1);
});

Deno.test("an answer that its client does not read is cut in time, and holds no place any more", async () => {
  for (const make of [denoFront, nodeFront]) {
    const endless = () =>
      new ReadableStream<Uint8Array>({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) });
    await using g = over(() => new Response(endless()), { limits: { idleTimeoutMs: 300 } });
    await using front = await make(g.gateway.handler, { port: 0 });
    const { metrics } = g.gateway;
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    await conn.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    await until(() => metrics.active === 1);
    await until(() => metrics.active === 0);
    assertEquals(metrics.outcomes.cut, 1);
    // What was on its way is still there, and then an end that is none of the answer's.
    let last = new Uint8Array(0);
    const buffer = new Uint8Array(65_536);
    for (let n: number | null = 0; n !== null; n = await conn.read(buffer).catch(() => null)) {
      if (n > 0) last = buffer.slice(0, n);
    }
    assert(!new TextDecoder().decode(last).endsWith("\r\n0\r\n\r\n"));
  }
});

Deno.test("a client that breaks off its upload is a client that has gone, with both fronts", async () => {
  for (const make of [denoFront, nodeFront]) {
    const began = Promise.withResolvers<void>();
    await using g = over(async (request) => {
      began.resolve();
      return new Response(await request.text());
    });
    await using front = await make(g.gateway.handler, { port: 0 });
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    await conn.write(new TextEncoder().encode(head));
    await began.promise;
    conn.close();
    const { metrics } = g.gateway;
    await until(() => metrics.active === 0);
    assertEquals([metrics.outcomes["client-gone"], metrics.outcomes["bad-request"]], [1, 0]);
  }
});

Deno.test("a cancelled answer resets the stream, a broken one is cut so that the client sees it", async () => {
  let cancelled = 0;
  await using g = over((request) => {
    let n = 0;
    return new Response(
      new ReadableStream({
        pull: (controller) => {
          if (request.url.endsWith("/break") && n > 2) throw new Error("broke");
          controller.enqueue(new Uint8Array(1000).fill(n++));
          return new Promise((resolve) => setTimeout(resolve, 2));
        },
        cancel: () => {
          cancelled++;
        },
      }),
    );
  });
  await using front = denoFront(g.gateway.handler, { port: 0 });
  const url = `http://127.0.0.1:${front.addr.port}`;
  const response = await fetch(`${url}/x`);
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  await until(() => cancelled === 1);
  assertEquals((await curl("-o", "/dev/null", `${url}/break`)).code, 18);
});

Deno.test("server-sent events arrive as they are produced, with both fronts", async () => {
  for (const make of [denoFront, nodeFront]) {
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let n = 0;
    await using g = over(() =>
      new Response(
        new ReadableStream({
          pull: async (controller) => {
            if (n === 2) return controller.close();
            await gates[n]!.promise;
            controller.enqueue(new TextEncoder().encode(`data: ${n++}\n\n`));
          },
        }),
        { headers: { "content-type": "text/event-stream" } },
      )
    );
    await using front = await make(g.gateway.handler, { port: 0 });
    const asking = fetch(`http://127.0.0.1:${front.addr.port}/`);
    gates[0]!.resolve();
    const reader = (await asking).body!.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await reader.read()).value, "data: 0\n\n"); // while the second is not there yet
    gates[1]!.resolve();
    assertEquals((await reader.read()).value, "data: 1\n\n");
    assert((await reader.read()).done);
  }
});

/** 8 MiB that no two places of look alike, in pieces of all sizes. */
function patterned(): { whole: Uint8Array<ArrayBuffer>; stream: () => ReadableStream<Uint8Array> } {
  const words = new Uint32Array(1 << 21);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 0x9e3779b1);
  const whole = new Uint8Array(words.buffer);
  const stream = () => {
    let at = 0, n = 0;
    return new ReadableStream<Uint8Array>({
      pull: (controller) => {
        if (at === whole.length) return controller.close();
        const end = Math.min(whole.length, at + [1, 5000, 65_536, 300_000][n++ % 4]!);
        controller.enqueue(whole.slice(at, end));
        at = end;
      },
    }, { highWaterMark: 0 });
  };
  return { whole, stream };
}

Deno.test("a download arrives whole behind Deno.serve, whoever wraps the handler and however the client reads", async (t) => {
  const { whole, stream } = patterned();
  await using g = over((request) => {
    const type = request.url.endsWith("/compressed") ? "text/plain" : "application/octet-stream";
    return new Response(stream(), { headers: { "content-type": type } }); // Deno's server compresses text
  });
  let copies: Promise<Uint8Array>[] = [];
  const wraps: Record<string, (response: Response) => Response> = {
    "as it is": (response) => response,
    "cloned by somebody who reads the copy": (response) => {
      copies.push(response.clone().bytes());
      return response;
    },
    "its clone, while somebody reads the original": (response) => {
      const clone = response.clone();
      copies.push(response.bytes());
      return clone;
    },
    "piped through something with a queue": (response) => {
      const queue = new TransformStream<Uint8Array, Uint8Array>({}, { highWaterMark: 8 }, {
        highWaterMark: 8,
      });
      return new Response(response.body!.pipeThrough(queue));
    },
    "its stream in another response": (response) => new Response(response.body, { headers: { "x-a": "1" } }),
  };
  for (const [name, wrap] of Object.entries(wraps)) {
    await t.step(name, async () => {
      copies = [];
      const { handler } = g.gateway;
      await using front = denoFront(async (request, info) => wrap(await handler(request, info)), { port: 0 });
      const url = `http://127.0.0.1:${front.addr.port}/`;
      assert(timingSafeEqual(await (await fetch(url)).bytes(), whole));
      // A client that reads little by little: many chunks wait in the server at once.
      const { body } = await fetch(url);
      let at = 0;
      for await (const chunk of body!) {
        assert(timingSafeEqual(chunk, whole.subarray(at, at += chunk.length)));
        if (at % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assertEquals(at, whole.length);
      assert(timingSafeEqual(await (await fetch(`${url}compressed`)).bytes(), whole));
      for (const copy of copies) assert(timingSafeEqual(await copy, whole));
    });
  }
});

Deno.test("an upload is forwarded chunk by chunk", async () => {
  const first = Promise.withResolvers<string>();
  await using g = over(async (request) => {
    const reader = request.body!.pipeThrough(new TextDecoderStream()).getReader();
    first.resolve((await reader.read()).value ?? "");
    let rest = "";
    for (let read = await reader.read(); !read.done; read = await reader.read()) rest += read.value;
    return new Response(rest);
  });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const asking = g.ask("/", {
    method: "POST",
    body: readable as ReadableStream<Uint8Array<ArrayBuffer>>,
    duplex: "half",
  });
  writer.write(new TextEncoder().encode("one"));
  assertEquals(await first.promise, "one");
  await writer.write(new TextEncoder().encode("two"));
  await writer.close();
  assertEquals(await (await asking).text(), "two");
});

Deno.test("limits: header bytes 431, body 413 announced or not, concurrency 503 with retry-after", async () => {
  const gate = Promise.withResolvers<void>();
  await using g = over(async (request) => {
    await request.text().catch(() => {});
    await gate.promise;
    return new Response("ok");
  }, { limits: { headerBytes: 512, bodyBytes: 10, concurrentRequests: 1 } });
  const status = async (init: Parameters<typeof g.ask>[1]) => {
    const response = await g.ask("/", init);
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await status({ headers: { a: "x".repeat(600) } }), 431);
  assertEquals(
    await status({ method: "POST", body: "x".repeat(11), headers: { "content-length": "11" } }),
    413,
  );
  const { promise: givenUp, resolve: cancel } = Promise.withResolvers<void>();
  const endless = new ReadableStream({ pull: (c) => c.enqueue(new Uint8Array(8)), cancel: () => cancel() });
  assertEquals(await status({ method: "POST", body: endless, duplex: "half" }), 413);
  await givenUp; // else the front holds the rest back, and its connection never comes to the next request
  const running = g.ask("/");
  await until(() => g.gateway.metrics.active === 1);
  const refused = await g.ask("/");
  assertEquals([refused.status, refused.headers.get("retry-after")], [503, "1"]);
  await refused.body?.cancel();
  gate.resolve();
  assertEquals(await (await running).text(), "ok");
});

Deno.test("an idempotent request that its dying session cuts is sent once more on another", async () => {
  let died = 0;
  const seen: string[] = [];
  await using g = overStreams((stream, info) =>
    serveHttpExchange(stream, (request) => {
      seen.push(request.method);
      if (died++ === 0) {
        info.connection.abort();
        return new Promise<never>(() => {}) as never;
      }
      return { status: 200, fields: [], body: "again" };
    }).catch(() => {})
  );
  assertEquals(await (await g.ask("/")).text(), "again");
  assertEquals(seen, ["GET", "GET"]);
  assertEquals(g.gateway.metrics.retries, 1);
  died = 0;
  const post = await g.ask("/", { method: "POST" });
  assertEquals(post.status, 502);
  await post.body?.cancel();
  assertEquals(seen, ["GET", "GET", "POST"]);
});

Deno.test("an upstream that drains refuses with GOING_AWAY, and even a POST goes to another session", async () => {
  let refusing = true;
  await using g = overStreams((stream) => {
    if (refusing) {
      refusing = false;
      return stream.reset("GOING_AWAY");
    }
    return serveHttpExchange(stream, () => ({ status: 200, fields: [], body: "here" }));
  });
  assertEquals(await (await g.ask("/", { method: "POST" })).text(), "here");
});

Deno.test("e-44: when the upstream in use goes away, traffic moves at once", async () => {
  const servers = [1, 2, 3].map((n) => serve(() => new Response(String(n))));
  const gateway = createGateway({
    upstream: servers.map((server) => ({ port: server.addr.port!, publicKey: server.publicKey })),
  });
  const ask = async () => await (await gateway.handler(new Request("http://a/"), PEER)).text();
  await until(() => gateway.stats.upstreams.every((one) => one.state === "validated"));
  for (let left = 3; left > 1; left--) {
    const active = gateway.stats.upstreams.findIndex((one) => one.active);
    servers[active]!.abort();
    const started = performance.now();
    const answer = await ask();
    assert(performance.now() - started < 300);
    assert(answer !== String(active + 1) && /^[123]$/.test(answer), answer);
  }
  await gateway.close();
  for (const server of servers) await server.shutdown({ graceMs: 0 });
});

Deno.test("e-44: a silent upstream is left within 300 ms", async () => {
  let mute = false;
  const silent = localUpstream(() => new Response("silent"));
  const slower = localUpstream(() => new Response("slower"));
  const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  /** The upstream with what it writes and reads passing through `on`. */
  const through = (upstream: LocalUpstream, on: (bytes: "read" | "write") => Promise<unknown>) => ({
    publicKey: upstream.publicKey,
    name: upstream.name,
    dial: async () => {
      const duplex = await upstream.dial!({});
      const io = duplex.io!;
      return {
        ...duplex,
        io: {
          read: async (into: Uint8Array) => {
            const n = await io.read(into);
            if (n !== null) await on("read");
            return n;
          },
          write: async (data: Uint8Array) => {
            await on("write");
            await io.write(data);
          },
          closeWrite: () => io.closeWrite(),
          close: () => io.close(),
        },
      };
    },
  });
  const hanging = Promise.withResolvers<void>();
  const gateway = createGateway({
    upstream: [
      through({ ...silent, name: "silent" }, async () => {
        if (mute) await hanging.promise;
      }),
      through({ ...slower, name: "slower" }, (what) => what === "write" ? later(30) : Promise.resolve()),
    ],
    sessions: { closeTimeoutMs: 20 },
  });
  const ask = async () => await (await gateway.handler(new Request("http://a/"), PEER)).text();
  await until(() => gateway.stats.upstreams.every((one) => one.state === "validated"));
  await until(async () => await ask() === "silent");
  mute = true;
  const started = performance.now();
  assertEquals(await ask(), "slower");
  const took = performance.now() - started;
  assert(took < 400, `took ${took} ms`); // 300 ms, and this upstream's own 30 ms and more
  assert(gateway.metrics.switches >= 1);
  await until(() => performance.now() - started > 1000);
  mute = false;
  hanging.resolve();
  // It is as near as before: its absence is no distance, which the next fail-over would wait for twice.
  const back = () => gateway.stats.upstreams.find(({ name }) => name === "silent")!;
  await until(() => back().state === "validated");
  assert(back().rttMs! < 50, `${back().rttMs} ms`);
  await gateway.close();
  await silent[Symbol.asyncDispose]();
  await slower[Symbol.asyncDispose]();
  await later(60); // what `slower` still holds back
});

Deno.test("e-38: a gateway refuses to dial itself", () => {
  const keyPair = KeyPair.generate();
  try {
    createGateway({ keyPair, upstream: { port: 1, publicKey: keyPair.publicKey } });
    throw new Error("not refused");
  } catch (error) {
    assert(error instanceof TypeError);
    assertStringIncludes(error.message, "own key");
  }
});

Deno.test("issue 2: a Hono application runs unchanged behind the gateway", async () => {
  const app = new Hono();
  app.get("/hello/:name", (c) => c.text(`hello ${c.req.param("name")} ${c.req.query("q")}`));
  app.get("/json", (c) => c.json({ ok: true }, 201));
  app.get("/stream", (c) =>
    streamText(c, async (stream) => {
      for (let i = 0; i < 3; i++) await stream.writeln(String(i));
    }));
  app.get("/cookie", (c) => {
    c.header("set-cookie", "a=1; Path=/", { append: true });
    c.header("set-cookie", "b=2; Path=/", { append: true });
    return c.text(c.req.header("cookie") ?? "");
  });
  app.post("/size", async (c) => c.json({ size: (await c.req.arrayBuffer()).byteLength }));
  app.get("/fail", () => {
    throw new Error("own error");
  });
  app.onError((_error, c) => c.text("handled", 500));
  await using g = over((request) => app.fetch(request));
  await using front = denoFront(g.gateway.handler, { port: 0 });
  const url = `http://127.0.0.1:${front.addr.port}`;
  assertEquals(await (await fetch(`${url}/hello/tea?q=%20x`)).text(), "hello tea  x");
  const json = await fetch(`${url}/json`);
  assertEquals([json.status, json.headers.get("content-type"), await json.json()], [201, "application/json", {
    ok: true,
  }]);
  assertEquals(await (await fetch(`${url}/stream`)).text(), "0\n1\n2\n");
  const cookie = await fetch(`${url}/cookie`, { headers: { cookie: "x=y; z" } });
  assertEquals(cookie.headers.getSetCookie(), ["a=1; Path=/", "b=2; Path=/"]);
  assertEquals(await cookie.text(), "x=y; z");
  const big = await fetch(`${url}/size`, { method: "POST", body: new Uint8Array(5 << 20) });
  assertEquals(await big.json(), { size: 5 << 20 });
  const fail = await fetch(`${url}/fail`);
  assertEquals([fail.status, await fail.text()], [500, "handled"]);
  assertEquals(await (await fetch(`${url}/none`)).text(), "404 Not Found");
});

Deno.test("103 and trailers go through the node front, and are dropped by Deno.serve", async () => {
  await using g = over(async (_request, info) => {
    await info.sendInformational(103, { link: "</a.css>; rel=preload" });
    info.setTrailers({ "x-sum": "7" });
    return new Response(ReadableStream.from([new TextEncoder().encode("body")]), {
      headers: { trailer: "x-sum" },
    });
  });
  await using node = await nodeFront(g.gateway.handler, { port: 0 });
  const answer = await raw(node.addr.port, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  assertStringIncludes(answer, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload");
  assertStringIncludes(answer.toLowerCase(), "0\r\nx-sum: 7\r\n\r\n");
  await using deno = denoFront(g.gateway.handler, { port: 0 });
  const plain = await raw(deno.addr.port, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  assert(!/103 Early|x-sum/i.test(plain), plain);
});

Deno.test("a malformed answer of the upstream is 502", async () => {
  await using g = overStreams(async (stream) => {
    await stream.write(new Uint8Array([9, 9, 9]), { end: true });
  });
  const response = await g.ask("/");
  assertEquals(response.status, 502);
  await response.body?.cancel();
});

Deno.test("shutdown lets running requests finish, and cuts what is late with an error that the client sees", async () => {
  const gate = Promise.withResolvers<void>();
  const upstream = over(async (request) => {
    if (request.url.endsWith("/never")) {
      return new Response(new ReadableStream({ pull: () => new Promise(() => {}) }));
    }
    await gate.promise;
    return new Response("done");
  });
  const slow = upstream.ask("/slow");
  const never = await upstream.ask("/never");
  await until(() => upstream.gateway.metrics.active === 2);
  const stopping = upstream.gateway.shutdown({ graceMs: 150 });
  const late = await upstream.ask("/late");
  assertEquals(late.status, 503);
  await late.body?.cancel();
  gate.resolve();
  assertEquals(await (await slow).text(), "done");
  let error: unknown;
  await never.text().catch((one) => error = one);
  assert(error instanceof HtxError);
  await stopping;
  await upstream[Symbol.asyncDispose]();
});
