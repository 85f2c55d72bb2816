import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { type HttpHandler, type HttpStream, serveHttpExchange } from "../transport/mod.ts";
import { over, overStreams, PEER, serve, until } from "./_testing.ts";
import { denoFront } from "./front.ts";
import { createGateway, type Gateway } from "./gateway.ts";
import { localUpstream } from "./local.ts";
import { nodeFront } from "./node_front.ts";

const later = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const ask = async (gateway: Gateway, method = "GET") =>
  await gateway.handler(new Request("http://site.example/", { method }), PEER);

/** The place of the upstream in use, once all have been measured, so that it stays. */
async function activeOf(gateway: Gateway): Promise<number> {
  await until(() => gateway.stats.upstreams.every((one) => one.rttMs !== undefined));
  return gateway.stats.upstreams.findIndex((one) => one.active);
}

/** A gateway over two servers on TCP that both work; `active` is the one in use. */
async function twoServers(handler: (name: string) => HttpHandler) {
  const servers = ["a", "b"].map((name) => serve(handler(name)));
  const gateway = createGateway({
    upstream: servers.map(({ addr, publicKey }) => ({ port: addr.port!, publicKey })),
  });
  const active = await activeOf(gateway);
  return {
    gateway,
    active: servers[active]!,
    other: "ba"[active]!,
    sessions: () => gateway.stats.upstreams[active]!.sessions,
    [Symbol.asyncDispose]: async () => {
      await gateway.close();
      for (const server of servers) await server.shutdown({ graceMs: 0 });
    },
  };
}

Deno.test("a burst has as many sessions as it needs and may have; what is past them waits", async () => {
  for (const warm of [true, false]) {
    const gate = Promise.withResolvers<void>();
    let running = 0;
    await using g = over(async () => {
      running++;
      await gate.promise;
      return new Response("ok");
    }, { warm, sessions: { streamsPerSession: 4, maxSessions: 3 } });
    if (warm) await until(() => g.gateway.stats.ready);
    const asking = Array.from({ length: 14 }, async () => await (await ask(g.gateway)).text());
    await until(() => running === 12);
    assertEquals(g.gateway.stats.upstreams[0]!.sessions, 3);
    gate.resolve();
    assertEquals(await Promise.all(asking), Array(14).fill("ok"));
  }
});

Deno.test("where no further session can be had, requests wait on the one that is full", async () => {
  for (const further of [() => new Promise<never>(() => {}), () => Promise.reject(new Error("no more"))]) {
    const gate = Promise.withResolvers<void>();
    let running = 0;
    let dialled = 0;
    const upstream = localUpstream(async () => {
      running++;
      await gate.promise;
      return new Response("ok");
    });
    const gateway = createGateway({
      upstream: { ...upstream, dial: (options) => dialled++ === 0 ? upstream.dial!(options) : further() },
      sessions: { streamsPerSession: 2 },
    });
    const asking = Array.from({ length: 5 }, async () => await (await ask(gateway)).text());
    await until(() => running === 2 && dialled > 1);
    gate.resolve();
    assertEquals(await Promise.all(asking), Array(5).fill("ok"));
    await gateway.close();
    await upstream[Symbol.asyncDispose]();
  }
});

/** A gateway over two upstreams in this process, each dialled once `ready` lets it be. */
function twoLocal(ready: (name: string) => Promise<void>, asked: (request: Request) => void = () => {}) {
  const upstreams = ["a", "b"].map((name) =>
    localUpstream((request) => {
      asked(request);
      return new Response(name);
    }, { name })
  );
  const gateway = createGateway({
    upstream: upstreams.map(({ name, publicKey, dial }) => ({
      name,
      publicKey,
      dial: async (options) => {
        await ready(name!);
        return await dial!(options);
      },
    })),
  });
  return { gateway, upstreams };
}

Deno.test("a request whose dial is refused is answered by another upstream", async () => {
  await using t = await twoServers((name) => () => new Response(name));
  await t.active.shutdown({ graceMs: 0 });
  await until(() => t.sessions() === 0);
  const response = await ask(t.gateway);
  assertEquals([response.status, await response.text()], [200, t.other]);
  assertEquals(t.gateway.metrics.retries, 1);
});

for (const method of ["GET", "POST"]) {
  Deno.test(`e-44: an upstream whose dial hangs is left within 300 ms: ${method}`, async () => {
    const hanging = new Set<string>();
    const { gateway: made, upstreams } = twoLocal((name) =>
      hanging.has(name) ? new Promise(() => {}) : Promise.resolve()
    );
    await using gateway = made;
    const active = await activeOf(gateway);
    hanging.add("ab"[active]!);
    for (const connection of upstreams[active]!.server.connections) await connection.close();
    await until(() => gateway.stats.upstreams[active]!.sessions === 0);
    const started = performance.now();
    assertEquals(await (await ask(gateway, method)).text(), "ba"[active]);
    const took = performance.now() - started;
    assert(took < 400, `took ${took} ms`); // 300 ms, and a busy machine
    for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
  });
}

Deno.test("requests that leave an upstream together keep the order in which they came", async () => {
  const hanging = new Set<string>();
  const seen: string[] = [];
  const { gateway: made, upstreams } = twoLocal(
    (name) => hanging.has(name) ? new Promise(() => {}) : Promise.resolve(),
    ({ url }) => seen.push(new URL(url).pathname),
  );
  await using gateway = made;
  const active = await activeOf(gateway);
  hanging.add("ab"[active]!);
  for (const connection of upstreams[active]!.server.connections) await connection.close();
  await until(() => gateway.stats.upstreams[active]!.sessions === 0);
  const paths = Array.from({ length: 40 }, (_, i) => `/${i}`);
  await Promise.all(
    paths.map(async (path) => {
      const response = await gateway.handler(new Request(`http://site.example${path}`), PEER);
      assertEquals(await response.text(), "ba"[active]);
    }),
  );
  assertEquals(seen, paths);
  for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
});

Deno.test("a slow dial has all its time where no other upstream works", async () => {
  const { gateway: made, upstreams } = twoLocal(() => later(350));
  await using gateway = made;
  assertEquals((await ask(gateway)).status, 200);
  assertEquals(gateway.metrics.retries, 0);
  await activeOf(gateway);
  for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
});

for (const method of ["GET", "POST"]) {
  const fate = method === "GET" ? "sent once more" : "never sent twice";
  Deno.test(`a ${method} that an upstream had begun when it was shut down is ${fate}`, async () => {
    const seen: string[] = [];
    const gate = Promise.withResolvers<void>();
    await using t = await twoServers((name) => async (request) => {
      seen.push(`${request.method} ${name}`);
      if (seen.length === 1) await gate.promise;
      return new Response(name);
    });
    const asking = ask(t.gateway, method);
    await until(() => seen.length === 1);
    const stopping = t.active.shutdown({ graceMs: 20 });
    const response = await asking;
    const text = await response.text();
    if (method === "GET") assertEquals([response.status, text, seen.length], [200, t.other, 2]);
    else {
      assert(response.status === 502 || response.status === 503, text);
      assertEquals(seen.length, 1);
    }
    assertEquals(t.gateway.metrics.retries, seen.length - 1);
    gate.resolve();
    await stopping;
  });
}

Deno.test("a POST that waits for its turn in a session that ends with GOING_AWAY is sent in another", async () => {
  const seen: string[] = [];
  const begun = Promise.withResolvers<void>();
  await using g = over(async (request) => {
    seen.push(request.url);
    begun.resolve();
    if (request.url.endsWith("/first")) {
      await new Promise<void>((end) => request.signal.onabort = () => end());
    }
    return new Response("done");
  }, { sessions: { streamsPerSession: 1, maxSessions: 1 } });
  const first = g.ask("/first", { method: "POST" });
  await begun.promise;
  const second = g.ask("/second", { method: "POST" });
  await until(() => g.gateway.metrics.active === 2);
  for (const connection of g.upstream.server.connections) await connection.close({ code: "GOING_AWAY" });
  assertEquals(await (await second).text(), "done");
  assertEquals((await first).status, 503);
  await (await first).body?.cancel();
  assertEquals(seen, ["http://site.example/first", "http://site.example/second"]);
});

/** A small upload of six bytes, one every `gap` ms, and then nothing if `whole` is false. */
function trickle(gap: number, whole: boolean) {
  let left = whole ? 6 : 3;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: async (controller) => {
      if (left-- > 0) {
        await later(gap);
        controller.enqueue(new Uint8Array(1));
      } else if (whole) controller.close();
      else await new Promise<void>(() => {});
    },
  }, { highWaterMark: 0 });
  return { method: "POST", body, duplex: "half", headers: { "content-length": "6" } } as const;
}

Deno.test("the response timeout of a small upload counts from the last of its body; one that stands still gets 504", async () => {
  await using g = over(async (request) => new Response(String((await request.bytes()).length)), {
    limits: { responseTimeoutMs: 400 },
  });
  const response = await g.ask("/", trickle(120, true));
  assertEquals([response.status, await response.text()], [200, "6"]);
  const stuck = await g.ask("/", trickle(1, false));
  assertEquals(stuck.status, 504);
  await stuck.body?.cancel();
});

Deno.test("205 has no content, and no length of one (RFC 9110 §15.3.6)", async () => {
  await using g = overStreams((stream) =>
    serveHttpExchange(stream, () => ({ status: 205, fields: [["content-length", "5"]], body: "hello" }))
  );
  const response = await g.ask("/");
  assertEquals([response.status, response.body, response.headers.get("content-length")], [205, null, null]);
});

Deno.test("the handler shows the decoy where intercept throws", async () => {
  for (
    const intercept of [() => Promise.reject(new Error("broke")), () => {
      throw new Error("broke");
    }]
  ) {
    await using g = over(() => new Response("application"), { intercept });
    const response = await g.ask("/");
    assertEquals([response.status, await response.text()], [404, "404 Not Found\n"]);
    assertEquals(g.gateway.metrics.outcomes.decoy, 1);
  }
});

Deno.test("an answer with a control character in a field is 502, and its stream ends: Deno's server would end the process", async () => {
  const controls = [..."\x01\x08\x0b\x1f\x7f"];
  let aborted = 0;
  await using g = overStreams((stream) => {
    stream.signal.addEventListener("abort", () => aborted++);
    return serveHttpExchange(stream, ({ path }) => ({
      status: 200,
      fields: [["x-field", `a${decodeURIComponent(path.slice(1))}b`]],
      body: new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(9)) }),
    }));
  });
  const fronts = [denoFront(g.gateway.handler, { port: 0 }), await nodeFront(g.gateway.handler, { port: 0 })];
  for (const control of controls) {
    const response = await g.ask(`/${encodeURIComponent(control)}`);
    assertEquals([response.status, response.headers.get("x-field")], [502, null]);
    assertStringIncludes(await response.text(), "cannot be carried");
  }
  for (const front of fronts) {
    const response = await fetch(`http://127.0.0.1:${front.addr.port}/%01`);
    assertEquals(response.status, 502);
    await response.body?.cancel();
    const tab = await fetch(`http://127.0.0.1:${front.addr.port}/%09`);
    assertEquals([tab.status, tab.headers.get("x-field")], [200, "a\tb"]);
    await tab.body?.cancel();
  }
  await until(() => aborted === controls.length + 2 * fronts.length && g.gateway.metrics.active === 0);
  assertEquals(g.gateway.metrics.outcomes["upstream-malformed"], controls.length + fronts.length);
  for (const front of fronts) await front[Symbol.asyncDispose]();
});

Deno.test("a client whose answer is cut while it sends sees the end, though the front waits for more of its request", async () => {
  const cases = [100, 0].flatMap((idleTimeoutMs) =>
    // the gateway cuts the answer, or the upstream ends its stream
    ["Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "Content-Length: 60000\r\n\r\nx"].map((start) => ({
      idleTimeoutMs,
      start,
    }))
  );
  for (const { idleTimeoutMs, start } of cases) {
    const streams: HttpStream[] = [];
    await using g = overStreams((stream) => {
      streams.push(stream);
      return serveHttpExchange(stream, async ({ body }) => {
        await body.read();
        return {
          status: 200,
          fields: [],
          body: new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(9)) }),
        };
      });
    }, { limits: { idleTimeoutMs } });
    for (const makeFront of [denoFront, nodeFront]) {
      await using front = await makeFront(g.gateway.handler, { port: 0 });
      const { cut } = g.gateway.metrics.outcomes;
      using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
      const chunk = new TextEncoder().encode(start.slice(start.indexOf("\r\n\r\n") + 4));
      await conn.write(new TextEncoder().encode(`POST / HTTP/1.1\r\nHost: x\r\n${start}`));
      const buffer = new Uint8Array(4096);
      await conn.read(buffer); // the answer has begun
      if (idleTimeoutMs === 0) streams.at(-1)!.reset("INTERNAL_ERROR");
      await until(() => g.gateway.metrics.outcomes.cut === cut + 1);
      let ended = false;
      const end = (async () => {
        while (await conn.read(buffer).catch(() => null) !== null);
        ended = true;
      })();
      await until(async () => {
        if (!ended) await conn.write(chunk).catch(() => {});
        return ended;
      });
      await end;
    }
  }
});

Deno.test("createGateway() tells what an upstream lacks", () => {
  const none = {} as Parameters<typeof createGateway>[0];
  assertThrows(() => createGateway(none), TypeError, "Cannot make gateway: it has no upstream");
  const publicKey = "ab".repeat(31) + "01";
  assertThrows(
    () => createGateway({ upstream: { hostname: "app.example", publicKey } }),
    TypeError,
    "Cannot use upstream app.example: it has neither a port nor a dial",
  );
});
