import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Duplex, type HtxConnection, HtxError } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { endsWithHandshake } from "./_test_dial.ts";
import { HtxClient, roundtrip } from "./client.ts";
import type { DuplexListener } from "./listener.ts";
import { memoryDuplexPair } from "./memory.ts";
import { acceptDuplex, serveStreams } from "./server.ts";
import { httpStreams, serve } from "./serve.ts";
import { dialTcp } from "./tcp.ts";
import { echo } from "./upstream/echo.ts";

const KEY = KeyPair.generate();

/** A client of `handler`, over memory; each dial is a new connection of the server's. */
function local(onStream: Parameters<typeof serveStreams>[0], options: { maxLocalStreams?: number } = {}) {
  const servers: HtxConnection[] = [];
  const client = new HtxClient(() => {
    const [here, there] = memoryDuplexPair();
    acceptDuplex(there, { keyPair: KEY, onStream }).then((connection) => servers.push(connection), () => {});
    return Promise.resolve(here);
  }, { remoteStatic: KEY.publicKey, postQuantum: "off", ...options });
  return { client, servers };
}

Deno.test("a server that goes away is left for a new connection, while what is under way there goes on", async () => {
  const slow = Promise.withResolvers<void>();
  const { client, servers } = local(httpStreams(async (request) => {
    if (request.url.endsWith("/slow")) await slow.promise;
    return new Response("done");
  }));
  assertEquals(await (await client.fetch("/")).text(), "done");
  const waiting = client.fetch("/slow");
  while (servers[0]!.stats.streams === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  const drained = servers[0]!.drain();
  assertEquals(await (await client.fetch("/")).text(), "done", "refused there, answered elsewhere");
  assertEquals(await (await client.fetch("/")).text(), "done");
  assertEquals(client.stats.connected, 2);
  slow.resolve();
  assertEquals(await (await waiting).text(), "done");
  await drained;
  await client.close();
  await Promise.all(servers.map((server) => server.closed));
});

Deno.test("a stream that waits for its turn when the connection ends is opened on another", async () => {
  const { client, servers } = local(echo(), { maxLocalStreams: 1 });
  const first = await client.createBidirectionalStream();
  await first.write(new Uint8Array(1));
  await first.read();
  const second = client.createBidirectionalStream();
  await servers[0]!.close({ code: "GOING_AWAY" });
  const stream = await second;
  await stream.write(new Uint8Array([7]), { end: true });
  assertEquals(await stream.read(), new Uint8Array([7]));
  assertEquals(client.stats.connected, 2);
  await client.close();
  await Promise.all(servers.map((server) => server.closed));
});

Deno.test("where no further connection can be had, a request waits its turn on one that is full", async () => {
  const answer = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  await using server = serve(async () => {
    arrived.resolve();
    await answer.promise;
    return new Response("ok");
  }, { keyPair: KEY });
  let dials = 0;
  const refused = Promise.withResolvers<void>();
  await using client = new HtxClient(({ signal }) => {
    if (++dials === 1) return dialTcp({ port: server.addr.port! }, { signal });
    refused.resolve();
    return Promise.reject(new HtxError("CONNECT_FAILED", "no more"));
  }, { remoteStatic: KEY.publicKey, maxConnections: 2, maxLocalStreams: 1 });
  const first = client.fetch("/");
  await arrived.promise;
  const second = client.fetch("/");
  await refused.promise;
  while (client.stats.failed === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  answer.resolve();
  assertEquals(await (await first).text(), "ok");
  assertEquals(await (await second).text(), "ok");
  assertEquals([dials, client.stats], [2, { connections: 1, connected: 1, failed: 1 }]);
  for (const connection of client.connections) connection.abort();
  await assertRejects(() => client.fetch("/"), HtxError, "no more");
});

Deno.test("callers share one dial; one that gives up takes nobody with it", async () => {
  await using server = serve(() => new Response("ok"));
  const going = Promise.withResolvers<void>();
  let dials = 0;
  const client = new HtxClient(async ({ signal }) => {
    dials++;
    await going.promise;
    return await dialTcp({ hostname: "127.0.0.1", port: server.addr.port! }, { signal });
  }, { remoteStatic: server.publicKey });
  const impatient = new AbortController();
  const gone = assertRejects(() => client.fetch("/", { signal: impatient.signal }), Error, "enough");
  const others = [client.fetch("/"), client.fetch("/"), client.connection()] as const;
  impatient.abort(new Error("enough"));
  await gone;
  going.resolve();
  assertEquals([(await others[0]).status, (await others[1]).status, dials], [200, 200, 1]);
  await others[2];
  for (const one of [others[0], others[1]]) await (await one).text();
  await client.close();
  assertEquals((await assertRejects(() => client.fetch("/"), HtxError)).code, "CLOSED");
});

Deno.test("close() during a dial ends it, even where the dialer knows nothing of signals", async () => {
  const late = Promise.withResolvers<Duplex>();
  const client = new HtxClient(() => late.promise, { remoteStatic: KEY.publicKey, postQuantum: "off" });
  const waiting = client.connection();
  const closing = client.close();
  assertEquals((await assertRejects(() => waiting, HtxError)).code, "CLOSED");
  await closing;
  const [here, there] = memoryDuplexPair();
  late.resolve(here);
  assertEquals(await there.io!.read(new Uint8Array(1)), null, "what came too late is closed");
});

Deno.test("a duplex of web streams that comes too late is ended in both directions", async () => {
  const late = Promise.withResolvers<Duplex>();
  const client = new HtxClient(() => late.promise, { remoteStatic: KEY.publicKey, postQuantum: "off" });
  const waiting = assertRejects(() => client.connection(), HtxError);
  await client.close();
  await waiting;
  const cancelled = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  late.resolve({
    readable: new ReadableStream({ cancel: () => cancelled.resolve() }),
    writable: new WritableStream({ abort: () => aborted.resolve() }),
  });
  await Promise.all([cancelled.promise, aborted.promise]);
});

Deno.test("a dialer that throws at once fails one call, not the client", async () => {
  await using server = serve(() => new Response("ok"));
  let dials = 0;
  await using client = new HtxClient((options) => {
    if (dials++ === 0) throw new RangeError("no network yet");
    return dialTcp({ port: server.addr.port! }, options);
  }, { remoteStatic: server.publicKey });
  await assertRejects(() => client.fetch("/"), RangeError, "no network yet");
  assertEquals(await (await client.fetch("/")).text(), "ok");
  assertEquals([dials, client.stats.failed], [2, 1]);
});

Deno.test("fetch(): a request that cannot be sent gives its stream back", async () => {
  await using server = serve(() => new Response("ok"));
  await using client = new HtxClient(server.addr, { remoteStatic: server.publicKey, maxLocalStreams: 1 });
  for (let i = 0; i < 3; i++) await assertRejects(() => client.fetch("data:text/plain,x"));
  assertEquals(await (await client.fetch("/")).text(), "ok");
});

Deno.test("a server that stops during a handshake, or whose hook fails, keeps no connection", async () => {
  const waiting: Duplex[] = [];
  const wake = Promise.withResolvers<void>();
  const listener: DuplexListener = {
    addr: { transport: "memory" },
    accept: async () => {
      await wake.promise;
      return waiting.shift();
    },
    close: () => {},
  };
  const errors: unknown[] = [];
  const server = serveStreams(echo(), {
    listeners: [listener],
    keyPair: KEY,
    controlStream: () => {
      throw new Error("hook");
    },
    onError: (error) => errors.push(error),
  });
  const [here, there] = memoryDuplexPair();
  waiting.push(there);
  wake.resolve();
  const client = new HtxClient(() => Promise.resolve(here), {
    remoteStatic: KEY.publicKey,
    postQuantum: "off",
  });
  const connection = await client.connection();
  await assertRejects(() => connection.closed, HtxError);
  assertEquals([server.connections.size, errors.length], [0, 1]);
  await server.shutdown();
  await client.close();

  const stopping = serveStreams(echo(), { keyPair: KEY });
  const halfOpen = await dialTcp({ hostname: "127.0.0.1", port: stopping.addr.port! });
  while (stopping.halfOpen === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await stopping.shutdown();
  assert(await halfOpen.io!.read(new Uint8Array(1)) === null);
  halfOpen.close?.();
});

Deno.test("a fetch that is given up before there is a connection tells its body's source, by either signal", async () => {
  for (const own of [true, false]) {
    const client = new HtxClient(() => new Promise(() => {}), { remoteStatic: KEY.publicKey });
    const controller = new AbortController();
    const { signal } = controller;
    const cancelled = Promise.withResolvers<unknown>();
    const body = new ReadableStream<Uint8Array>({ cancel: cancelled.resolve });
    const request = new Request("http://a.example/", { method: "POST", body, ...own && { signal } });
    const other = own ? new AbortController().signal : signal;
    const fetching = client.fetch(request, { signal: other });
    const why = new Error("enough");
    controller.abort(why);
    assertEquals(await assertRejects(() => fetching), why);
    assertEquals(await cancelled.promise, why);
    await client.close();
  }
});

Deno.test("a fetch that failed for want of a connection leaves its body to be sent elsewhere", async () => {
  let up = false;
  const onStream = httpStreams(async (request) => new Response(await request.text()));
  await using client = new HtxClient(() => {
    if (!up) return Promise.reject(new HtxError("CONNECT_FAILED", "down"));
    const [here, there] = memoryDuplexPair();
    acceptDuplex(there, { keyPair: KEY, onStream }).catch(() => {});
    return Promise.resolve(here);
  }, { remoteStatic: KEY.publicKey, postQuantum: "off" });
  const request = new Request("http://a.example/", {
    method: "POST",
    body: ReadableStream.from([new TextEncoder().encode("still here")]),
  });
  await assertRejects(() => client.fetch(request), HtxError, "down");
  up = true;
  assertEquals(await (await client.fetch(request)).text(), "still here");
});

Deno.test("limits of HTTP that are none are told when the server is made", () => {
  assertThrows(() => httpStreams(() => new Response(), { limits: { headerLines: 1.5 } }), RangeError);
  assertThrows(() => serve(() => new Response(), { http: { limits: { pathBytes: -1 } } }), RangeError);
});

Deno.test("a connection that ends with its handshake fails who asked for it, and is not dialed for ever", async () => {
  let dials = 0;
  const client = new HtxClient(async () => {
    if (++dials > 9) throw new HtxError("CONNECT_FAILED", "enough");
    return await Promise.resolve(endsWithHandshake(KEY));
  }, { remoteStatic: KEY.publicKey, postQuantum: "off" });
  assertEquals((await assertRejects(() => client.connection(), HtxError)).code, "HANDSHAKE_FAILED");
  assertEquals(dials, 1);
  assertEquals(
    (await assertRejects(() => client.createBidirectionalStream(), HtxError)).code,
    "HANDSHAKE_FAILED",
  );
  assertEquals(dials, 3, "a stream tries once more");
  await client.close();
});

Deno.test("exchange(): one that is given up before there is a connection tells its body's source", async () => {
  const client = new HtxClient(() => new Promise(() => {}), { remoteStatic: KEY.publicKey });
  const controller = new AbortController();
  const cancelled = Promise.withResolvers<unknown>();
  const body = new ReadableStream<Uint8Array>({ cancel: cancelled.resolve });
  const head = { method: "POST", scheme: "http", authority: "a.example", path: "/", fields: [] };
  const exchanging = client.exchange({ ...head, body }, { signal: controller.signal });
  const why = new Error("enough");
  controller.abort(why);
  assertEquals(await assertRejects(() => exchanging), why);
  assertEquals(await cancelled.promise, why);
  await client.close();
});

Deno.test("roundtrip() that is given up ends, at whatever moment", async () => {
  await using server = serveStreams(() => new Promise(() => {}), { keyPair: KEY });
  for (let turns = 0; turns < 16; turns++) {
    const controller = new AbortController();
    const why = new Error("enough");
    const { signal } = controller;
    const onConnection = async () => {
      for (let turn = 0; turn < turns; turn++) await undefined;
      controller.abort(why);
    };
    const options = { remoteStatic: KEY.publicKey, postQuantum: "off" as const, signal, onConnection };
    assertEquals(await assertRejects(() => roundtrip(server.addr, "hello", options)), why);
  }
});
