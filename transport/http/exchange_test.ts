// Exchanges over a pair of streams in memory: what the handler and the client see, and what goes out on the stream.

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Bytes, concat, HtxError, utf8 } from "../../core/mod.ts";
import { usedHeap } from "../../core/_test_heap.ts";
import { type PairStream, streamPair } from "./_stream_pair.ts";
import {
  connectOverStream,
  encodeHttpChunk,
  encodeHttpEnd,
  encodeHttpRequest,
  encodeHttpResponse,
  exchangeOverStream,
  fetchOverStream,
  type FetchOverStreamOptions,
  type HttpExchangeHandler,
  type HttpField,
  type HttpHandler,
  HttpMessageDecoder,
  type HttpRequestInfo,
  type HttpRequestParts,
  requestParts,
  serveHttpExchange,
  serveHttpStream,
  type ServeHttpStreamOptions,
  webSocketOverStream,
} from "./mod.ts";

const GET: HttpRequestParts = {
  method: "GET",
  scheme: "https",
  authority: "app.example",
  path: "/",
  fields: [],
};
const POST: HttpRequestParts = { ...GET, method: "POST" };

/** Fails the test on an error that the handler is not expected to make. */
const strict: ServeHttpStreamOptions = {
  onError: (error) => {
    throw error;
  },
};

interface Served {
  response: Promise<Response>;
  served: Promise<void>;
  client: PairStream;
  server: PairStream;
  errors: unknown[];
}

function run(
  handler: HttpHandler,
  request: Request | HttpRequestParts = GET,
  options: FetchOverStreamOptions = {},
  pair = streamPair(),
): Served {
  const errors: unknown[] = [];
  const response = fetchOverStream(pair.client, request, options);
  const served = serveHttpStream(pair.server, handler, { onError: (error) => errors.push(error) });
  return { response, served, errors, ...pair };
}

/** Lets everything that can go on without time passing go on. */
async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise<void>((resolve) => setTimeout(resolve, 0));
}

/** What the server sent, read by the test as the client. */
async function readResponse(
  client: PairStream,
): Promise<{ status: number; fields: readonly HttpField[]; text: string }> {
  const decoder = new HttpMessageDecoder("response");
  let status = 0, text = "";
  let fields: readonly HttpField[] = [];
  for (;;) {
    const event = decoder.next();
    if (event === undefined) {
      const chunk = await client.read();
      if (chunk === null) decoder.end();
      else decoder.push(chunk);
    } else if (event.type === "response") ({ status, fields } = event.head);
    else if (event.type === "data") text += new TextDecoder().decode(event.data);
    else if (event.type === "end") return { status, fields, text };
  }
}

function source(
  chunks: number,
  size: number,
): { body: ReadableStream<Bytes>; state: { pulled: number; cancelled: unknown } } {
  const state: { pulled: number; cancelled: unknown } = { pulled: 0, cancelled: undefined };
  const chunk = new Uint8Array(size).fill(7);
  const body = new ReadableStream<Bytes>({
    pull: (controller) => {
      if (state.pulled === chunks) controller.close();
      else {
        state.pulled++;
        controller.enqueue(chunk);
      }
    },
    cancel: (reason) => {
      state.cancelled = reason ?? "no reason";
    },
  }, { highWaterMark: 0 });
  return { body, state };
}

// ---------------------------------------------------------------- the ordinary exchange

Deno.test("a small exchange is one write with the end in each direction", async () => {
  let seen: unknown;
  const handler: HttpHandler = async (request, info) => {
    seen = [
      request.method,
      request.url,
      [...request.headers],
      await request.text(),
      info.rawPath,
      info.streamId,
    ];
    return new Response("pong", { status: 201, headers: { "x-a": "b" } });
  };
  const request = new Request("https://app.example/a%2Fb?c=d", {
    method: "POST",
    body: "ping",
    headers: { "x-q": "1" },
  });
  const { response, served, client, server, errors } = run(handler, request);
  const got = await response;
  assertEquals(got.status, 201);
  assertEquals([...got.headers], [["content-type", "text/plain;charset=UTF-8"], ["x-a", "b"]]);
  assertEquals(await got.text(), "pong");
  await served;
  assertEquals(seen, [
    "POST",
    "https://app.example/a%2Fb?c=d",
    [["content-type", "text/plain;charset=UTF-8"], ["x-q", "1"]],
    "ping",
    "/a%2Fb?c=d",
    1,
  ]);
  assertEquals(client.writes.map(({ end }) => end), [true]);
  assertEquals(server.writes.map(({ end }) => end), [true]);
  assertEquals([client.finished, server.finished, server.stopped, errors.length], [true, true, false, 0]);
});

Deno.test("an exchange comes out the same a byte at a time", async () => {
  const handler: HttpHandler = async (request) =>
    new Response(await request.bytes(), { headers: request.headers });
  const request = new Request("http://app.example/", {
    method: "POST",
    body: "x".repeat(500),
    headers: { "x-q": "é" },
  });
  const { response, served } = run(handler, request, {}, streamPair({ readSize: 1 }));
  const got = await response;
  assertEquals(await got.text(), "x".repeat(500));
  assertEquals(got.headers.get("x-q"), "é");
  await served;
});

Deno.test("set-cookie lines arrive each on its own, cookies as one", async () => {
  const handler: HttpHandler = (request) => {
    const headers = new Headers({ "x-cookie": request.headers.get("cookie") ?? "" });
    headers.append("set-cookie", "a=1, b");
    headers.append("set-cookie", "c=2");
    return new Response(null, { headers });
  };
  const { response, served } = run(handler, { ...GET, fields: [["cookie", "a=1"], ["cookie", "b=2"]] });
  const { headers } = await response;
  assertEquals(headers.getSetCookie(), ["a=1, b", "c=2"]);
  assertEquals(headers.get("x-cookie"), "a=1; b=2");
  await served;
});

Deno.test("requestParts() takes the URL as text and Host for the authority", () => {
  const parts = requestParts(
    new Request("http://app.example:8080/x/../y?q#f", { headers: { host: "other.example" } }),
  );
  assertEquals([parts.scheme, parts.authority, parts.path], ["http", "other.example", "/y?q"]);
  assertEquals(requestParts(new Request("https://app.example?q")).path, "/?q");
  assertEquals(requestParts(new Request("https://app.example")).path, "/");
});

Deno.test("the raw path reaches the handler byte for byte, the URL a parsed one", async () => {
  for (const path of ["/a/../b", "/%2e%2e/c", "//d", '/e|^"<>', "/f\\..\\g"]) {
    let raw = "";
    const { response, served } = run((_request, info) => {
      raw = info.rawPath;
      return new Response();
    }, { ...GET, path });
    await response;
    await served;
    assertEquals(raw, path);
  }
  let url = "";
  const { response, served } = run((request) => {
    url = request.url;
    return new Response();
  }, { ...GET, method: "OPTIONS", path: "*" });
  await response;
  await served;
  assertEquals(url, "https://app.example/*");
});

Deno.test("a server whose 205 has content all the same is told that nobody wants it", async () => {
  const { client, server } = streamPair();
  const served = serveHttpExchange(server, () => ({
    status: 205,
    fields: [],
    body: new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(1000)) }),
  }));
  const response = await fetchOverStream(client, GET);
  assertEquals([response.status, response.body], [205, null]);
  await served; // its content has no end
  assertEquals(client.resetCode, "CANCELLED");
});

Deno.test("HEAD, 204, 304 and 205 have no body; HEAD keeps its content-length", async () => {
  const cancelled: unknown[] = [];
  const body = () =>
    new ReadableStream<Bytes>({ cancel: () => void cancelled.push("cancelled") }, { highWaterMark: 0 });
  const head = run(() => new Response(body(), { headers: { "content-length": "5" } }), {
    ...GET,
    method: "HEAD",
  });
  const got = await head.response;
  assertEquals([got.body, got.headers.get("content-length")], [null, "5"]);
  await head.served;
  assertEquals(cancelled, ["cancelled"]);
  for (const status of [204, 205, 304]) {
    const { response, served, client, server } = run(() => new Response(null, { status }));
    assertEquals((await response).body, null);
    await served;
    assert(client.finished && server.finished);
  }
});

Deno.test("a received request can be sent on as it is, its response sent back as it is", async () => {
  const front = streamPair();
  const back = streamPair();
  const app = serveHttpStream(back.server, async (request, info) => {
    return new Response(`${info.rawPath} ${await request.text()}`, { status: 418, headers: { "x-a": "1" } });
  }, strict);
  const gateway = serveHttpExchange(
    front.server,
    (request) => exchangeOverStream(back.client, request),
    strict,
  );
  const response = await fetchOverStream(front.client, {
    ...POST,
    path: "/a/../b",
    body: "x".repeat(100_000),
  });
  assertEquals([response.status, response.headers.get("x-a")], [418, "1"]);
  assertEquals(await response.text(), `/a/../b ${"x".repeat(100_000)}`);
  await Promise.all([app, gateway]);
});

// ---------------------------------------------------------------- streaming

Deno.test("the head goes out before a body that makes one wait, and each chunk when it is made", async () => {
  const channel = new TransformStream<Bytes, Bytes>();
  const writer = channel.writable.getWriter();
  const { response, served } = run(() => new Response(channel.readable));
  const got = await response; // nothing of the body exists yet
  const reader = got.body!.getReader();
  for (const event of ["one", "two", "three"]) {
    const writing = writer.write(utf8(event));
    assertEquals(new TextDecoder().decode((await reader.read()).value), event);
    await writing;
  }
  await writer.close();
  assert((await reader.read()).done);
  await served;
});

Deno.test("a body that lends gives the memory of a chunk back at the next read, and not before", async () => {
  const sent = Array.from({ length: 6 }, (_, n) => new Uint8Array(20_000).fill(n + 1));
  for (const lends of [false, true]) {
    const { client, server } = streamPair();
    const served = serveHttpStream(server, () => new Response(ReadableStream.from(sent)), strict);
    const { body } = await exchangeOverStream(client, GET);
    if (lends) body.lend();
    const got: Uint8Array[] = [];
    let total = 0;
    for (let chunk; (chunk = await body.read()) !== null;) {
      for (const byte of chunk) assertEquals(byte, Math.floor(total++ / 20_000) + 1);
      got.push(chunk);
    }
    await served;
    assertEquals(total, 120_000);
    const kept = got.reduce((sum, chunk) => sum + chunk.length, 0);
    if (lends) assert(kept < 60_000, `${kept} bytes are kept`); // what was read before the head was seen is left as it is
    else assertEquals(kept, 120_000);
  }
});

Deno.test("what was read of a body before it lends stays its reader's", async () => {
  const { client, server } = streamPair();
  const later = Promise.withResolvers<void>();
  const served = serveHttpExchange(server, async ({ body }) => {
    const reading = body.read();
    later.resolve();
    const first = await reading;
    body.lend();
    while (await body.read() !== null);
    return { status: 200, fields: [], body: first };
  }, strict);
  await client.write(encodeHttpRequest(POST));
  await later.promise;
  for (let n = 1; n <= 3; n++) await client.write(encodeHttpChunk(new Uint8Array(8000).fill(n)));
  await client.write(encodeHttpEnd(), { end: true });
  const { status, text } = await readResponse(client);
  assertEquals([status, text], [200, "\x01".repeat(8000)]);
  await served;
});

Deno.test("the request's head reaches the handler before its body exists", async () => {
  const channel = new TransformStream<Bytes, Bytes>();
  const called = Promise.withResolvers<void>();
  const { response, served } = run(async (request) => {
    called.resolve();
    return new Response(await request.text());
  }, { ...POST, body: channel.readable });
  await called.promise;
  const writer = channel.writable.getWriter();
  await writer.write(utf8("late"));
  await writer.close();
  assertEquals(await (await response).text(), "late");
  await served;
});

Deno.test("64 MiB go up and 64 MiB come down in constant memory", async () => {
  const chunks = 1024, size = 65_536;
  const up = source(chunks, size);
  const { response, served, client, server } = run((request) => new Response(request.body), {
    ...POST,
    body: up.body,
  });
  let received = 0;
  for await (const chunk of (await response).body!) received += chunk.length;
  assertEquals(received, chunks * size);
  await served;
  // A window, and the write that found room in it.
  assert(client.maxQueued <= 65_536 + size + 16, `${client.maxQueued}`);
  assert(server.maxQueued <= 65_536 + size + 16, `${server.maxQueued}`);
  assert(client.finished && server.finished);
});

Deno.test("a reader that does not read stops the source", async () => {
  const down = source(1000, 65_536);
  const { response, served, client } = run(() => new Response(down.body));
  const got = await response;
  await settle();
  assert(down.state.pulled <= 4, `${down.state.pulled} chunks were taken`);
  const reader = got.body!.getReader();
  await reader.read();
  await settle();
  assert(down.state.pulled <= 6, `${down.state.pulled} chunks were taken`);
  await reader.cancel("enough");
  await served;
  assertEquals(client.resetCode, "CANCELLED");
  assert(down.state.cancelled instanceof HtxError);
});

Deno.test("empty chunks of a source do not end the content", async () => {
  const body = ReadableStream.from([utf8(""), utf8("a"), utf8(""), utf8("b"), utf8("")]);
  const { response, served } = run(() => new Response(body));
  assertEquals(await (await response).text(), "ab");
  await served;
});

Deno.test("a large body in hand is written without being copied behind the head", async () => {
  const body = new Uint8Array(100_000).fill(3);
  const pair = streamPair({ window: 1 << 20 });
  const served = serveHttpExchange(pair.server, () => ({ status: 200, fields: [], body }), strict);
  const response = await exchangeOverStream(pair.client, GET);
  assertEquals((await response.body.bytes()).length, 100_000);
  await served;
  assertEquals(pair.server.writes.map(({ length }) => length), [8, 100_000, 2]);
});

Deno.test("a body that is given away arrives whole, and its memory is used again", async () => {
  for (const bodyGiven of [false, true]) {
    const chunks = [10, 70_000, 65_536, 3, 65_536].map((length, i) => new Uint8Array(length).fill(i + 1));
    const whole = concat(...chunks);
    const rest = [...chunks];
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        const chunk = rest.shift();
        if (chunk === undefined) controller.close();
        else controller.enqueue(chunk);
      },
    });
    let received: Uint8Array | undefined;
    const { response, served } = run(async (request) => {
      received = await request.bytes();
      return new Response(null, { status: 204 });
    }, { ...POST, body, bodyGiven });
    assertEquals((await response).status, 204);
    await served;
    assertEquals(received, whole);
    const left = bodyGiven ? [10, 0, 0, 3, 0] : [10, 70_000, 65_536, 3, 65_536];
    assertEquals(chunks.map(({ length }) => length), left);
  }
});

Deno.test("content in hand stays the caller's, who may send it again", async () => {
  const body = new Uint8Array(70_000);
  const parts = { ...POST, body, bodyGiven: true };
  for (const trailers of [undefined, () => Promise.resolve<HttpField[]>([["x-sum", "1"]])]) {
    const { response, served } = run(
      async (request) => new Response(`${(await request.bytes()).length}`),
      trailers === undefined ? parts : { ...parts, trailers },
    );
    assertEquals(await (await response).text(), "70000");
    await served;
    assertEquals(body.length, 70_000);
  }
});

Deno.test("HttpBody.bytes() stops at its limit and cancels the rest", async () => {
  const pair = streamPair();
  const served = serveHttpStream(pair.server, () => new Response(new Uint8Array(100_000)), strict);
  const response = await exchangeOverStream(pair.client, GET);
  const error = await assertRejects(() => response.body.bytes(10), HtxError);
  assertEquals(error.code, "LIMIT_EXCEEDED");
  await served;
  assertEquals(pair.client.resetCode, "CANCELLED");
});

// ---------------------------------------------------------------- trailers and informational responses

Deno.test("trailers travel both ways", async () => {
  let seen: string | null = null;
  const got = Promise.withResolvers<Headers>();
  const { response, served } = run(
    async (request, info) => {
      await request.text();
      seen = (await info.requestTrailers).get("x-sum");
      info.setTrailers(() => Promise.resolve({ "x-down": "2", connection: "close" }));
      return new Response("content");
    },
    { ...POST, body: "abc" },
    { trailers: { "x-sum": "3" }, onTrailers: got.resolve },
  );
  assertEquals(await (await response).text(), "content");
  assertEquals([...await got.promise], [["x-down", "2"]]);
  assertEquals(seen, "3");
  await served;
});

Deno.test("trailers that fail come too late for a 500 only when the head is out", async () => {
  const failing = () => {
    throw new Error("no trailers");
  };
  const { response, served, errors } = run((_request, info) => {
    info.setTrailers(failing);
    return new Response("content");
  });
  assertEquals((await response).status, 500);
  await served;
  assertEquals(errors.length, 1);
});

Deno.test("content does not wait for its trailers, which may wait for it", async () => {
  const long = "x".repeat(100_000);
  const bodies: [BodyInit | null, string][] = [
    ["content", "content"],
    [long, long],
    [null, ""],
    [ReadableStream.from([utf8("streamed")]), "streamed"],
  ];
  for (const [body, text] of bodies) {
    const arrived = Promise.withResolvers<void>();
    const got = Promise.withResolvers<Headers>();
    const { response, served, errors } = run(
      (_request, info) => {
        info.setTrailers(async () => {
          await arrived.promise;
          return { "x-sum": "3" };
        });
        return new Response(body);
      },
      GET,
      { onTrailers: got.resolve },
    );
    const reader = (await response).body!.getReader();
    let read = "";
    while (read.length < text.length) read += new TextDecoder().decode((await reader.read()).value);
    arrived.resolve();
    assertEquals([read, (await reader.read()).done], [text, true]);
    assertEquals((await got.promise).get("x-sum"), "3");
    await served;
    assertEquals(errors, []);
  }
});

Deno.test("trailers that never come do not keep an exchange that was aborted", async () => {
  const controller = new AbortController();
  const { response, served, errors } = run(
    (_request, info) => {
      info.setTrailers(() => new Promise(() => {}));
      return new Response("content");
    },
    GET,
    { signal: controller.signal },
  );
  await response;
  controller.abort();
  await served;
  assertEquals(errors, []);
});

Deno.test("informational responses arrive in order, before the final one is made", async () => {
  const early: [number, string | null][] = [];
  const first = Promise.withResolvers<void>();
  const { response, served } = run(
    async (_request, info) => {
      await info.sendInformational(103, { link: "</a.css>" });
      await first.promise;
      await info.sendInformational(102);
      return new Response("x");
    },
    GET,
    {
      onInformational: (status, headers) => {
        early.push([status, headers.get("link")]);
        first.resolve();
      },
    },
  );
  assertEquals(await (await response).text(), "x");
  assertEquals(early, [[103, "</a.css>"], [102, null]]);
  await served;
});

Deno.test("informational responses are refused where they cannot be sent", async () => {
  let info: HttpRequestInfo | undefined;
  const { response, served } = run(async (_request, given) => {
    info = given;
    await assertRejects(() => given.sendInformational(200), TypeError);
    await assertRejects(() => given.sendInformational(101), TypeError);
    await assertRejects(() => given.sendInformational(103, { "a": "\u0100" }), TypeError);
    for (let i = 0; i < 16; i++) await given.sendInformational(103);
    await assertRejects(() => given.sendInformational(103), TypeError);
    return new Response("x");
  });
  assertEquals(await (await response).text(), "x");
  await served;
  await assertRejects(() => info!.sendInformational(103), TypeError);
});

Deno.test("a client's informational hook that fails, at once or later, ends the exchange", async () => {
  const failing = [() => {
    throw new RangeError("at once");
  }, () => Promise.reject(new RangeError("later"))];
  for (const onInformational of failing) {
    const { response, served, client } = run(
      async (request, info) => {
        const gone = Promise.withResolvers<Event>();
        request.signal.addEventListener("abort", gone.resolve);
        await info.sendInformational(103);
        await gone.promise;
        return new Response("x");
      },
      GET,
      { onInformational },
    );
    await assertRejects(() => response, RangeError);
    assertEquals(client.resetCode, "CANCELLED");
    await served;
  }
});

// ---------------------------------------------------------------- giving up

Deno.test("an abort before anything was sent sends nothing", async () => {
  const { client } = streamPair();
  const up = source(1, 1);
  const reason = new Error("changed my mind");
  const abort = AbortSignal.abort(reason);
  const error = await assertRejects(() =>
    fetchOverStream(client, { ...POST, body: up.body }, { signal: abort })
  );
  assert(error === reason);
  assertEquals([client.writes.length, client.resetCode], [0, "CANCELLED"]);
  assert(up.state.cancelled === reason);
});

Deno.test("an abort while the handler works aborts the handler's signal", async () => {
  const controller = new AbortController();
  const working = Promise.withResolvers<AbortSignal>();
  const { response, served, client, errors } = run(
    async (request) => {
      working.resolve(request.signal);
      await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
      throw new Error("stopped");
    },
    GET,
    { signal: controller.signal },
  );
  const signal = await working.promise;
  const reason = new Error("too slow");
  controller.abort(reason);
  assert(await assertRejects(() => response) === reason);
  await served;
  assertEquals(client.resetCode, "CANCELLED");
  assert(signal.reason instanceof HtxError && signal.reason.code === "CANCELLED" && signal.reason.remote);
  assertEquals(errors, [], "an error after the client went is nobody's");
});

Deno.test("an abort in the middle of the body errors it with the reason and cancels the handler's source", async () => {
  const controller = new AbortController();
  const down = source(1000, 10_000);
  const { response, served, client } = run(() => new Response(down.body), GET, { signal: controller.signal });
  const reader = (await response).body!.getReader();
  await reader.read();
  const reason = new Error("enough");
  controller.abort(reason);
  const error = await assertRejects(async () => {
    for (;;) await reader.read();
  });
  assert(error === reason);
  await served;
  assertEquals(client.resetCode, "CANCELLED");
  assert(down.state.cancelled instanceof HtxError);
});

Deno.test("an abort reaches a source that is idle", async () => {
  const cancelled = Promise.withResolvers<unknown>();
  const body = new ReadableStream<Bytes>({ cancel: cancelled.resolve });
  const { response, served } = run(() => new Response(body));
  await (await response).body!.cancel();
  assert(await cancelled.promise instanceof HtxError);
  await served;
});

Deno.test("an abort after the response has been read changes nothing", async () => {
  const controller = new AbortController();
  const { response, served, client } = run(() => new Response("x"), GET, { signal: controller.signal });
  assertEquals(await (await response).text(), "x");
  await served;
  controller.abort();
  assertEquals(client.resetCode, undefined);
});

Deno.test("an abort after an early response has been read still ends the upload", async () => {
  const controller = new AbortController();
  const cancelled = Promise.withResolvers<unknown>();
  const body = new ReadableStream<Bytes>({
    start: (source) => source.enqueue(utf8("a beginning")),
    cancel: cancelled.resolve,
  });
  const { client, server } = streamPair();
  const answer = fetchOverStream(client, { ...POST, body }, { signal: controller.signal });
  await server.read();
  // This server goes on reading: it has not asked for no more.
  const bytes = encodeHttpResponse({ status: 200, fields: [] }, { content: utf8("early") });
  await server.write(bytes, { end: true });
  assertEquals(await (await answer).text(), "early");
  const reason = new Error("enough");
  controller.abort(reason);
  assert(await cancelled.promise !== undefined);
  assertEquals(client.resetCode, "CANCELLED");
});

Deno.test("the signal of a Request counts, and its clone's too", async () => {
  const controller = new AbortController();
  const request = new Request("https://app.example/", { signal: controller.signal });
  let signals: AbortSignal[] = [];
  const called = Promise.withResolvers<void>();
  const { response, served } = run((received) => {
    signals = [received.signal, received.clone().signal];
    called.resolve();
    return new Promise(() => {});
  }, request);
  await called.promise;
  controller.abort();
  await assertRejects(() => response, DOMException);
  assertEquals(signals.map((signal) => signal.aborted), [true, true]);
  served.catch(() => {}); // this handler never returns
});

Deno.test("a request body that fails rejects the fetch with its error and aborts the handler", async () => {
  const failure = new Error("disk");
  let pulls = 0;
  const body = new ReadableStream<Bytes>({
    pull: (controller) => {
      if (pulls++ === 0) controller.enqueue(utf8("begin"));
      else throw failure;
    },
  }, { highWaterMark: 0 });
  const seen = Promise.withResolvers<unknown>();
  const pair = streamPair();
  const response = fetchOverStream(pair.client, { ...POST, body });
  const rejected = assertRejects(() => response);
  const served = serveHttpStream(pair.server, async (request) => {
    await request.text().catch(seen.resolve);
    return new Response();
  });
  assert(await rejected === failure);
  assertEquals(pair.client.resetCode, "CANCELLED");
  await served;
});

Deno.test("a request that cannot be encoded rejects before anything is sent", async () => {
  const { client } = streamPair();
  await assertRejects(() => fetchOverStream(client, { ...GET, path: "/a b" }), TypeError);
  assertEquals(client.writes, []);
});

Deno.test("a Request whose body was used is refused, not sent without it", async () => {
  const { client } = streamPair();
  const request = new Request("https://app.example/", {
    method: "POST",
    body: new ReadableStream({ start: (controller) => controller.enqueue(utf8("a")) }),
  });
  const reader = request.body!.getReader();
  await reader.read();
  reader.releaseLock();
  await assertRejects(() => fetchOverStream(client, request), TypeError, "already used");
  assertEquals(client.writes, []);
});

Deno.test("an onTrailers that fails, at once or later, takes nothing with it", async () => {
  const failing = [() => {
    throw new Error("at once");
  }, () => Promise.reject(new Error("later"))];
  for (const onTrailers of failing) {
    const { response, served } = run(
      (_request, info) => {
        info.setTrailers({ "x-sum": "3" });
        return new Response("content");
      },
      GET,
      { onTrailers },
    );
    assertEquals(await (await response).text(), "content");
    await served;
    await settle(); // a rejection that nobody handles would fail the test
  }
});

// ---------------------------------------------------------------- the handler's failures

Deno.test("what a handler throws or returns amiss is a 500 and one call of onError", async () => {
  const bad: HttpHandler[] = [
    () => {
      throw new Error("sync");
    },
    () => Promise.reject(new Error("async")),
    () => JSON.parse("null"),
    () => JSON.parse(`{"status":200}`),
    () => Response.error(),
    async () => {
      const used = new Response("x");
      await used.text();
      return used;
    },
    () => {
      const response = new Response("x");
      response.body!.getReader();
      return response;
    },
    () => new Response(ReadableStream.from(["text"]) as ReadableStream),
    () => new Response("x", { headers: { "content-length": "7" } }),
    () =>
      new Response(
        new ReadableStream({
          pull: () => {
            throw new Error("body");
          },
        }),
      ),
  ];
  for (const handler of bad) {
    const { response, served, errors, client, server } = run(handler);
    const got = await response;
    assertEquals([got.status, got.headers.get("content-type")], [500, "text/plain; charset=utf-8"]);
    assertEquals(await got.text(), "500 Internal Server Error\n");
    await served;
    assertEquals(errors.length, 1);
    assert(client.finished && server.finished);
  }
  const head = run(bad[0]!, { ...GET, method: "HEAD" });
  assertEquals([(await head.response).status, (await head.response).body], [500, null]);
  await head.served;
});

Deno.test("a raw handler's response that cannot be sent is a 500, and its body is cancelled", async () => {
  for (const head of [{ status: 103, fields: [] }, { status: 200, fields: [["x", "a\nb"] as const] }]) {
    const { body, state } = source(100, 5000);
    const errors: unknown[] = [];
    const pair = streamPair();
    const served = serveHttpExchange(pair.server, () => ({ ...head, body }), {
      onError: (error) => errors.push(error),
    });
    const response = await fetchOverStream(pair.client, GET);
    assertEquals(response.status, 500);
    await response.body?.cancel();
    await served;
    assert(errors[0] instanceof TypeError);
    assert(state.cancelled !== undefined);
  }
});

Deno.test("a body that fails after the head resets the stream with INTERNAL_ERROR", async () => {
  let pulls = 0;
  const body = new ReadableStream<Bytes>({
    pull: async (controller) => {
      await settle();
      if (pulls++ === 0) controller.enqueue(utf8("begin"));
      else throw new Error("disk");
    },
  }, { highWaterMark: 0 });
  const { response, served, server, errors } = run(() => new Response(body));
  const got = await response;
  assertEquals(got.status, 200);
  const error = await assertRejects(() => got.text(), HtxError);
  assertEquals(error.code, "INTERNAL_ERROR");
  await served;
  assertEquals([server.resetCode, errors.length], ["INTERNAL_ERROR", 1]);
});

Deno.test("a body that is not as long as its content-length is never passed off as complete", async () => {
  for (const [declared, chunks] of [["100000", 3], ["20000", 3]] as const) {
    const { body } = source(chunks, 10_000);
    const { response, served, server, errors } = run(() =>
      new Response(body, { headers: { "content-length": declared } })
    );
    await assertRejects(async () => await (await response).bytes(), HtxError);
    await served;
    assertEquals([server.resetCode, errors.length], ["INTERNAL_ERROR", 1]);
  }
});

Deno.test("an onError that throws takes nothing with it, and without one errors are logged", async () => {
  for (
    const options of [{}, {
      onError: () => {
        throw new Error("hook");
      },
    }]
  ) {
    const { client, server } = streamPair();
    const response = fetchOverStream(client, GET);
    await serveHttpStream(server, () => {
      throw new Error("handler");
    }, options);
    assertEquals((await response).status, 500);
    await (await response).body?.cancel();
  }
});

// ---------------------------------------------------------------- malformed and unserved requests

async function refused(
  bytes: Uint8Array,
  end: boolean,
): Promise<{ status: number; text: string; stopped: boolean }> {
  const { client, server } = streamPair({ window: 1 << 20 });
  let called = false;
  const served = serveHttpStream(server, () => {
    called = true;
    return new Response();
  }, strict);
  await client.write(bytes, { end });
  const { status, text } = await readResponse(client);
  await served;
  assert(!called, "the handler was called");
  return { status, text, stopped: server.stopped };
}

Deno.test("a malformed or oversized head never reaches the handler (e-45)", async () => {
  const cases: [Uint8Array, number][] = [
    [new Uint8Array(0), 400],
    [new Uint8Array([9]), 400],
    [utf8("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), 400],
    [new Uint8Array([2, 3, 71]), 400],
    [concat(new Uint8Array([2, 33]), utf8("M".repeat(33))), 431],
    [
      concat(
        new Uint8Array([2, 3]),
        utf8("GET"),
        new Uint8Array([5]),
        utf8("https"),
        new Uint8Array([1, 97, 0x80, 0, 0x40, 1]),
      ),
      414,
    ],
    [concat(encodeHttpRequest(GET).subarray(0, -1), new Uint8Array([1, 88, 0, 0])), 400],
    [concat(encodeHttpRequest(GET).subarray(0, -1), new Uint8Array([1, 120, 1, 10, 0])), 400],
    [concat(encodeHttpRequest(GET).subarray(0, -1), new Uint8Array([1, 120, 0x80, 1, 0, 0])), 431],
    // An authority that HTTP can have and a URL cannot.
    [encodeHttpRequest({ ...GET, authority: "a%zz" }, { content: new Uint8Array(0) }), 400],
    [encodeHttpRequest({ ...GET, authority: "a:99999" }, { content: new Uint8Array(0) }), 400],
  ];
  for (const [bytes, status] of cases) {
    const ended = await refused(bytes, true);
    assertEquals(ended.status, status);
    assert(ended.text.startsWith(`${status} `));
  }
  // With the request still open, the client is asked to stop (HTX 1.1 §4).
  assertEquals(await refused(new Uint8Array([9]), false), {
    status: 400,
    text: "400 Bad Request\n",
    stopped: true,
  });
});

Deno.test("a malformed request whose client is gone before the answer is over, and no failure", async () => {
  for (let turns = 0; turns < 8; turns++) {
    const { client, server } = streamPair();
    const served = serveHttpStream(server, () => new Response(), strict);
    await client.write(new Uint8Array([9]));
    for (let i = 0; i < turns; i++) await undefined;
    client.reset();
    await served;
  }
});

Deno.test("what answers a HEAD that is malformed or too large has no content", async () => {
  const empty = { content: new Uint8Array(0) };
  const heads: [Uint8Array, number][] = [
    [encodeHttpRequest({ ...GET, method: "HEAD", path: `/${"p".repeat(16_384)}` }, empty), 414],
    [encodeHttpRequest({ ...GET, method: "HEAD", fields: [["x", "v".repeat(65_536)]] }, empty), 431],
    [
      concat(encodeHttpRequest({ ...GET, method: "HEAD" }).subarray(0, -1), new Uint8Array([1, 88, 0, 0])),
      400,
    ],
  ];
  for (const [bytes, status] of heads) {
    for (const ended of [true, false]) {
      assertEquals(await refused(bytes, ended), { status, text: "", stopped: !ended });
    }
  }
});

Deno.test("a stream on which an exchange cannot begin is given back", async () => {
  const refusals: ((client: PairStream) => Promise<unknown>)[] = [
    (client) => connectOverStream(client, GET),
    (client) => connectOverStream(client, { ...WEB_SOCKET, authority: "a b" }),
    (client) => exchangeOverStream(client, { ...GET, scheme: "ftp" }),
    (client) => exchangeOverStream(client, GET, { limits: { headerBytes: -1 } }),
    (client) => fetchOverStream(client, GET, { trailers: { "no token": "" } }),
    (client) => webSocketOverStream(client, "http://["),
    (client) => webSocketOverStream(client, "/", { headers: { "no token": "" } }),
  ];
  for (const refusal of refusals) {
    const { client } = streamPair();
    await assertRejects(() => refusal(client), Error);
    assertEquals([client.resetCode, client.writes], ["CANCELLED", []]);
  }
});

Deno.test("TRACE, CONNECT and TRACK are answered 501", async () => {
  for (const method of ["TRACE", "TRACK", "Trace", "CONNECT"]) {
    const bytes = encodeHttpRequest(
      { ...GET, method },
      method === "CONNECT" ? {} : { content: new Uint8Array(0) },
    );
    assertEquals((await refused(bytes, true)).status, 501);
  }
  const bare = encodeHttpRequest({ method: "CONNECT", scheme: "", authority: "a:443", path: "", fields: [] });
  assertEquals(await refused(bare, false), { status: 501, text: "501 Not Implemented\n", stopped: true });
});

Deno.test("malformation found later errors the body, aborts the signal and resets with PROTOCOL_ERROR (e-45)", async () => {
  const head = encodeHttpRequest({ ...POST, fields: [["content-length", "4"]] });
  const cases: Uint8Array[][] = [
    [head, encodeHttpChunk(utf8("abc")), new Uint8Array([0, 0])], // too short
    [head, encodeHttpChunk(utf8("abcde")), new Uint8Array([0, 0])], // too long
    [head, new Uint8Array([5, 97])], // cut off in a chunk
    [encodeHttpRequest(POST), encodeHttpChunk(utf8("a"))], // no terminator
    [encodeHttpRequest(POST), encodeHttpChunk(utf8("a")), new Uint8Array([0, 1, 88, 0, 0])], // bad trailer
    [encodeHttpRequest(POST), encodeHttpChunk(utf8("a")), new Uint8Array([0, 0, 1])], // no padding
  ];
  for (const pieces of cases) {
    for (const late of [false, true]) {
      const { client, server } = streamPair();
      let bodyError: unknown, signal: AbortSignal | undefined;
      const errors: unknown[] = [];
      const served = serveHttpStream(server, async (request) => {
        signal = request.signal;
        if (late) started.resolve();
        await request.text().catch((error) => bodyError = error);
        throw bodyError;
      }, { onError: (error) => errors.push(error) });
      const started = Promise.withResolvers<void>();
      if (late) {
        await client.write(pieces[0]!);
        await started.promise;
        for (const piece of pieces.slice(1)) await client.write(piece);
      } else {
        await client.write(concat(...pieces));
      }
      await client.closeWrite().catch(() => {});
      await served;
      assert(bodyError instanceof HtxError && bodyError.code === "MALFORMED", String(bodyError));
      assertEquals(server.resetCode, "PROTOCOL_ERROR");
      assert(signal?.aborted);
      assertEquals(errors, []);
    }
  }
});

Deno.test("garbage behind a message that was answered resets the stream", async () => {
  const { client, server } = streamPair();
  const answering = Promise.withResolvers<Response>();
  const served = serveHttpStream(server, () => answering.promise, strict);
  await client.write(encodeHttpRequest(GET, { content: new Uint8Array(0) }));
  await settle();
  await client.write(new Uint8Array([0, 1]));
  await settle();
  assertEquals(server.resetCode, "PROTOCOL_ERROR");
  answering.resolve(new Response("x"));
  await served;
});

Deno.test("a GET with content is read as one without by a fetch handler, whole by a raw one", async () => {
  const fetched = run(async (request) => new Response(`${request.body} ${await request.text()}`), {
    ...GET,
    body: "abc",
  });
  assertEquals(await (await fetched.response).text(), "null ");
  await fetched.served;
  const pair = streamPair();
  const served = serveHttpExchange(
    pair.server,
    async ({ body }) => ({ status: 200, fields: [], body: await body.bytes() }),
    strict,
  );
  const response = await fetchOverStream(pair.client, { ...GET, body: "abc" });
  assertEquals(await response.text(), "abc");
  await served;
});

Deno.test("a head that does not come within headTimeoutMs resets the stream with TIMEOUT", async () => {
  const { client, server } = streamPair();
  const served = serveHttpStream(server, () => new Response(), { ...strict, headTimeoutMs: 10 });
  await client.write(new Uint8Array([2, 3]));
  await served;
  assertEquals(server.resetCode, "TIMEOUT");
});

Deno.test("a headTimeoutMs that no timer takes is one that does not end", async () => {
  for (const headTimeoutMs of [Infinity, 2 ** 31]) {
    const { client, server } = streamPair();
    const served = serveHttpStream(server, () => new Response("late"), { ...strict, headTimeoutMs });
    await settle();
    const answer = fetchOverStream(client, GET);
    assertEquals(await (await answer).text(), "late");
    await served;
  }
});

Deno.test("a stream that is reset before its head is complete is forgotten", async () => {
  const { client, server } = streamPair();
  const served = serveHttpStream(server, () => new Response(), strict);
  await client.write(new Uint8Array([2, 3]));
  client.reset("CANCELLED");
  await served;
});

Deno.test("a response may end while the request still flows", async () => {
  const up = source(1000, 50_000);
  const { response, served, client, server } = run(async (request) => {
    const reader = request.body!.getReader();
    await reader.read();
    return new Response("enough", { status: 413 });
  }, { ...POST, body: up.body });
  const got = await response;
  assertEquals([got.status, await got.text()], [413, "enough"]);
  await served;
  await settle();
  assert(server.stopped);
  assertEquals([client.resetCode, server.resetCode], [undefined, undefined]);
  assert(up.state.cancelled instanceof HtxError && up.state.cancelled.code === "NO_ERROR");
});

Deno.test("a request body that is still being read when the response has ended errors", async () => {
  const channel = new TransformStream<Bytes, Bytes>();
  const reading = Promise.withResolvers<unknown>();
  const { response, served } = run((request) => {
    request.text().catch(reading.resolve);
    return new Response("done");
  }, { ...POST, body: channel.readable });
  assertEquals(await (await response).text(), "done");
  await served;
  assert(await reading.promise instanceof HtxError);
  await channel.writable.abort();
});

// ---------------------------------------------------------------- malformed responses

async function badResponse(
  ...pieces: Uint8Array[]
): Promise<{ error: unknown; code: unknown; finished: boolean }> {
  const { client, server } = streamPair();
  const response = fetchOverStream(client, GET).then((got) => got.text());
  const error = response.then(() => undefined, (error) => error);
  for (const piece of pieces) await server.write(piece);
  await server.closeWrite().catch(() => {}); // it may have been reset by now
  return { error: await error, code: client.resetCode, finished: client.finished };
}

Deno.test("a malformed response rejects the fetch, or errors the body, and resets with PROTOCOL_ERROR", async () => {
  const head = encodeHttpResponse({ status: 200, fields: [["content-length", "4"]] });
  for (
    const pieces of [
      [],
      [new Uint8Array([2])],
      [new Uint8Array([3, 0x40, 101, 0])],
      [encodeHttpResponse({ status: 103, fields: [] })],
      [concat(
        encodeHttpResponse({ status: 200, fields: [] }).subarray(0, -1),
        new Uint8Array([1, 120, 1, 13, 0]),
      )],
      [head, encodeHttpChunk(utf8("abc")), new Uint8Array([0, 0])],
      [head, encodeHttpChunk(utf8("abcde"))],
      [head, new Uint8Array([4, 97])],
    ]
  ) {
    const { error, code, finished } = await badResponse(...pieces);
    assert(error instanceof HtxError && error.code === "MALFORMED", String(error));
    // Where both directions had ended, there is nothing left to reset.
    assertEquals(code, finished ? undefined : "PROTOCOL_ERROR");
  }
  const { error, code } = await badResponse(
    encodeHttpResponse({ status: 200, fields: [["x", "v".repeat(70_000)]] }).subarray(0, 20),
  );
  assert(error instanceof HtxError && error.code === "LIMIT_EXCEEDED");
  assertEquals(code, "PROTOCOL_ERROR");
});

Deno.test("a reset by the server rejects the fetch with its code", async () => {
  const { client, server } = streamPair();
  const response = fetchOverStream(client, GET);
  server.reset("STREAM_LIMIT");
  const error = await assertRejects(() => response, HtxError);
  assertEquals([error.code, error.retryable], ["STREAM_LIMIT", true]);
});

// ---------------------------------------------------------------- WebSocket form

const WEB_SOCKET: HttpRequestParts = {
  ...GET,
  method: "CONNECT",
  path: "/chat",
  fields: [["upgrade", "websocket"]],
};

Deno.test("an accepted CONNECT is a tunnel in both directions", async () => {
  const { client, server } = streamPair();
  const webSocket: HttpExchangeHandler = (request) => {
    assertEquals([request.path, request.fields], ["/chat", [["upgrade", "websocket"]]]);
    return {
      status: 200,
      fields: [["sec-websocket-protocol", "v1"]],
      upgrade: async (stream) => {
        for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) {
          await stream.write(chunk);
        }
        await stream.closeWrite();
      },
    };
  };
  const served = serveHttpStream(server, () => new Response(), { ...strict, webSocket });
  const { status, fields, tunnel } = await connectOverStream(client, WEB_SOCKET);
  assertEquals([status, fields], [200, [["sec-websocket-protocol", "v1"]]]);
  assert(tunnel !== undefined);
  await tunnel.write(utf8("frames"));
  assertEquals(await tunnel.read(), utf8("frames"));
  await tunnel.closeWrite();
  assertEquals(await tunnel.read(), null);
  await served;
  assertEquals([server.stopped, server.resetCode], [false, undefined]);
});

Deno.test("a refused CONNECT is an ordinary response, and one that fails resets the stream", async () => {
  const refusing = streamPair();
  const served = serveHttpStream(refusing.server, () => new Response(), {
    ...strict,
    webSocket: () => ({ status: 403, fields: [], body: "no" }),
  });
  const response = await connectOverStream(refusing.client, WEB_SOCKET);
  assertEquals([response.status, response.tunnel], [403, undefined]);
  assertEquals(await response.body.bytes(), utf8("no"));
  await served;

  const failing = streamPair();
  const errors: unknown[] = [];
  const failed = serveHttpExchange(failing.server, () => ({
    status: 200,
    fields: [],
    upgrade: () => Promise.reject(new Error("no frames")),
  }), { onError: (error) => errors.push(error) });
  await connectOverStream(failing.client, WEB_SOCKET);
  await failed;
  assertEquals([failing.server.resetCode, errors.length], ["INTERNAL_ERROR", 1]);

  // Before the header section went out, it is a 500 as everywhere else.
  const unsent = streamPair();
  const answered = serveHttpExchange(unsent.server, () => ({
    status: 200,
    fields: [["no token", "x"]],
    upgrade: () => {},
  }), { onError: (error) => errors.push(error) });
  assertEquals((await connectOverStream(unsent.client, WEB_SOCKET)).status, 500);
  await answered;
  assertEquals(errors.length, 2);
  assertThrows(() => encodeHttpRequest({ ...GET, method: "CONNECT", scheme: "", path: "x" }), TypeError);
});

Deno.test("what follows an accepted CONNECT is never read as content", async () => {
  const accept = async (server: PairStream) => {
    await server.read();
    await server.write(concat(encodeHttpResponse({ status: 200, fields: [] }), utf8("frames")), {
      end: true,
    });
  };
  const tunnelled = streamPair();
  const accepted = accept(tunnelled.server);
  const { body, tunnel } = await connectOverStream(tunnelled.client, WEB_SOCKET);
  await assertRejects(() => body.read(), TypeError, "tunnel");
  assertEquals([await tunnel!.read(), await tunnel!.read()], [utf8("frames"), null]);
  await accepted;

  // An exchange has no tunnel to give.
  const exchanged = streamPair();
  accept(exchanged.server).catch(() => {}); // it may be reset first
  await assertRejects(
    () => exchangeOverStream(exchanged.client, WEB_SOCKET),
    TypeError,
    "CONNECT was accepted",
  );
  assertEquals(exchanged.client.resetCode, "CANCELLED");
});

// ---------------------------------------------------------------- anything may happen at any time

Deno.test("whatever fails or gives up, and whenever, both sides settle and nothing is left unhandled", async () => {
  const turns = async (count: number) => {
    for (let i = 0; i < count; i++) await undefined;
  };
  const sourceOf = fc.record({
    chunks: fc.nat(4),
    size: fc.nat(40_000),
    failAt: fc.integer({ min: -8, max: 3 }),
    delay: fc.nat(12),
  });
  const make = (
    { chunks, size, failAt, delay }: { chunks: number; size: number; failAt: number; delay: number },
  ) => {
    let i = 0;
    return new ReadableStream<Bytes>({
      pull: async (controller) => {
        await turns(delay);
        if (i === failAt) throw new Error("source");
        if (i++ === chunks) controller.close();
        else controller.enqueue(new Uint8Array(size));
      },
    }, { highWaterMark: 0 });
  };
  const answers: ((request: Request, source: ReadableStream<Bytes>) => Response | Promise<Response>)[] = [
    (_request, source) => new Response(source),
    (request) => new Response(request.body),
    () => new Response("small"),
    async (request) => new Response(await request.bytes()),
    async (request) => {
      await request.body?.cancel();
      return new Response("small");
    },
    (request) => {
      request.body?.getReader().read().catch(() => {});
      return new Response("small");
    },
    () => Promise.reject(new Error("handler")),
  ];
  const readers: ((response: Response) => Promise<unknown> | undefined)[] = [
    (response) => response.bytes(),
    (response) => response.body?.cancel(),
    async (response) => {
      const reader = response.body?.getReader();
      await reader?.read();
      await reader?.cancel();
    },
  ];
  const interruptions:
    ((pair: { client: PairStream; server: PairStream }, abort: AbortController) => void)[] = [
      () => {},
      (_pair, controller) => controller.abort(new Error("abort")),
      ({ server }) => server.reset("GOING_AWAY"),
      ({ client }) => client.reset("CANCELLED"),
      ({ client }) => client.reset("CANCELLED"),
    ];
  await fc.assert(
    fc.asyncProperty(
      sourceOf,
      sourceOf,
      fc.constantFrom(...answers),
      fc.constantFrom(...readers),
      fc.constantFrom(...interruptions),
      fc.nat(60),
      fc.integer({ min: 1, max: 65_536 }),
      fc.constantFrom(Infinity, 1000),
      async (up, down, answer, reader, interrupt, when, window, readSize) => {
        const pair = streamPair({ window, readSize });
        const controller = new AbortController();
        const served = serveHttpStream(pair.server, (request) => answer(request, make(down)), {
          onError: () => {},
        });
        const fetched = fetchOverStream(pair.client, { ...POST, body: make(up) }, {
          signal: controller.signal,
        })
          .then(reader)
          .catch((error) => assert(error instanceof Error));
        await turns(when);
        interrupt(pair, controller);
        await Promise.all([served, fetched]);
      },
    ),
    { numRuns: 400 },
  );
});

Deno.test("content in very many chunks of a byte takes little memory before it is read", async () => {
  const chunks = new Uint8Array(130_000).fill(1); // 65 000 of a byte each
  const requests: Request[] = [];
  const answer = Promise.withResolvers<void>();
  const exchanges: Promise<unknown>[] = [];
  const begin = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const { client, server } = streamPair({ window: 1 << 20 });
      exchanges.push(serveHttpStream(server, async (request) => {
        requests.push(request);
        await answer.promise;
        return new Response();
      }, strict));
      await client.write(concat(encodeHttpRequest(POST), chunks));
      exchanges.push(readResponse(client));
    }
    return await usedHeap();
  };
  const before = await begin(5);
  const grown = await begin(10) - before;
  assertEquals(requests.length, 15);
  assert(grown < 10 * 500_000, `${grown} bytes of heap for 10 requests`);
  answer.resolve();
  await Promise.all(exchanges);
});

Deno.test("content in very many chunks of a byte is collected", async () => {
  const chunk = encodeHttpChunk(new Uint8Array([7]));
  const message = new Uint8Array(130_000 * chunk.length);
  for (let i = 0; i < 130_000; i++) message.set(chunk, i * chunk.length);
  const { client, server } = streamPair();
  const received = Promise.withResolvers<Bytes>();
  const served = serveHttpExchange(server, async (request) => {
    received.resolve(await request.body.bytes(1_000_000));
    return { status: 200, fields: [] };
  });
  await client.write(encodeHttpRequest(POST));
  await client.write(message);
  await client.write(new Uint8Array([0, 0]), { end: true });
  const bytes = await received.promise;
  assertEquals([bytes.length, bytes.every((byte) => byte === 7)], [130_000, true]);
  await served;
});

Deno.test("a handler that returns no response at all is answered with 500", async () => {
  const errors: unknown[] = [];
  const { client, server } = streamPair();
  const nothing = (() => undefined) as unknown as HttpExchangeHandler; // as JavaScript may
  const served = serveHttpExchange(server, nothing, { onError: (error) => errors.push(error) });
  assertEquals((await exchangeOverStream(client, GET)).status, 500);
  await served;
  assert(errors[0] instanceof TypeError);
});
