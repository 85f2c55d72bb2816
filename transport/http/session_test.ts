// Exchanges over real sessions: what they cost in frames, and how ends and failures cross the wire.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { type Bytes, concat, type HtxConnection, HtxError, type HtxStream, utf8 } from "../../core/mod.ts";
import { KeyPair } from "../../noise/mod.ts";
import { connectDuplex } from "../client.ts";
import { memoryDuplexPair } from "../memory.ts";
import { acceptDuplex } from "../server.ts";
import {
  encodeHttpChunk,
  encodeHttpRequest,
  exchangeOverStream,
  fetchOverStream,
  type HttpHandler,
  HttpMessageDecoder,
  type HttpRequestParts,
  serveHttpStream,
} from "./mod.ts";

const GET: HttpRequestParts = {
  method: "GET",
  scheme: "https",
  authority: "app.example",
  path: "/",
  fields: [],
};

interface Tunnel extends AsyncDisposable {
  readonly client: HtxConnection;
  readonly server: HtxConnection;
  /** What handlers failed with. */
  readonly errors: unknown[];
  /** Settles when every exchange so far has been served. */
  idle(): Promise<void>;
  open(): Promise<HtxStream>;
}

async function tunnel(handler: HttpHandler): Promise<Tunnel> {
  const [near, far] = memoryDuplexPair();
  const keyPair = KeyPair.generate();
  const errors: unknown[] = [];
  const serving = new Set<Promise<void>>();
  const accepting = acceptDuplex(far, {
    keyPair,
    onStream: (stream, { connection }) => {
      const served = serveHttpStream(stream, handler, { connection, onError: (error) => errors.push(error) });
      serving.add(served);
      return served.finally(() => serving.delete(served));
    },
  });
  const client = await connectDuplex(near, { remoteStatic: keyPair.publicKey, postQuantum: "off" });
  const server = await accepting;
  return {
    client,
    server,
    errors,
    idle: async () => void await Promise.all(serving),
    open: () => client.createBidirectionalStream(),
    [Symbol.asyncDispose]: async () => {
      await client.close();
      await server.closed.catch(() => {});
    },
  };
}

Deno.test("a small exchange over a session is one sealed frame in each direction", async () => {
  await using session = await tunnel(async (request) => new Response(await request.text()));
  const exchange = async () => {
    const response = await fetchOverStream(await session.open(), { ...GET, method: "POST", body: "hello" });
    assertEquals(await response.text(), "hello");
    await session.idle();
  };
  await exchange();
  const before = [session.client.stats.framesSent, session.server.stats.framesSent];
  for (let i = 0; i < 10; i++) await exchange();
  assertEquals(
    [session.client.stats.framesSent, session.server.stats.framesSent],
    before.map((frames) => frames + 10),
  );
});

Deno.test("the handler learns who the client is", async () => {
  let seen: unknown;
  await using session = await tunnel((_request, info) => {
    seen = [info.remoteStatic, info.connection?.remoteStatic, info.streamId];
    return new Response();
  });
  await fetchOverStream(await session.open(), GET);
  await session.idle();
  assertEquals(seen, [session.server.remoteStatic, session.server.remoteStatic, 1]);
});

Deno.test("8 MiB up and down at once arrive whole", async () => {
  await using session = await tunnel((request) => new Response(request.body));
  const chunk = new Uint8Array(50_000);
  for (let i = 0; i < chunk.length; i++) chunk[i] = i * 31;
  let left = 8 * 1024 * 1024;
  const body = new ReadableStream<Bytes>({
    pull: (controller) => {
      const size = Math.min(left, chunk.length);
      left -= size;
      controller.enqueue(chunk.slice(0, size));
      if (left === 0) controller.close();
    },
  }, { highWaterMark: 0 });
  const response = await fetchOverStream(await session.open(), { ...GET, method: "POST", body });
  let at = 0;
  for await (const part of response.body!) {
    for (let i = 0; i < part.length; i += 997) assertEquals(part[i], ((at + i) % 50_000 * 31) & 0xff);
    at += part.length;
  }
  assertEquals(at, 8 * 1024 * 1024);
  await session.idle();
  assertEquals(session.errors, []);
});

Deno.test("an abort crosses the session and stops the handler's source", async () => {
  const cancelled = Promise.withResolvers<unknown>();
  await using session = await tunnel(() => {
    const body = new ReadableStream<Bytes>({
      pull: (controller) => controller.enqueue(new Uint8Array(10_000)),
      cancel: cancelled.resolve,
    }, { highWaterMark: 0 });
    return new Response(body);
  });
  const controller = new AbortController();
  const response = await fetchOverStream(await session.open(), GET, { signal: controller.signal });
  const reader = response.body!.getReader();
  await reader.read();
  const reason = new Error("enough");
  controller.abort(reason);
  const error = await assertRejects(async () => {
    for (;;) await reader.read();
  });
  assert(error === reason);
  const why = await cancelled.promise;
  assert(why instanceof HtxError && why.code === "CANCELLED" && why.remote, String(why));
  await session.idle();
  // The session is as good as before.
  const next = await fetchOverStream(await session.open(), GET);
  await next.body?.cancel();
  await session.idle();
  assertEquals(session.errors, []);
});

Deno.test("a response that ends early stops the upload and stays readable", async () => {
  await using session = await tunnel(() => new Response("too large", { status: 413 }));
  const stopped = Promise.withResolvers<unknown>();
  const body = new ReadableStream<Bytes>({
    pull: (controller) => controller.enqueue(new Uint8Array(50_000)),
    cancel: stopped.resolve,
  }, { highWaterMark: 0 });
  const response = await fetchOverStream(await session.open(), { ...GET, method: "POST", body });
  assertEquals([response.status, await response.text()], [413, "too large"]);
  const why = await stopped.promise;
  assert(why instanceof HtxError && why.code === "NO_ERROR", String(why));
  await session.idle();
  assertEquals(session.errors, []);
});

Deno.test("a session that breaks errors both sides of an exchange", async () => {
  const aborted = Promise.withResolvers<unknown>();
  const session = await tunnel((request) => {
    request.signal.addEventListener("abort", () => aborted.resolve(request.signal.reason));
    return new Response(
      new ReadableStream<Bytes>({ start: (controller) => controller.enqueue(utf8("begin")) }),
    );
  });
  const response = await fetchOverStream(await session.open(), GET);
  const reader = response.body!.getReader();
  await reader.read();
  session.client.abort();
  await assertRejects(() => reader.read(), HtxError);
  assert(await aborted.promise instanceof HtxError);
  await session.server.closed.catch(() => {});
  await session.idle();
  assertEquals(session.errors, []);
});

/** Sends bytes as the request and reads the response by hand. */
async function byHand(session: Tunnel, bytes: Uint8Array): Promise<{ status: number; text: string }> {
  const stream = await session.open();
  await stream.write(bytes);
  const decoder = new HttpMessageDecoder("response");
  let status = 0, text = "";
  for (;;) {
    const event = decoder.next();
    if (event === undefined) {
      const chunk = await stream.read();
      if (chunk === null) decoder.end();
      else decoder.push(chunk);
    } else if (event.type === "response") status = event.head.status;
    else if (event.type === "data") text += new TextDecoder().decode(event.data);
    else if (event.type === "end") return { status, text };
  }
}

Deno.test("malformed requests are answered or reset, and the session lives on (e-45)", async () => {
  let calls = 0;
  await using session = await tunnel(async (request) => {
    calls++;
    return new Response(await request.bytes());
  });
  const smuggled = utf8(
    "POST / HTTP/1.1\r\ncontent-length: 40\r\n\r\nGET /admin HTTP/1.1\r\nhost: a\r\n\r\n",
  );
  assertEquals(await byHand(session, smuggled), { status: 400, text: "400 Bad Request\n" });
  const line = (name: string, value: string) =>
    concat(new Uint8Array([name.length]), utf8(name), new Uint8Array([value.length]), utf8(value));
  const head = encodeHttpRequest({ ...GET, method: "POST" }).subarray(0, -1);
  for (
    const [name, value] of [["x", "a\r\nGET /admin HTTP/1.1"], ["x\r\ny", "1"], [":path", "/admin"], [
      "content-length",
      "1x",
    ]] as const
  ) {
    assertEquals((await byHand(session, concat(head, line(name, value), new Uint8Array([0])))).status, 400);
  }
  assertEquals(calls, 0);
  const short = concat(
    head,
    line("content-length", "9"),
    new Uint8Array([0]),
    encodeHttpChunk(utf8("abc")),
    new Uint8Array([0, 0]),
  );
  const error = await assertRejects(() => byHand(session, short), HtxError);
  assertEquals([error.code, error.remote], ["PROTOCOL_ERROR", true]);
  assertEquals(calls, 1);
  const response = await fetchOverStream(await session.open(), { ...GET, method: "POST", body: "fine" });
  assertEquals(await response.text(), "fine");
  await session.idle();
  assertEquals(session.errors, []);
});

Deno.test("500 exchanges, 100 at once, some given up, leave no stream behind", async () => {
  await using session = await tunnel(async (request) => {
    await request.bytes();
    return new Response(new Uint8Array(Number(new URL(request.url).searchParams.get("size"))));
  });
  const one = async (i: number) => {
    const size = (i % 7) * 20_000;
    const response = await exchangeOverStream(await session.open(), {
      ...GET,
      method: "POST",
      path: `/?size=${size}`,
      body: new Uint8Array((i % 5) * 10_000),
    });
    if (i % 3 === 0) return response.body.cancel();
    assertEquals((await response.body.bytes()).length, size);
  };
  // Fewer at once than the stream limit: one that was given up counts at the server until its handler has returned.
  for (let i = 0; i < 500; i += 100) await Promise.all(Array.from({ length: 100 }, (_, k) => one(i + k)));
  await session.idle();
  assertEquals(session.errors, []);
  // Nothing is left open: draining has nothing to wait for.
  await Promise.all([session.server.drain(), session.client.closed]);
});

Deno.test("a Hono application runs unchanged", async () => {
  const app = new Hono();
  app.get("/hello/:name", (c) => c.json({ hello: c.req.param("name"), q: c.req.query("q") }));
  app.post("/upload", async (c) => c.text(String((await c.req.arrayBuffer()).byteLength)));
  app.post("/form", async (c) => c.text(String((await c.req.formData()).get("field"))));
  app.get("/cookie", (c) => {
    c.header("set-cookie", "a=1", { append: true });
    c.header("set-cookie", "b=2", { append: true });
    return c.body(null, 204);
  });
  app.get("/fail", () => {
    throw new Error("broken");
  });
  app.onError((error, c) => c.text(error.message, 503));
  app.get("/events", (c) =>
    streamSSE(c, async (stream) => {
      for (let i = 0; i < 3; i++) await stream.writeSSE({ data: String(i) });
    }));
  await using session = await tunnel((request) => app.fetch(request));
  const fetch = async (path: string, init: RequestInit = {}) =>
    await fetchOverStream(await session.open(), new Request(`https://app.example${path}`, init));

  const hello = await fetch("/hello/w%C3%B6rld?q=1");
  assertEquals([hello.headers.get("content-type"), await hello.json()], ["application/json", {
    hello: "wörld",
    q: "1",
  }]);
  assertEquals(
    await (await fetch("/upload", { method: "POST", body: new Uint8Array(1_000_000) })).text(),
    "1000000",
  );
  const form = new FormData();
  form.set("field", "värde");
  assertEquals(await (await fetch("/form", { method: "POST", body: form })).text(), "värde");
  const cookies = await fetch("/cookie");
  assertEquals([cookies.status, cookies.headers.getSetCookie()], [204, ["a=1", "b=2"]]);
  const failed = await fetch("/fail");
  assertEquals([failed.status, await failed.text()], [503, "broken"]);
  const missing = await fetch("/nothing");
  assertEquals([missing.status, await missing.text()], [404, "404 Not Found"]);
  assertEquals(await (await fetch("/events")).text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
  await session.idle();
  assertEquals(session.errors, []);
});

Deno.test("a server that answers early and asks for no more has the source of the upload cancelled", async () => {
  await using t = await tunnel(() => new Response("early"));
  const cancelled = Promise.withResolvers<unknown>();
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new Uint8Array(10)), // and then nothing for ever
    cancel: cancelled.resolve,
  });
  const stream = await t.open();
  const request = new Request("https://app.example/", { method: "POST", body });
  const response = await fetchOverStream(stream, request);
  assertEquals(await response.text(), "early");
  const why = await cancelled.promise;
  assert(why instanceof HtxError);
  assertEquals([why.code, stream.signal.aborted], ["NO_ERROR", true]);
  await t.idle();
});

Deno.test("a session that ends with GOING_AWAY does not say that a request was never handled; a stream does", async () => {
  const begun = Promise.withResolvers<void>();
  await using t = await tunnel(async () => {
    begun.resolve();
    await new Promise(() => {});
    return new Response();
  });
  const underWay = fetchOverStream(await t.open(), { ...GET, method: "POST" });
  await begun.promise;
  const unsent = await t.open();
  t.server.close({ code: "GOING_AWAY" });
  const error = await assertRejects(() => underWay, HtxError);
  assertEquals([error.code, error.retryable], ["GOING_AWAY", false]);
  const late = await assertRejects(() => unsent.read(), HtxError);
  assertEquals([late.code, late.retryable], ["GOING_AWAY", true]); // the peer has never heard of it
});
