import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  concat,
  type CryptoBackend,
  type Duplex,
  HtxConnection,
  HtxError,
  type HtxStream,
  selectCrypto,
} from "../core/mod.ts";
import { ManualClock } from "../core/_test_clock.ts";
import { KeyPair } from "../noise/mod.ts";
import { connect, connectDuplex, type ConnectDuplexOptions, roundtrip } from "./client.ts";
import { memoryDuplexPair } from "./memory.ts";
import { relayDuplex } from "./relay.ts";
import { acceptDuplex, type AcceptOptions, serveStreams } from "./server.ts";
import { dialTcp } from "./tcp.ts";
import { echo } from "./upstream/echo.ts";

const SERVER_KEY = KeyPair.generate();

/** Both ends of a connection in memory. */
async function pair(
  options: {
    client?: Partial<ConnectDuplexOptions>;
    server?: Partial<AcceptOptions>;
    streamsOnly?: boolean;
  } = {},
): Promise<{ client: HtxConnection; server: HtxConnection; duplexes: [Duplex, Duplex] }> {
  const duplexes = memoryDuplexPair({ streamsOnly: options.streamsOnly ?? false });
  const [client, server] = await Promise.all([
    connectDuplex(duplexes[0], { remoteStatic: SERVER_KEY.publicKey, postQuantum: "off", ...options.client }),
    acceptDuplex(duplexes[1], { keyPair: SERVER_KEY, ...options.server }),
  ]);
  return { client, server, duplexes };
}

async function readAll(stream: HtxStream): Promise<number> {
  let length = 0;
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) length += chunk.length;
  return length;
}

Deno.test("close() ends both sides well, streams of either carrier included", async () => {
  for (const streamsOnly of [false, true]) {
    const { client, server } = await pair({ streamsOnly, server: { onStream: echo() } });
    const stream = await client.createBidirectionalStream();
    await stream.write(new Uint8Array(1000), { end: true });
    assertEquals(await readAll(stream), 1000);
    await stream.closed;
    await client.close({ code: "NO_ERROR", reason: "done" });
    assertEquals((await client.closed).remote, false);
    const { code, remote, reason } = await server.closed;
    assertEquals([code, remote, reason], ["NO_ERROR", true, "done"]);
  }
});

Deno.test("a handler that fails resets its stream with INTERNAL_ERROR and nothing else", async () => {
  const { client, server } = await pair({ server: { onStream: () => Promise.reject(new Error("handler")) } });
  const stream = await client.createBidirectionalStream();
  await stream.write(new Uint8Array(1));
  const error = await assertRejects(() => stream.read(), HtxError);
  assertEquals([error.code, error.remote, error.streamId], ["INTERNAL_ERROR", true, 1]);
  await assertRejects(() => stream.closed, HtxError);
  assert(stream.signal.aborted);
  assertEquals((await client.ping()) >= 0, true);
  await Promise.all([client.close(), server.closed]);
});

Deno.test("an end of the duplex without CLOSE rejects `closed` and every read (e-19)", async () => {
  const { client, server, duplexes } = await pair();
  await client.ping();
  const stream = await client.createBidirectionalStream();
  await stream.write(new Uint8Array(1));
  const reading = stream.read();
  duplexes[1].close?.();
  assertEquals((await assertRejects(() => reading, HtxError)).code, "TRUNCATED");
  assertEquals((await assertRejects(() => client.closed, HtxError)).code, "TRUNCATED");
  await assertRejects(() => server.closed, HtxError);
});

Deno.test("a client that was never let in learns it as a failed handshake, not as truncation (e-06)", async () => {
  const duplexes = memoryDuplexPair();
  const handled: unknown[] = [];
  const [client, refused] = await Promise.allSettled([
    connectDuplex(duplexes[0], { remoteStatic: SERVER_KEY.publicKey, postQuantum: "off" }),
    acceptDuplex(duplexes[1], {
      keyPair: SERVER_KEY,
      authorize: () => false,
      handshakeTimeoutMs: 50,
      onStream: (stream) => void handled.push(stream),
    }),
  ]);
  assertEquals(refused.status, "rejected");
  assert(client.status === "fulfilled");
  const stream = await client.value.createBidirectionalStream().catch(() => undefined);
  await stream?.write(new Uint8Array([1])).catch(() => {}); // the connection may be known to be dead by now
  assertEquals((await assertRejects(() => client.value.closed, HtxError)).code, "HANDSHAKE_FAILED");
  assertEquals(handled, []);
});

Deno.test("a client has to pin the server's key (e-05)", async () => {
  const { addr } = { addr: { port: 1 } };
  const none: unknown = {};
  await assertRejects(() => connect(addr, none as ConnectDuplexOptions), TypeError);
  await assertRejects(() => connect(addr, { remoteStatic: new Uint8Array(31) }), TypeError);
  await assertRejects(() => connect(addr, { remoteStatic: new Uint8Array(32).fill(0xff) }), TypeError);
});

Deno.test("a slow reader holds the writer up, and memory stays at the window (e-47)", async () => {
  const { client, server } = await pair({
    client: { sendBuffer: 65_536 },
    server: { maxStreamWindow: 65_535 },
  });
  const stream = await client.createBidirectionalStream();
  const incoming = server.incomingBidirectionalStreams.getReader();
  let written = 0;
  const writing = (async () => {
    for (let i = 0; i < 64; i++) {
      await stream.write(new Uint8Array(16_384));
      written += 16_384;
    }
    await stream.closeWrite();
  })();
  const { value: slow } = await incoming.read();
  await client.ping();
  // The window is full and so is the send buffer: that is all that moves before a byte is read.
  assert(written <= 65_535 + 65_536 + 16_384, `${written}`);
  assert(slow!.receivedBytes <= 65_535);
  assertEquals(await readAll(slow!), 64 * 16_384);
  await writing;
  await Promise.all([client.close(), server.closed]);
});

Deno.test("web streams hold the writer up, too, cancel and abort reset, and errors cross", async () => {
  const { client, server } = await pair();
  const incoming = server.incomingBidirectionalStreams.getReader();
  const stream = await client.createBidirectionalStream();
  const writer = stream.writable.getWriter();
  await writer.write(new Uint8Array(10));
  const { value: other } = await incoming.read();
  await other!.readable.cancel();
  assertEquals((await assertRejects(() => writer.closed, HtxError)).code, "CANCELLED");
  await assertRejects(() => writer.write(new Uint8Array(1)), HtxError);

  const second = await client.createBidirectionalStream();
  await second.write(new Uint8Array(10));
  const { value: far } = await incoming.read();
  const reader = far!.readable.getReader();
  assertEquals((await reader.read()).value?.length, 10);
  await second.writable.abort();
  assertEquals((await assertRejects(() => reader.read(), HtxError)).code, "CANCELLED");
  await Promise.all([client.close(), server.closed]);
});

Deno.test("readInto() and BYOB readers get the same bytes as read(), to the end and over its errors", async () => {
  const { client, server } = await pair();
  const incoming = server.incomingBidirectionalStreams.getReader();
  const sent = crypto.getRandomValues(new Uint8Array(50_000));
  const ways: ((stream: HtxStream) => Promise<Uint8Array>)[] = [
    async (stream) => {
      const chunks: Uint8Array[] = [];
      for (let chunk; (chunk = await stream.read()) !== null;) chunks.push(chunk);
      return concat(...chunks);
    },
    async (stream) => {
      const chunks: Uint8Array[] = [];
      const into = new Uint8Array(7001);
      for (let length; (length = await stream.readInto(into)) !== null;) chunks.push(into.slice(0, length));
      return concat(...chunks);
    },
    async (stream) => {
      const chunks: Uint8Array[] = [];
      const reader = stream.readable.getReader({ mode: "byob" });
      for (let buffer = new ArrayBuffer(7001);;) {
        const { value, done } = await reader.read(new Uint8Array(buffer));
        if (done) return concat(...chunks);
        chunks.push(value.slice());
        buffer = value.buffer;
      }
    },
    async (stream) => concat(...await Array.fromAsync(stream.readable)),
  ];
  for (const way of ways) {
    const stream = await client.createBidirectionalStream();
    await stream.write(sent.subarray(0, 10));
    const { value: other } = await incoming.read();
    const received = way(other!);
    for (let at = 10; at < sent.length; at += 9998) await stream.write(sent.subarray(at, at + 9998));
    await client.ping(); // the reader waits when the end comes
    await stream.closeWrite();
    assertEquals(await received, sent);
  }

  const stream = await client.createBidirectionalStream();
  await stream.write(new Uint8Array(3));
  const { value: other } = await incoming.read();
  await assertRejects(() => other!.readInto(new Uint8Array(0)), TypeError, "no room");
  assertEquals(await other!.readInto(new Uint8Array(2)), 2);
  assertEquals(other!.tryReadInto(new Uint8Array(2)), 1);
  assertEquals(other!.tryReadInto(new Uint8Array(2)), undefined);
  const waiting = other!.readInto(new Uint8Array(2));
  await assertRejects(() => other!.readInto(new Uint8Array(2)), TypeError, "under way");
  await assertRejects(() => other!.read(), TypeError, "under way");
  stream.reset("CANCELLED");
  assertEquals((await assertRejects(() => waiting, HtxError)).code, "CANCELLED");
  assertThrows(() => other!.tryReadInto(new Uint8Array(2)), HtxError);
  await Promise.all([client.close(), server.closed]);
});

Deno.test("a BYOB read that waits ends with the stream it waits for", async () => {
  const { client, server } = await pair();
  const incoming = server.incomingBidirectionalStreams.getReader();
  for (const how of ["reset", "cancel", "close"] as const) {
    const stream = await client.createBidirectionalStream();
    await stream.write(new Uint8Array(1));
    const { value: other } = await incoming.read();
    const reader = other!.readable.getReader({ mode: "byob" });
    assertEquals((await reader.read(new Uint8Array(8))).value?.length, 1);
    const waiting = reader.read(new Uint8Array(8));
    if (how === "reset") {
      stream.reset("CANCELLED");
      assertEquals((await assertRejects(() => waiting, HtxError)).code, "CANCELLED");
    } else if (how === "cancel") {
      await reader.cancel();
      assertEquals((await waiting).done, true);
      assertEquals((await assertRejects(() => stream.read(), HtxError)).code, "CANCELLED");
    } else {
      await stream.closeWrite();
      assertEquals((await waiting).done, true);
    }
  }
  await Promise.all([client.close(), server.closed]);
});

Deno.test("a BYOB reader that is released while its read waits loses nothing to who reads next", async () => {
  const { client, server } = await pair();
  const incoming = server.incomingBidirectionalStreams.getReader();
  /** A stream whose BYOB reader was released with a read pending. */
  const released = async (): Promise<[HtxStream, ReadableStream<Uint8Array<ArrayBuffer>>]> => {
    const stream = await client.createBidirectionalStream();
    await stream.write(new Uint8Array([1]));
    const { readable } = (await incoming.read()).value!;
    const reader = readable.getReader({ mode: "byob" });
    assertEquals((await reader.read(new Uint8Array(8))).value, new Uint8Array([1]));
    const waiting = reader.read(new Uint8Array(8));
    reader.releaseLock();
    await assertRejects(() => waiting, TypeError);
    return [stream, readable];
  };
  type Read = () => Promise<{ done: boolean; value?: Uint8Array | undefined }>;
  const readers: ((readable: ReadableStream<Uint8Array<ArrayBuffer>>) => Read)[] = [
    (readable) => {
      const reader = readable.getReader();
      return () => reader.read();
    },
    (readable) => {
      const reader = readable.getReader({ mode: "byob" });
      return () => reader.read(new Uint8Array(8));
    },
  ];
  const sent = async (stream: HtxStream, ...bytes: number[]) => {
    await stream.write(new Uint8Array(bytes));
    await client.ping(); // it has arrived
  };
  for (const reading of readers) {
    { // read first, sent then
      const [stream, readable] = await released();
      const read = reading(readable);
      const reads = [read(), read()];
      await sent(stream, 2, 3);
      assertEquals((await reads[0]!).value, new Uint8Array([2, 3]));
      await sent(stream, 4);
      assertEquals((await reads[1]!).value, new Uint8Array([4]));
      const end = read();
      await stream.closeWrite();
      assertEquals((await end).done, true);
    }
    { // sent first, read then
      const [stream, readable] = await released();
      await sent(stream, 2, 3);
      const read = reading(readable);
      assertEquals((await read()).value, new Uint8Array([2, 3]));
      await sent(stream, 4);
      assertEquals((await read()).value, new Uint8Array([4]));
    }
    for (const readFirst of [true, false]) { // the end
      const [stream, readable] = await released();
      const early = readFirst ? reading(readable)() : undefined;
      await stream.closeWrite();
      await client.ping();
      assertEquals((await (early ?? reading(readable)())).done, true);
    }
    for (const readFirst of [true, false]) { // an error
      const [stream, readable] = await released();
      const early = readFirst ? reading(readable)() : undefined;
      early?.catch(() => {});
      stream.reset("INTERNAL_ERROR");
      await client.ping();
      const error = await assertRejects(() => early ?? reading(readable)(), HtxError);
      assertEquals(error.code, "INTERNAL_ERROR");
    }
    { // a reader in between, who gives up as well
      const [stream, readable] = await released();
      const between = readable.getReader();
      const given = between.read();
      between.releaseLock();
      await assertRejects(() => given, TypeError);
      const late = reading(readable)();
      await sent(stream, 2, 3);
      assertEquals((await late).value, new Uint8Array([2, 3]));
    }
    { // who does not want the rest
      const [stream, readable] = await released();
      const early = reading(readable)();
      early.catch(() => {});
      await assertRejects(() => readable.cancel(), TypeError);
      stream.reset();
      await assertRejects(() => early, HtxError);
    }
    const [stream, readable] = await released();
    await readable.cancel();
    assertEquals((await assertRejects(() => stream.read(), HtxError)).code, "CANCELLED");
  }
  await Promise.all([client.close(), server.closed]);
});

Deno.test("createBidirectionalStream() waits for a place, in order, and gives up with its signal", async () => {
  const { client, server } = await pair({ client: { maxLocalStreams: 1 }, server: { onStream: echo() } });
  const first = await client.createBidirectionalStream();
  const order: number[] = [];
  const second = client.createBidirectionalStream().then((stream) => (order.push(2), stream));
  const controller = new AbortController();
  const given = client.createBidirectionalStream({ signal: controller.signal });
  const third = client.createBidirectionalStream().then((stream) => (order.push(3), stream));
  controller.abort(new Error("given up"));
  await assertRejects(() => given, Error, "given up");
  await first.write(new Uint8Array(1), { end: true });
  await readAll(first);
  (await second).reset();
  (await third).reset();
  assertEquals(order, [2, 3]);
  await Promise.all([client.close(), server.closed]);
  await assertRejects(() => client.createBidirectionalStream(), HtxError);
});

Deno.test("time-driven rules run on the connection's clock: idle, keepalive, and no timer is left", async () => {
  const clock = new ManualClock();
  const { client, server } = await pair({ client: { clock }, server: { clock } });
  clock.advance(299_999);
  assertEquals(client.closing, false);
  clock.advance(1);
  assertEquals((await client.closed).code, "GOING_AWAY");
  assertEquals((await server.closed).code, "GOING_AWAY");
  assertEquals(clock.timers, 0);
});

Deno.test("a write without progress for 60 s ends the session (TIMEOUT)", async () => {
  const clock = new ManualClock();
  const { client, server, duplexes } = await pair({ client: { clock } });
  void duplexes;
  const incoming = server.incomingBidirectionalStreams;
  const stream = await client.createBidirectionalStream();
  // A carrier that takes nothing more: its write never settles.
  const stuck: Duplex = memoryDuplexPair({ highWaterMark: 1 })[0];
  const frozen = new HtxConnection(stuck, {
    role: "client",
    keys: { client: new Uint8Array(32), server: new Uint8Array(32), handshakeHash: new Uint8Array(32) },
    remoteStatic: new Uint8Array(32),
    handshake: { protocol: "test", hybrid: false, hash: new Uint8Array(32) },
    clock,
  });
  const blocked = await frozen.createBidirectionalStream();
  await blocked.write(new Uint8Array(10));
  await blocked.write(new Uint8Array(60_000)).catch(() => {}); // told by `closed`
  for (let i = 0; i < 20; i++) await Promise.resolve();
  await new Promise((resolve) => queueMicrotask(() => resolve(undefined)));
  blocked.write(new Uint8Array(10)).catch(() => {}); // likewise
  for (let i = 0; i < 20; i++) await Promise.resolve();
  clock.advance(60_000);
  const error = await assertRejects(() => frozen.closed, HtxError);
  assertEquals(error.code, "TIMEOUT");
  stream.reset();
  await incoming.cancel();
  await Promise.all([client.close(), server.closed]);
});

Deno.test("a peer that stalls in its handshake is dropped, and a good client gets through meanwhile (e-37)", async () => {
  const server = serveStreams(echo(), { handshakeTimeoutMs: 300 });
  const stalled = await Promise.all(
    Array.from({ length: 50 }, () => Deno.connect({ hostname: "127.0.0.1", port: server.addr.port! })),
  );
  const answer = await roundtrip(server.addr, "hello", { remoteStatic: server.publicKey });
  assertEquals(new TextDecoder().decode(answer), "hello");
  for (const conn of stalled) {
    assertEquals(await conn.read(new Uint8Array(10)), null, "ended without a byte");
    conn.close();
  }
  await server.shutdown();
});

Deno.test("past maxHalfOpen the oldest handshake is dropped", async () => {
  const server = serveStreams(echo(), { maxHalfOpen: 2 });
  const dial = () => Deno.connect({ hostname: "127.0.0.1", port: server.addr.port! });
  const conns: Deno.TcpConn[] = [];
  for (let i = 0; i < 3; i++) {
    conns.push(await dial());
    while (server.halfOpen < Math.min(i + 1, 2)) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assertEquals(await conns[0]!.read(new Uint8Array(1)), null);
  assertEquals(server.halfOpen, 2);
  for (const conn of conns) conn.close();
  await server.shutdown();
});

Deno.test("500 connections and 10 000 streams come and go and leave nothing", async () => {
  const server = serveStreams(echo());
  const keyPair = KeyPair.generate();
  const options = { remoteStatic: server.publicKey, keyPair, postQuantum: "off" as const };
  for (let i = 0; i < 500; i += 25) {
    await Promise.all(Array.from({ length: 25 }, async (_, k) => {
      const connection = await connectDuplex(dialTcp({ port: server.addr.port! }), options);
      const stream = await connection.createBidirectionalStream();
      await stream.write(new Uint8Array(10), { end: true });
      if (k % 5 === 0) return connection.abort(); // some leave without a word
      assertEquals(await readAll(stream), 10);
      await connection.close();
    }));
  }
  await using client = await connect(server.addr, options);
  for (let i = 0; i < 10_000; i += 100) {
    await Promise.all(Array.from({ length: 100 }, async (_, k) => {
      const stream = await client.createBidirectionalStream();
      if (k % 10 === 0) return stream.reset();
      await stream.write(new Uint8Array(10), { end: k % 10 !== 1 });
      if (k % 10 === 1) return stream.reset();
      assertEquals(await readAll(stream), 10);
    }));
  }
  const [connection] = client.connections;
  await connection!.ping();
  assertEquals(connection!.openStreams, 0);
  assertEquals(connection!.stats.streams, 0);
  assertEquals(server.connections.size, 1);
  const [far] = server.connections;
  assertEquals(far!.stats.streams, 0);
  await client.close();
  await server.shutdown();
  assertEquals([server.connections.size, server.halfOpen], [0, 0]);
});

Deno.test("shutdown() lets open streams finish, refuses new ones, then closes; its grace bounds the wait", async () => {
  const server = serveStreams(echo());
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const stream = await client.createBidirectionalStream();
  await stream.write(new Uint8Array([1]));
  assertEquals(await stream.read(), new Uint8Array([1]));
  const over = server.shutdown();
  const late = await client.createBidirectionalStream();
  await late.write(new Uint8Array([1]));
  const error = await assertRejects(() => late.read(), HtxError);
  assertEquals([error.code, error.retryable], ["GOING_AWAY", true]);
  await stream.write(new Uint8Array([2]), { end: true });
  assertEquals(await stream.read(), new Uint8Array([2]));
  assertEquals(await stream.read(), null);
  await over;

  const stubborn = serveStreams(echo());
  await using other = await connect(stubborn.addr, { remoteStatic: stubborn.publicKey });
  const open = await other.createBidirectionalStream();
  await open.write(new Uint8Array([1]));
  await open.read();
  await stubborn.shutdown({ graceMs: 20 });
  assertEquals((await assertRejects(() => open.read(), HtxError)).code, "GOING_AWAY");
});

Deno.test("a client dials again when its connection is gone", async () => {
  const server = serveStreams(echo());
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  for (let i = 0; i < 3; i++) {
    const stream = await client.createBidirectionalStream();
    await stream.write(new Uint8Array([i]), { end: true });
    assertEquals(await readAll(stream), 1);
    const [connection] = client.connections;
    connection!.abort();
    await connection!.closed.catch(() => {}); // that it broke is the point
  }
  assertEquals(client.stats.connected, 3);
  await client.close();
  await server.shutdown();
  await assertRejects(() => client.connection(), HtxError);
});

Deno.test("a refused dial is CONNECT_FAILED with the fix in it, and roundtrip() stops at its bound", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const error = await assertRejects(
    () => connect({ port }, { remoteStatic: SERVER_KEY.publicKey }),
    HtxError,
  );
  assertEquals(error.code, "CONNECT_FAILED");
  assert(error.message.includes("is the server running"));
  await using server = serveStreams(echo());
  const tooMuch = await assertRejects(
    () => roundtrip(server.addr, new Uint8Array(1000), { remoteStatic: server.publicKey, maxBytes: 999 }),
    HtxError,
  );
  assertEquals(tooMuch.code, "LIMIT_EXCEEDED");
});

Deno.test("bounds out of range are the caller's mistake, told before anything is opened", async () => {
  assertThrows(() => serveStreams(echo(), { maxHalfOpen: 0 }), RangeError);
  assertThrows(() => serveStreams(echo(), { maxConnections: 0.5 }), RangeError);
  assertThrows(() => serveStreams(echo(), { maxConnectionsPerAddress: 0 }), RangeError);
  assertThrows(() => serveStreams(echo(), { frameTimeoutMs: -1 }), RangeError);
  await assertRejects(
    () => connect({ port: 1 }, { remoteStatic: SERVER_KEY.publicKey, maxPeerStreams: -1 }),
    RangeError,
  );
  const [here, there] = memoryDuplexPair();
  const options = { remoteStatic: SERVER_KEY.publicKey, rekey: { afterFrames: 15 } };
  await assertRejects(() => connectDuplex(here, options), RangeError);
  assertEquals(await there.io!.read(new Uint8Array(1)), null);
  await assertRejects(
    () => acceptDuplex(there, { keyPair: SERVER_KEY, padding: { min: 2, max: 1 } }),
    RangeError,
  );
});

/** The primitives, and how many key exchange keys made with them are not wiped. */
function countingKeys(): { crypto: CryptoBackend; live: () => number } {
  const native = selectCrypto();
  const live = new Set<object>();
  const counted = <T extends { wipe(): void }>(key: T): T => {
    const wipe = key.wipe.bind(key);
    live.add(key);
    key.wipe = () => {
      live.delete(key);
      wipe();
    };
    return key;
  };
  const crypto: CryptoBackend = {
    name: native.name,
    chacha20Poly1305: (key) => native.chacha20Poly1305(key),
    sha256: (...parts) => native.sha256(...parts),
    hmacSha256: (key, ...parts) => native.hmacSha256(key, ...parts),
    hkdfSha256: (ikm, salt, info, length) => native.hkdfSha256(ikm, salt, info, length),
    x25519: (privateKey) => {
      const key = native.x25519(privateKey);
      return counted({
        publicKey: key.publicKey,
        dh: (peer: Uint8Array) => key.dh(peer),
        wipe: () => key.wipe(),
      });
    },
    mlKem768: async (seed) => {
      const key = await native.mlKem768(seed);
      return counted({
        publicKey: key.publicKey,
        decapsulate: (ciphertext: Uint8Array) => key.decapsulate(ciphertext),
        wipe: () => key.wipe(),
      });
    },
    mlKem768Encapsulate: (publicKey) => native.mlKem768Encapsulate(publicKey),
    randomBytes: (length) => native.randomBytes(length),
  };
  return { crypto, live: () => live.size };
}

/** A duplex of nothing but web streams, and what was told to their sources. */
function bareDuplex(): { duplex: Duplex; told: string[] } {
  const told: string[] = [];
  const duplex: Duplex = {
    readable: new ReadableStream({ cancel: () => void told.push("cancel") }),
    writable: new WritableStream({ abort: () => void told.push("abort") }),
  };
  return { duplex, told };
}

Deno.test("connectDuplex() with a duplex whose streams are locked leaves no key behind, and ends what it can", async () => {
  const keyPair = KeyPair.generate();
  for (const postQuantum of ["off", "require"] as const) {
    for (const locked of ["readable", "writable"] as const) {
      const { crypto, live } = countingKeys();
      const options = { remoteStatic: SERVER_KEY.publicKey, keyPair, postQuantum, crypto };
      const [here, there] = memoryDuplexPair({ streamsOnly: true });
      if (locked === "readable") here.readable.getReader();
      else here.writable.getWriter();
      await assertRejects(() => connectDuplex(here, options), TypeError);
      assertEquals(live(), 1, "the static key, which belongs to its pair");
      assertEquals((await there.readable.getReader().read()).done, true, "the duplex is ended");

      const { duplex, told } = bareDuplex();
      if (locked === "readable") duplex.readable.getReader();
      else duplex.writable.getWriter();
      await assertRejects(() => connectDuplex(Promise.resolve(duplex), options), TypeError);
      assertEquals(live(), 1);
      assertEquals(told, [locked === "readable" ? "abort" : "cancel"]);
    }
  }
});

Deno.test("a duplex of which no connection can be made is ended, on either side", async () => {
  const failing = (duplex: Duplex): Duplex => ({
    ...duplex,
    readable: duplex.readable,
    writable: duplex.writable,
    io: duplex.io!,
    close: () => duplex.close?.(),
    limitReceive: () => {
      throw new RangeError("no limit");
    },
  });
  for (const side of ["client", "server"] as const) {
    const [here, there] = memoryDuplexPair();
    const connecting = connectDuplex(side === "client" ? failing(here) : here, {
      remoteStatic: SERVER_KEY.publicKey,
    });
    const accepting = acceptDuplex(side === "server" ? failing(there) : there, { keyPair: SERVER_KEY });
    if (side === "client") {
      await assertRejects(() => connecting, RangeError, "no limit");
      assertEquals((await assertRejects(() => accepting, HtxError)).code, "HANDSHAKE_FAILED");
    } else {
      await assertRejects(() => accepting, RangeError, "no limit");
      const { closed } = await connecting;
      assertEquals((await assertRejects(() => closed, HtxError)).code, "HANDSHAKE_FAILED");
    }
  }
});

Deno.test("relayDuplex() ends both duplexes where it cannot have one", async () => {
  for (const first of [true, false]) {
    const { duplex: locked, told } = bareDuplex();
    locked.writable.getWriter();
    const { duplex: free, told: toldFree } = bareDuplex();
    await assertRejects(() => relayDuplex(first ? locked : free, first ? free : locked), TypeError);
    assertEquals([told, toldFree.sort()], [["cancel"], ["abort", "cancel"]]);
  }
});

Deno.test("a server ends a duplex whose streams are locked", async () => {
  for (const locked of ["readable", "writable"] as const) {
    const { duplex, told } = bareDuplex();
    if (locked === "readable") duplex.readable.getReader();
    else duplex.writable.getWriter();
    await assertRejects(() => acceptDuplex(duplex, { keyPair: SERVER_KEY }), TypeError);
    assertEquals(told, [locked === "readable" ? "abort" : "cancel"]);
  }
});
