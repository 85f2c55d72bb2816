import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Duplex, HtxError } from "../core/mod.ts";
import { makeTestCertificate } from "./_test_certificate.ts";
import { connect } from "./client.ts";
import { serve } from "./serve.ts";
import { serveStreams } from "./server.ts";
import { listenTcp } from "./tcp.ts";
import { echo } from "./upstream/mod.ts";
import {
  dialWebSocket,
  MAX_WEBSOCKET_MESSAGE_LENGTH,
  webSocketDuplex,
  type WebSocketLike,
  WebSocketListener,
} from "./websocket.ts";

/** A WebSocket whose other side is the test. */
class FakeSocket extends EventTarget implements WebSocketLike {
  binaryType: BinaryType = "blob";
  readyState = 1;
  bufferedAmount = 0;
  readonly sent: number[] = [];
  closeCode: number | undefined | "open" = "open";

  send(data: Uint8Array<ArrayBuffer>): void {
    this.sent.push(data.length);
    this.bufferedAmount += data.length;
  }

  close(code?: number): void {
    const opening = this.readyState === 0;
    this.readyState = 2;
    if (opening) return; // as a server's socket of Deno's: it opens all the same
    if (this.closeCode === "open") this.closeCode = code;
    queueMicrotask(() => this.end(true));
  }

  open(): void {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }

  end(wasClean: boolean): void {
    this.readyState = 3;
    this.dispatchEvent(new CloseEvent("close", { code: wasClean ? 1000 : 1006, wasClean }));
  }

  receive(data: unknown): void {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }
}

async function readAll(duplex: Duplex): Promise<number> {
  let length = 0;
  const into = new Uint8Array(100_000);
  for (;;) {
    const read = await duplex.io!.read(into);
    if (read === null) return length;
    length += read;
  }
}

Deno.test("a text message, and one above 1 MiB, end the duplex with an error", async () => {
  for (
    const [data, code] of [["text", 4003], [new ArrayBuffer(MAX_WEBSOCKET_MESSAGE_LENGTH + 1), 4009]] as const
  ) {
    const socket = new FakeSocket();
    const duplex = webSocketDuplex(socket);
    assertEquals([socket.binaryType, duplex.covert], ["arraybuffer", true]);
    socket.receive(new ArrayBuffer(MAX_WEBSOCKET_MESSAGE_LENGTH));
    socket.receive(data);
    socket.receive(new ArrayBuffer(5)); // behind the error: not heard
    const into = new Uint8Array(MAX_WEBSOCKET_MESSAGE_LENGTH * 2);
    assertEquals(await duplex.io!.read(into), MAX_WEBSOCKET_MESSAGE_LENGTH);
    const error = await assertRejects(() => duplex.io!.read(into), HtxError);
    assertEquals([error.code, error.field, socket.closeCode], ["MALFORMED", "message", code]);
  }
});

Deno.test("what waits to be read is bounded by the credit given and 64 KiB, exactly", async () => {
  for (const credit of [undefined, 0, 100_000, 3 * MAX_WEBSOCKET_MESSAGE_LENGTH]) {
    const socket = new FakeSocket();
    const duplex = webSocketDuplex(socket);
    if (credit !== undefined) duplex.limitReceive!(() => credit);
    const bound = (credit ?? MAX_WEBSOCKET_MESSAGE_LENGTH) + 65_536;
    for (let left = bound; left > 0; left -= 50_000) socket.receive(new ArrayBuffer(Math.min(left, 50_000)));
    assertEquals([credit, socket.closeCode], [credit, "open"]);
    // What is read makes room again.
    const length = await duplex.io!.read(new Uint8Array(10)) ?? 0;
    socket.receive(new ArrayBuffer(length));
    assertEquals(socket.closeCode, "open");
    socket.receive(new ArrayBuffer(1));
    assertEquals(socket.closeCode, 4009);
    const error = await assertRejects(() => duplex.io!.read(new Uint8Array(10)), HtxError);
    assertEquals(error.code, "FLOW_CONTROL_ERROR");
  }
});

Deno.test("a socket that can be made to wait is, while more than 64 KiB wait to be read", async () => {
  const socket = Object.assign(new FakeSocket(), { _hold: (): unknown => undefined });
  const duplex = webSocketDuplex(socket);
  socket.receive(new ArrayBuffer(65_536));
  assertEquals(socket._hold(), undefined);
  socket.receive(new ArrayBuffer(10));
  const held = socket._hold();
  assert(held instanceof Promise);
  assertEquals(await duplex.io!.read(new Uint8Array(10)), 10);
  await held;
  socket.receive(new ArrayBuffer(1));
  const last = socket._hold();
  duplex.close!();
  await last;
});

Deno.test("a session tells its WebSocket what it allows: its streams' windows, not more", async () => {
  const keys: (() => number)[] = [];
  const listener = new WebSocketListener();
  const authorized = Promise.withResolvers<boolean>();
  await using server = serveStreams(echo(), {
    listeners: [{
      addr: listener.addr,
      accept: async () => {
        const duplex = await listener.accept();
        if (duplex !== undefined) {
          const limit = duplex.limitReceive!.bind(duplex);
          duplex.limitReceive = (credit) => {
            keys.push(credit);
            limit(credit);
          };
        }
        return duplex;
      },
      close: () => listener.close(),
    }],
    maxPeerStreams: 4,
    authorize: () => authorized.promise,
  });
  const front = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => listener.upgrade(request),
  );
  const client = await connect(
    ({ signal }) => dialWebSocket(`ws://127.0.0.1:${front.addr.port}`, { signal }),
    {
      remoteStatic: server.publicKey,
      keepalive: false,
      padding: false,
    },
  );
  const stream = await client.createBidirectionalStream();
  // Sent while the server still thinks about who this is: it is within the first window, and must not end the socket.
  const data = new Uint8Array(60_000);
  const sending = stream.write(data);
  while (keys.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals(keys[0]!(), 4 * 65_535);
  authorized.resolve(true);
  await sending;
  let length = 0;
  while (length < data.length) length += (await stream.read())!.length;
  assertEquals(keys.length, 2);
  assert(keys[1]!() <= 4 * 65_535);
  await stream.closeWrite();
  await client.close();
  await front.shutdown();
});

Deno.test("e-47: writes wait while the socket holds more than it may, and give up on a peer that takes nothing", async () => {
  const socket = new FakeSocket();
  const duplex = webSocketDuplex(socket, { sendBuffer: 300_000, writeTimeoutMs: 60 });
  let done = false;
  const writing = duplex.io!.write(new Uint8Array(2 * MAX_WEBSOCKET_MESSAGE_LENGTH)).then(() => done = true);
  for (let turns = 0; !done; turns++) {
    assert(socket.bufferedAmount <= 300_000 + MAX_WEBSOCKET_MESSAGE_LENGTH, "more waits than may");
    socket.bufferedAmount = Math.max(0, socket.bufferedAmount - 200_000);
    await new Promise((resolve) => setTimeout(resolve, 1));
    assert(turns < 1000);
  }
  await writing;
  assertEquals(socket.sent.reduce((sum, length) => sum + length), 2 * MAX_WEBSOCKET_MESSAGE_LENGTH);
  assert(Math.max(...socket.sent) <= MAX_WEBSOCKET_MESSAGE_LENGTH);
  socket.bufferedAmount = 300_000;
  const error = await assertRejects(() => duplex.io!.write(new Uint8Array(1)), HtxError);
  assertEquals(error.code, "TIMEOUT");
  await assertRejects(() => duplex.io!.write(new Uint8Array(1)), HtxError);
});

Deno.test("closeWrite() ends the socket once everything was sent; an end without a closing handshake is an error", async () => {
  const socket = new FakeSocket();
  const duplex = webSocketDuplex(socket);
  await duplex.io!.write(new Uint8Array(100));
  const closing = duplex.io!.closeWrite();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(socket.closeCode, "open");
  socket.receive(new ArrayBuffer(7));
  socket.bufferedAmount = 0;
  await closing;
  assertEquals([socket.closeCode, await readAll(duplex)], [1000, 7]);
  await assertRejects(() => duplex.io!.write(new Uint8Array(1)), DOMException);

  const broken = new FakeSocket();
  const other = webSocketDuplex(broken);
  broken.receive(new ArrayBuffer(3));
  broken.end(false);
  assertEquals(await other.io!.read(new Uint8Array(9)), 3); // what came before is not lost
  await assertRejects(() => other.io!.read(new Uint8Array(9)), DOMException, "closing handshake");
});

Deno.test("dialWebSocket() says why it failed, without the query that may hold a ticket", async () => {
  const site = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response("just a page"),
  );
  const url = `ws://127.0.0.1:${site.addr.port}/?bn1=SECRET`;
  const error = await assertRejects(() => dialWebSocket(url), HtxError);
  assertEquals(error.code, "CONNECT_FAILED");
  assert(!error.message.includes("SECRET"));
  await site.shutdown();
  const silent = listenTcp({ port: 0 });
  const accepting = silent.accept();
  const late = await assertRejects(
    () => dialWebSocket(`ws://127.0.0.1:${silent.addr.port}`, { timeoutMs: 30 }),
    HtxError,
    "within 30 ms",
  );
  assertEquals(late.code, "CONNECT_FAILED");
  (await accepting)!.close?.();
  silent.close();
  const aborted = AbortSignal.abort(new RangeError("enough"));
  await assertRejects(() => dialWebSocket(url, { signal: aborted }), RangeError, "enough");
});

Deno.test("e-28: over wss no byte of a ticket leaves before TLS is up, and a certificate nobody vouches for gets none", async () => {
  const certificate = await makeTestCertificate();
  if (certificate === undefined) return;
  const { cert, key } = certificate;
  const cookies: string[] = [];
  const listener = new WebSocketListener();
  const front = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {}, cert, key },
    (request, info) => {
      cookies.push(request.headers.get("cookie") ?? "");
      return listener.upgrade(request, info);
    },
  );
  await using server = serve(() => new Response("inside"), { listeners: [listener] });
  const headers = { cookie: "__Host-bn1=TICKETTICKET" };

  // A tap between client and site sees all bytes of the way there.
  const tap = listenTcp({ port: 0 });
  const seen: number[] = [];
  const tapping = (async () => {
    for (;;) {
      const near = await tap.accept();
      if (near === undefined) return;
      const far = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
      const there = (async () => {
        const into = new Uint8Array(65_536);
        for (;;) {
          const length = await near.io!.read(into);
          if (length === null) return await far.closeWrite();
          for (const byte of into.subarray(0, length)) seen.push(byte);
          await far.write(into.subarray(0, length));
        }
      })();
      const back = (async () => {
        const into = new Uint8Array(65_536);
        for (;;) {
          const length = await far.read(into);
          if (length === null) return await near.io!.closeWrite();
          await near.io!.write(into.subarray(0, length));
        }
      })();
      await Promise.allSettled([there, back]);
      near.close?.();
      far.close();
    }
  })();
  const url = `wss://localhost:${tap.addr.port}/`;
  const stranger = await assertRejects(() => dialWebSocket(url, { headers }), HtxError);
  assertEquals([stranger.code, cookies], ["CONNECT_FAILED", []]);
  const http = Deno.createHttpClient({ caCerts: [cert] });
  const client = await connect(({ signal }) => dialWebSocket(url, { headers, client: http, signal }), {
    remoteStatic: server.publicKey,
  });
  assertEquals(await (await client.fetch("/")).text(), "inside");
  await client.close();
  assertEquals(cookies, [headers.cookie]);
  assertEquals(seen[0], 0x16);
  assert(!String.fromCharCode(...seen).includes("TICKET"));
  http.close();
  tap.close();
  await tapping;
  await front.shutdown();
});

Deno.test("WebSocketListener: a full backlog and a closed listener end the sockets they are given", async () => {
  const listener = new WebSocketListener({ backlog: 1, localAddr: { transport: "websocket", port: 443 } });
  assertEquals(listener.addr, { transport: "websocket", port: 443 });
  const sockets = [new FakeSocket(), new FakeSocket(), new FakeSocket(), new FakeSocket()];
  assertEquals(
    listener.push(sockets[0]!, { remoteAddr: { transport: "websocket", hostname: "192.0.2.1" } }),
    true,
  );
  assertEquals(listener.push(sockets[1]!), false);
  assertEquals(sockets[1]!.closeCode, undefined);
  assertEquals((await listener.accept())?.remoteAddr?.hostname, "192.0.2.1");
  const waiting = listener.accept();
  assertEquals(listener.push(sockets[2]!), true);
  assert(await waiting !== undefined);
  const last = listener.accept();
  listener.close();
  assertEquals([await last, await listener.accept()], [undefined, undefined]);
  sockets[3]!.readyState = 0;
  assertEquals(listener.push(sockets[3]!), false);
  assertEquals(sockets[3]!.closeCode, "open"); // not before it is open
  sockets[3]!.open();
  assertEquals(sockets[3]!.closeCode, undefined);
});

Deno.test("a WebSocket that is ended before it is open is closed once it opens", () => {
  const ends: [(socket: FakeSocket, duplex: Duplex) => void, number | undefined][] = [
    [(_socket, duplex) => duplex.close?.(), undefined],
    [(socket) => socket.receive("text"), 4003],
  ];
  for (const [end, code] of ends) {
    const socket = new FakeSocket();
    socket.readyState = 0;
    end(socket, webSocketDuplex(socket));
    assertEquals(socket.closeCode, "open");
    socket.open();
    assertEquals([socket.closeCode, socket.readyState], [code, 2]);
  }
});

Deno.test("a WebSocket that a full server refuses is closed", async () => {
  const listener = new WebSocketListener();
  const server = serve(() => new Response("ok"), { listeners: [listener], maxConnections: 1 });
  const front = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request, info) => listener.upgrade(request, info),
  );
  const url = `ws://127.0.0.1:${front.addr.port}/`;
  const client = await connect(({ signal }) => dialWebSocket(url, { signal }), {
    remoteStatic: server.publicKey,
  });
  await (await client.fetch("/")).body?.cancel();
  const refused = await dialWebSocket(url);
  assertEquals(await refused.io!.read(new Uint8Array(1)), null);
  refused.close?.();
  await client.close();
  await server.shutdown();
  await front.shutdown();
});

Deno.test("past maxLingering, sockets whose peers do not answer the Close frame keep new ones out", async () => {
  const listener = new WebSocketListener({ maxLingering: 2 });
  const server = serve(() => new Response("ok"), { listeners: [listener], handshakeTimeoutMs: 20 });
  const front = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request, info) => listener.upgrade(request, info),
  );
  /** Asks for a WebSocket, then says nothing any more. */
  const mute = async (): Promise<{ conn: Deno.TcpConn; status: string }> => {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    const key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    const head = `GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n${key}\r\n\r\n`;
    await conn.write(new TextEncoder().encode(head));
    const into = new Uint8Array(12); // "HTTP/1.1 101"
    for (let at = 0; at < into.length;) at += await conn.read(into.subarray(at)) ?? into.length;
    return { conn, status: new TextDecoder().decode(into.subarray(9)) };
  };
  const until = async (lingering: number) => {
    while (listener.lingering !== lingering) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  const [first, second] = [await mute(), await mute()];
  await until(2);
  const third = await mute();
  assertEquals([first.status, second.status, third.status], ["101", "101", "503"]);
  assertEquals(listener.push(new FakeSocket()), false);
  first.conn.close();
  await until(1);
  const fourth = await mute();
  assertEquals(fourth.status, "101");
  for (const { conn } of [second, third, fourth]) conn.close();
  await server.shutdown();
  await until(0);
  await front.shutdown();
});

Deno.test("writes that wait again and again leave nothing behind on a socket that lives on", async () => {
  const socket = new FakeSocket();
  const duplex = webSocketDuplex(socket, { sendBuffer: 10 });
  const reactions = new Map<Promise<unknown>, number>();
  const { then } = Promise.prototype;
  Promise.prototype.then = new Proxy(then, {
    apply: (target, promise, args) => {
      reactions.set(promise, (reactions.get(promise) ?? 0) + 1);
      return Reflect.apply(target, promise, args);
    },
  });
  try {
    for (let i = 0; i < 20; i++) {
      const writing = duplex.io!.write(new Uint8Array(11));
      socket.bufferedAmount = 0;
      await writing;
    }
  } finally {
    Promise.prototype.then = then;
  }
  assert(Math.max(0, ...reactions.values()) < 5, `${Math.max(...reactions.values())} on one promise`);
});

Deno.test("a write that waits ends when its socket does", async () => {
  const socket = new FakeSocket();
  const duplex = webSocketDuplex(socket, { sendBuffer: 10 });
  const writing = duplex.io!.write(new Uint8Array(200_000)); // two messages
  socket.end(false);
  await assertRejects(() => writing, DOMException);
});
