import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type CryptoBackend, HtxError, selectCrypto } from "../core/mod.ts";
import { connect, HtxClient } from "./client.ts";
import type { KeyPair } from "../noise/mod.ts";
import { forward, forwardUpstream } from "./forward.ts";
import { memoryDuplexPair } from "./memory.ts";
import { serve } from "./serve.ts";
import { acceptDuplex, serveStreams, type ServeStreamsOptions } from "./server.ts";
import { dialTcp, listenTcp } from "./tcp.ts";
import { echo } from "./upstream/echo.ts";
import { dialWebSocket, WebSocketListener } from "./websocket.ts";

Deno.test("maxConnections holds for handshakes that come through at once, and no handler sees what is too many", async () => {
  const everyone = Promise.withResolvers<boolean>();
  let handled = 0;
  await using server = serve(() => {
    handled++;
    return new Response("ok");
  }, { maxConnections: 2, authorize: () => everyone.promise });
  const clients = await Promise.all(
    Array.from({ length: 6 }, () => connect(server.addr, { remoteStatic: server.publicKey })),
  );
  const answers = Promise.all(
    clients.map((client) =>
      client.fetch("/").then((response) => response.text(), (error) => {
        if (error instanceof HtxError) return error.code;
        throw error;
      })
    ),
  );
  while (server.halfOpen < 6) await new Promise((resolve) => setTimeout(resolve, 1));
  everyone.resolve(true);
  const codes = (await answers).sort();
  assertEquals(codes, [...Array.from({ length: 4 }, () => "HANDSHAKE_FAILED"), "ok", "ok"]);
  assertEquals([server.connections.size, handled], [2, 2]);
  for (const client of clients) await client.close();
});

Deno.test("maxConnectionsPerAddress closes what is too much from one address, and lets in others and who comes after", async () => {
  await using server = serve(() => new Response("ok"), { listeners: [], maxConnectionsPerAddress: 2 });
  const from = (hostname: string) =>
    connect(async () => {
      const [near, far] = memoryDuplexPair();
      server.accept({ ...far, remoteAddr: { transport: "memory", hostname } });
      return await Promise.resolve(near);
    }, { remoteStatic: server.publicKey });
  const text = async (client: HtxClient) => await (await client.fetch("/")).text();
  const [first, second] = [await from("192.0.2.1"), await from("192.0.2.1")];
  assertEquals([await text(first), await text(second)], ["ok", "ok"]);
  const third = await assertRejects(() => from("192.0.2.1"), HtxError);
  assertEquals(third.code, "HANDSHAKE_FAILED");
  const other = await from("192.0.2.2");
  assertEquals(await text(other), "ok");
  await first.close();
  while (server.connections.size > 2) await new Promise((resolve) => setTimeout(resolve, 1));
  const next = await from("192.0.2.1");
  assertEquals(await text(next), "ok");
  for (const client of [second, other, next]) await client.close();
});

Deno.test("a place of an address is free again where its handshake failed", async () => {
  await using server = serve(() => new Response("ok"), { maxConnectionsPerAddress: 1 });
  const stranger = await dialTcp({ port: server.addr.port! });
  await stranger.io!.write(new Uint8Array(100));
  await stranger.io!.closeWrite();
  assertEquals(await stranger.io!.read(new Uint8Array(1)), null);
  stranger.close?.();
  while (server.halfOpen > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const client = await connect(server.addr, { remoteStatic: server.publicKey });
  assertEquals(await (await client.fetch("/")).text(), "ok");
  await client.close();
});

Deno.test("hooks that fail take neither the server nor a connection with them", async () => {
  let told = 0;
  const server = serve(() => new Response("ok"), {
    onConnection: () => {
      throw new RangeError("hook");
    },
    onError: () => {
      told++;
      throw new Error("hook");
    },
  });
  const stranger = await dialTcp({ port: server.addr.port! });
  await stranger.io!.write(new Uint8Array(100));
  await stranger.io!.closeWrite();
  assertEquals(await stranger.io!.read(new Uint8Array(1)), null);
  stranger.close?.();
  while (told === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const client = await connect(server.addr, { remoteStatic: server.publicKey });
  assertEquals(await (await client.fetch("/")).text(), "ok");
  assertEquals(told, 2, "the garbage, and onConnection");
  await client.close();
  await server.shutdown();
});

Deno.test("a hook that fails later is no unhandled rejection, either", async () => {
  const told = Promise.withResolvers<void>();
  await using server = serveStreams(echo(), {
    onError: () => {
      told.resolve();
      return Promise.reject(new Error("hook"));
    },
  });
  const [here, there] = memoryDuplexPair();
  const accepting = server.accept(there);
  here.close?.();
  assertEquals(await accepting, undefined);
  await told.promise;
});

Deno.test("an onConnection of a client's that fails, at once or later, keeps nobody from the connection", async () => {
  await using server = serve(() => new Response("ok"));
  const hooks = [
    () => {
      throw new Error("hook");
    },
    () => Promise.reject(new Error("hook")),
  ];
  for (const onConnection of hooks) {
    await using client = await connect(server.addr, { remoteStatic: server.publicKey, onConnection });
    assertEquals(await (await client.fetch("/")).text(), "ok");
    assertEquals(client.stats, { connections: 1, connected: 1, failed: 0 });
  }
});

Deno.test("a controlStream hook that fails later resets stream 2 and leaves the others alone", async () => {
  const opened = Promise.withResolvers<void>();
  const reset = Promise.withResolvers<unknown>();
  await using server = serve(() => new Response("ok"), {
    controlStream: async ({ send }) => {
      await send(new Uint8Array([1]));
      await opened.promise;
      throw new Error("hook");
    },
  });
  await using client = await connect(server.addr, {
    remoteStatic: server.publicKey,
    controlStream: ({ signal }) => {
      opened.resolve();
      signal.addEventListener("abort", () => reset.resolve(signal.reason));
    },
  });
  const error = await reset.promise;
  assertEquals(error instanceof HtxError && [error.code, error.streamId], ["INTERNAL_ERROR", 2]);
  assertEquals(await (await client.fetch("/")).text(), "ok");
});

Deno.test("options of the handshake that cannot be are told when a server or client is made, not with each connection", async () => {
  const wrong: [string, ServeStreamsOptions][] = [
    ["timeoutMs", { handshakeTimeoutMs: 0 }],
    ["timeoutMs", { handshakeTimeoutMs: NaN }],
    // @ts-expect-error none of the three
    ["postQuantum", { postQuantum: "Require" }],
    // @ts-expect-error no bytes
    ["channelBinding", { channelBinding: "abc" }],
  ];
  for (const [named, options] of wrong) {
    assertThrows(() => serveStreams(echo(), options), Error, named);
    const [here, there] = memoryDuplexPair();
    // @ts-expect-error an acceptDuplex without a key pair
    await assertRejects(() => acceptDuplex(there, options), TypeError, "keyPair");
    assertEquals(await here.io!.read(new Uint8Array(1)), null, "the duplex is ended");
  }
  const remoteStatic = new Uint8Array(32).fill(9);
  assertThrows(() => new HtxClient({ port: 1 }, { remoteStatic, handshakeTimeoutMs: 0 }), RangeError);
});

Deno.test("an onListen that throws leaves no server behind", async () => {
  const listener = listenTcp({ port: 0 });
  const { port } = listener.addr;
  const onListen = () => {
    throw new RangeError("hook");
  };
  assertThrows(() => serveStreams(echo(), { listeners: [listener], onListen }), RangeError, "hook");
  await assertRejects(() => dialTcp({ port: port! }), HtxError);
});

Deno.test("a server is finished when the handshakes of duplexes that were handed to it are over, whatever they wait for", async () => {
  const native = selectCrypto();
  const asked = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const crypto: CryptoBackend = {
    name: native.name,
    chacha20Poly1305: (key) => native.chacha20Poly1305(key),
    sha256: (...parts) => native.sha256(...parts),
    hmacSha256: (key, ...parts) => native.hmacSha256(key, ...parts),
    hkdfSha256: (ikm, salt, info, length) => native.hkdfSha256(ikm, salt, info, length),
    x25519: (privateKey) => native.x25519(privateKey),
    mlKem768: (seed) => native.mlKem768(seed),
    mlKem768Encapsulate: async (publicKey) => {
      asked.resolve();
      await gate.promise;
      return await native.mlKem768Encapsulate(publicKey);
    },
    randomBytes: (length) => native.randomBytes(length),
  };
  const server = serveStreams(echo(), { listeners: [], crypto });
  const client = new HtxClient(() => {
    const [here, there] = memoryDuplexPair();
    server.accept(there);
    return Promise.resolve(here);
  }, { remoteStatic: server.publicKey });
  const connecting = assertRejects(() => client.connection(), HtxError);
  await asked.promise;
  let finished = false;
  const stopped = server.shutdown({ graceMs: 0 }).then(() => finished = true);
  await client.close();
  await connecting;
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(finished, false);
  gate.resolve();
  await stopped;
});

Deno.test("serve() refuses at once what is no application", () => {
  for (const app of [undefined, null, {}, { fetch: "app" }, "app"]) {
    assertThrows(
      () => serve(app as unknown as Parameters<typeof serve>[0]),
      TypeError,
      "Cannot serve: the application is neither a function nor has one as fetch",
    );
  }
});

Deno.test("what is wrong with the options of a handshake is told by the names of the options", () => {
  const keyPair = "00" as unknown as KeyPair;
  assertThrows(() => serveStreams(echo(), { keyPair }), TypeError, "keyPair is no KeyPair");
  assertThrows(
    () => serveStreams(echo(), { handshakeTimeoutMs: -1 }),
    RangeError,
    "timeoutMs of the handshake is -1, not 1 to 2147483647",
  );
});

Deno.test("client.fetch() takes the init that fetch() takes, and so stands in for it", async () => {
  await using server = serve(async (request) => new Response(`${request.method} ${await request.text()}`));
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const stand: typeof fetch = (input, init) => client.fetch(input, init);
  const init: RequestInit = { method: "POST", body: "tea", signal: null, redirect: "manual" };
  assertEquals(await (await stand("http://site.example/", init)).text(), "POST tea");
});

Deno.test("a graceMs that no timer takes is a wait without a bound", async () => {
  for (const graceMs of [Infinity, 2 ** 31]) {
    const [asked, answered] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const server = serve(async () => {
      asked.resolve();
      await answered.promise;
      return new Response("whole");
    });
    await using client = await connect(server.addr, { remoteStatic: server.publicKey });
    const answer = client.fetch("/").then((response) => response.text());
    await asked.promise;
    const stopped = server.shutdown({ graceMs });
    // A timer that is over at once runs before one that is made later.
    await new Promise((resolve) => setTimeout(resolve, 5));
    answered.resolve();
    assertEquals(await answer, "whole");
    await stopped;
  }
});

Deno.test("a time limit for dialing that no timer takes is one that does not end", async () => {
  const listener = new WebSocketListener();
  await using server = serve(() => new Response(), { listeners: [listenTcp({ port: 0 }), listener] });
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  await using site = Deno.serve(options, (request, info) => listener.upgrade(request, info));
  const url = `ws://127.0.0.1:${site.addr.port}/`;
  for (const timeoutMs of [Infinity, 2 ** 31]) {
    for (
      const dial of [
        () => dialTcp({ port: server.addr.port! }, { timeoutMs }),
        () => dialWebSocket(url, { timeoutMs }),
      ]
    ) {
      await using client = await connect(dial, { remoteStatic: server.publicKey });
      assertEquals((await client.fetch("/")).status, 200);
    }
  }
});

Deno.test("forward(): time limits that no timer takes are none", async () => {
  await using target = serve(() => new Response("in"));
  const where = `127.0.0.1:${target.addr.port}`;
  const handler = forwardUpstream({ allow: [where], dialTimeoutMs: Infinity });
  await using server = serveStreams(handler);
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const forwarder = forward({ client, target: where });
  const through = await connect(forwarder.addr, { remoteStatic: target.publicKey });
  assertEquals(await (await through.fetch("/")).text(), "in");
  const stopped = forwarder.shutdown({ graceMs: Infinity });
  await new Promise((resolve) => setTimeout(resolve, 5)); // a timer that is over at once runs before this one
  assertEquals(await (await through.fetch("/")).text(), "in");
  await through.close();
  await stopped;
});
