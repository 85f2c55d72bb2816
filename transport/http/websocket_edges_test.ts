import { assert, assertEquals, assertRejects } from "@std/assert";
import { HtxError, utf8 } from "../../core/mod.ts";
import { usedHeap } from "../../core/_test_heap.ts";
import { connect } from "../client.ts";
import { serve } from "../serve.ts";
import { type PairStream, streamPair } from "./_stream_pair.ts";
import { connectOverStream } from "./client.ts";
import { encodeHttpRequest } from "./encode.ts";
import { type HttpHandler, serveHttpExchange, serveHttpStream } from "./server.ts";
import { relayWebSocket, StreamWebSocket, webSocketOverStream, webSocketProxyUpstream } from "./websocket.ts";
import {
  encodeWebSocketClose,
  encodeWebSocketFrame,
  WebSocketDecoder,
  type WebSocketEvent,
  WebSocketOpcode,
} from "./websocket_frames.ts";

const { TEXT, BINARY, CONTINUATION } = WebSocketOpcode;

/** The other end of a WebSocket: frames by hand. */
class Peer {
  readonly stream: PairStream;
  readonly #decoder = new WebSocketDecoder();

  constructor(stream: PairStream) {
    this.stream = stream;
  }

  /** The next message or control frame; `null` where the stream ended. */
  async next(beforeRead: () => Promise<void> = () => Promise.resolve()): Promise<WebSocketEvent | null> {
    for (;;) {
      const event = this.#decoder.next();
      if (event !== undefined) return event;
      await beforeRead();
      const chunk = await this.stream.read();
      if (chunk === null) return null;
      this.#decoder.push(chunk);
    }
  }

  /** Everything up to the end of the stream. */
  async all(): Promise<WebSocketEvent[]> {
    const events: WebSocketEvent[] = [];
    for (let event = await this.next(); event !== null; event = await this.next()) events.push(event);
    return events;
  }
}

/** An open socket, its stream and its peer. */
function setUp(closeTimeoutMs?: number) {
  const { client, server } = streamPair();
  const socket = new StreamWebSocket({ closeTimeoutMs });
  const closed = closeOf(socket);
  const done = socket._start(server);
  return { socket, stream: server, peer: new Peer(client), closed, done };
}

/** What the `close` event says. */
function closeOf(socket: EventTarget): Promise<{ code: number; reason: string; wasClean: boolean }> {
  return new Promise((resolve) => {
    socket.addEventListener("close", (event) => {
      assert(event instanceof CloseEvent);
      const { code, reason, wasClean } = event;
      resolve({ code, reason, wasClean });
    }, { once: true });
  });
}

/** A socket of the runtime's, played by the test. */
class RuntimeSocket extends EventTarget implements WebSocket {
  readonly CONNECTING = 0;
  readonly OPEN = 1;
  readonly CLOSING = 2;
  readonly CLOSED = 3;
  readonly extensions = "";
  readonly protocol = "";
  readonly url = "";
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;
  binaryType: BinaryType = "blob";
  readyState = 1;
  waiting: () => number = () => 0;
  #left = 0;
  #passed: (() => void) | undefined;

  get bufferedAmount(): number {
    return this.waiting();
  }

  send(): void {
    if (--this.#left === 0) this.#passed?.();
  }

  /** Resolves when so many more messages were sent on it. */
  passed(messages: number): Promise<void> {
    this.#left = messages;
    return new Promise((resolve) => this.#passed = resolve);
  }

  /** The closing handshake begins; its end is another matter. */
  close(): void {
    if (this.readyState < 2) this.readyState = 2;
  }

  open(): void {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }

  say(data: string): void {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  end(code: number, reason = ""): void {
    this.readyState = 3;
    this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean: true }));
  }
}

Deno.test("WebSocketDecoder puts fragments together, whatever their number and lengths", () => {
  const lengths = [1, 20_000, 5, 0, 16_384, 16_383, 16_383, 40_000, 2];
  for (const pieces of [lengths, new Array<number>(200_000).fill(1)]) {
    const payloads = pieces.map((length, i) => new Uint8Array(length).fill(i));
    const wire: Uint8Array[] = payloads.map((payload, i) =>
      encodeWebSocketFrame(i === 0 ? BINARY : CONTINUATION, payload, { fin: i === pieces.length - 1 })
    );
    const bytes = new Uint8Array(wire.reduce((sum, frame) => sum + frame.length, 0));
    let at = 0;
    for (const frame of wire) {
      bytes.set(frame, at);
      at += frame.length;
    }
    for (const step of [30_000, bytes.length]) {
      const decoder = new WebSocketDecoder();
      const events: WebSocketEvent[] = [];
      for (let start = 0; start < bytes.length; start += step) {
        decoder.push(bytes.subarray(start, start + step));
        for (let event = decoder.next(); event !== undefined; event = decoder.next()) events.push(event);
      }
      const [event, ...others] = events;
      assert(event?.type === "binary" && others.length === 0);
      // assertEquals() takes seconds for so many elements.
      at = 0;
      for (const payload of payloads) {
        for (const byte of payload) assert(event.data[at++] === byte);
      }
      assertEquals(event.data.length, at);
    }
  }
});

Deno.test("WebSocketDecoder needs no more memory for small fragments than for the message", async () => {
  const fragment = encodeWebSocketFrame(CONTINUATION, new Uint8Array(1), { fin: false });
  const fragments = new Uint8Array(fragment.length * 10_000);
  for (let at = 0; at < fragments.length; at += fragment.length) fragments.set(fragment, at);
  const decoder = new WebSocketDecoder();
  decoder.push(encodeWebSocketFrame(BINARY, new Uint8Array(1), { fin: false }));
  assertEquals(decoder.next(), undefined);
  const before = await usedHeap();
  for (let i = 0; i < 10; i++) {
    decoder.push(fragments.slice());
    assertEquals(decoder.next(), undefined);
  }
  const grown = await usedHeap() - before;
  assert(grown < 1_000_000, `${grown} bytes for a message of 100 000`);
  decoder.push(encodeWebSocketFrame(CONTINUATION, new Uint8Array(1)));
  const message = decoder.next();
  assert(message?.type === "binary" && message.data.length === 100_002);
});

Deno.test("a StreamWebSocket whose handler then answers otherwise, or fails, is closed", async () => {
  const handlers: [HttpHandler, number][] = [
    [() => new Response("no", { status: 403 }), 403],
    [() => {
      throw new Error("at once");
    }, 500],
    [() => Promise.reject(new Error("later")), 500],
    [() => JSON.parse("null"), 500],
  ];
  for (const [handler, status] of handlers) {
    const { client, server } = streamPair();
    const closed = Promise.withResolvers<CloseEvent>();
    const served = serveHttpStream(server, (request, info) => {
      const { socket } = info.upgradeWebSocket();
      socket.onclose = closed.resolve;
      return handler(request, info);
    }, { onError: () => {} });
    const answer = await connectOverStream(client, {
      method: "CONNECT",
      scheme: "https",
      authority: "app.example",
      path: "/",
      fields: [["upgrade", "websocket"]],
    });
    assertEquals(answer.status, status);
    assertEquals((await closed.promise).code, 1006);
    await answer.body.bytes();
    await served;
  }
});

Deno.test("a StreamWebSocket that is made when its client has gone is closed", async () => {
  const { client, server } = streamPair();
  const gone = Promise.withResolvers<void>();
  const called = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<CloseEvent>();
  const served = serveHttpStream(server, async (_request, info) => {
    called.resolve();
    await gone.promise;
    const { socket, response } = info.upgradeWebSocket();
    socket.onclose = closed.resolve;
    return response;
  });
  await client.write(encodeHttpRequest({
    method: "CONNECT",
    scheme: "https",
    authority: "app.example",
    path: "/",
    fields: [["upgrade", "websocket"]],
  }));
  await called.promise;
  client.reset();
  gone.resolve();
  assertEquals((await closed.promise).code, 1006);
  await served;
});

Deno.test("StreamWebSocket.close() leaves what was queued as much time as the peer goes on taking it", async () => {
  const { socket, peer, closed, done } = setUp(200);
  const sent = new Uint8Array(12 * 65_536).fill(7);
  socket.send(sent);
  socket.close(4000, "bye");
  // A slow link: all of it takes twice the time that the handshake may stand still.
  const slow = () => new Promise<void>((resolve) => setTimeout(resolve, 40));
  const message = await peer.next(slow);
  assert(message?.type === "binary" && message.data.length === sent.length);
  assertEquals(await peer.next(slow), { type: "close", code: 4000, reason: "bye" });
  await peer.stream.write(encodeWebSocketClose(4000), { end: true });
  assertEquals(await closed, { code: 4000, reason: "", wasClean: true });
  await done;
});

Deno.test("StreamWebSocket.close() resets the stream of a peer that takes nothing", async () => {
  const { socket, stream, closed, done } = setUp(20);
  socket.send(new Uint8Array(10 * 65_536));
  socket.close();
  assertEquals((await closed).code, 1006);
  assertEquals(stream.resetCode, "TIMEOUT");
  await done;
});

Deno.test("StreamWebSocket.close() resets the stream of a peer that does not answer", async () => {
  const { socket, stream, peer, closed, done } = setUp(20);
  socket.close(1000);
  assertEquals(await peer.all(), [{ type: "close", code: 1000, reason: "" }]);
  assertEquals((await closed).code, 1006);
  assertEquals(stream.resetCode, "TIMEOUT");
  await done;
});

Deno.test("a Close frame without the end of its stream makes a StreamWebSocket CLOSING, and soon CLOSED", async () => {
  const { socket, stream, peer, closed, done } = setUp(20);
  await peer.stream.write(encodeWebSocketClose(1000, "bye"));
  assertEquals(await peer.all(), [{ type: "close", code: 1000, reason: "" }]);
  assertEquals(socket.readyState, socket.CLOSING);
  socket.send("nobody would get it");
  assertEquals(socket.bufferedAmount, 0);
  assertEquals(await closed, { code: 1000, reason: "bye", wasClean: true });
  assertEquals(stream.resetCode, "TIMEOUT");
  await done;
});

Deno.test("a peer that breaks the framing and takes nothing does not keep a StreamWebSocket from closing", async () => {
  const { socket, stream, peer, closed, done } = setUp(20);
  socket.send(new Uint8Array(10 * 65_536));
  await peer.stream.write(new Uint8Array([0xc1, 0]));
  assertEquals((await closed).code, 1002);
  assertEquals(stream.resetCode, "TIMEOUT");
  await done;
});

Deno.test("a StreamWebSocket that fails for a reason of its own resets its stream", async () => {
  const { socket, stream, peer, closed, done } = setUp();
  socket._hold = () => Promise.reject(new Error("unforeseen"));
  await peer.stream.write(encodeWebSocketFrame(TEXT, utf8("hello")));
  assertEquals((await closed).code, 1006);
  assertEquals(stream.resetCode, "INTERNAL_ERROR");
  await done;
});

Deno.test("a StreamWebSocket that was closed before it opened stays closed", async () => {
  const { server } = streamPair();
  const socket = new StreamWebSocket();
  const events: string[] = [];
  for (const type of ["open", "close"]) socket.addEventListener(type, () => events.push(type));
  socket.close();
  await socket._start(server);
  assertEquals([socket.readyState, events, server.resetCode], [socket.CLOSED, ["close"], "CANCELLED"]);
});

Deno.test("webSocketOverStream() gives the stream of a refusal back, however long the answer", async () => {
  const { client, server } = streamPair();
  const served = serveHttpExchange(
    server,
    () => ({ status: 404, fields: [], body: new Uint8Array(300_000) }),
  );
  await assertRejects(() => webSocketOverStream(client, "/"), HtxError, "404");
  assertEquals(client.resetCode, "CANCELLED");
  await served;
});

Deno.test("relayWebSocket() passes on what its socket said, and how it ended, before the stream was there", async () => {
  const { client, server } = streamPair();
  const socket = new RuntimeSocket();
  socket.readyState = 0;
  const relayed = relayWebSocket(socket, server);
  socket.open();
  socket.say("bye");
  socket.end(4001, "nope");
  const peer = new Peer(client);
  assertEquals(await peer.all(), [
    { type: "text", data: "bye" },
    { type: "close", code: 4001, reason: "nope" },
  ]);
  await client.write(encodeWebSocketClose(4001), { end: true });
  await relayed;
});

Deno.test("relayWebSocket() waits for the code of a socket that is closing when the stream is there", async () => {
  const { client, server } = streamPair();
  const socket = new RuntimeSocket();
  socket.close();
  const relayed = relayWebSocket(socket, server);
  setTimeout(() => socket.end(4001, "nope"), 5);
  assertEquals(await new Peer(client).all(), [{ type: "close", code: 4001, reason: "nope" }]);
  await client.write(encodeWebSocketClose(4001), { end: true });
  await relayed;
});

Deno.test("relayWebSocket() counts text that waits in bytes", async () => {
  for (const [maxBufferedBytes, taken] of [[6, false], [7, true]] as const) {
    const { client, server } = streamPair();
    const socket = new RuntimeSocket();
    socket.readyState = 0;
    const relayed = relayWebSocket(socket, server, { maxBufferedBytes });
    socket.say("grüße"); // 5 characters, 7 bytes
    socket.open();
    const event = await new Peer(client).next();
    assertEquals(
      event,
      taken ? { type: "text", data: "grüße" } : { type: "close", code: 1009, reason: "too much waits" },
    );
    await client.write(encodeWebSocketClose(1000), { end: true });
    socket.end(1000);
    await relayed;
  }
});

Deno.test("relayWebSocket() counts messages, too: empty ones take memory as well", async () => {
  for (const before of [true, false]) {
    const { client, server } = streamPair({ window: 0 }); // nothing is taken before it is read
    const socket = new RuntimeSocket();
    if (before) socket.readyState = 0; // the stream is not there yet
    const relayed = relayWebSocket(socket, server);
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    for (let i = 0; i <= 65_536; i++) socket.say("");
    if (before) socket.open();
    const events = await new Peer(client).all();
    assertEquals(events.length, 65_537);
    assertEquals(events.slice(65_535), [
      { type: "text", data: "" },
      { type: "close", code: 1009, reason: "too much waits" },
    ]);
    await client.write(encodeWebSocketClose(1000), { end: true });
    socket.end(1000);
    await relayed;
  }
});

Deno.test("relayWebSocket() ends though its socket's closing handshake does not", async () => {
  const { client, server } = streamPair();
  const relayed = relayWebSocket(new RuntimeSocket(), server, { closeTimeoutMs: 20 });
  await client.write(encodeWebSocketClose(1000), { end: true });
  await relayed;
});

Deno.test("relayWebSocket() ends with its stream while its socket takes nothing", async () => {
  const { client, server } = streamPair();
  const socket = new RuntimeSocket();
  socket.waiting = () => 2 ** 21;
  const relayed = relayWebSocket(socket, server, { closeTimeoutMs: 20 });
  const passed = socket.passed(1);
  await client.write(encodeWebSocketFrame(TEXT, utf8("x")));
  await passed;
  client.reset("CANCELLED");
  await relayed;
  assertEquals(socket.readyState, socket.CLOSING);
});

Deno.test("relayWebSocket() keeps nothing of its waits for a full socket", async () => {
  const { client, server } = streamPair();
  const socket = new RuntimeSocket();
  let looks = 0;
  socket.waiting = () => ++looks % 3 === 0 ? 0 : 2 ** 21; // one pause behind each message
  const relayed = relayWebSocket(socket, server);
  const pass = async (messages: number) => {
    const passed = socket.passed(messages);
    for (let i = 0; i < messages; i++) await client.write(encodeWebSocketFrame(TEXT, utf8("x")));
    await passed;
    client.writes.length = 0;
    return await usedHeap();
  };
  const before = await pass(500); // whatever is made once is made here
  const grown = await pass(500) - before;
  assert(grown < 200_000, `${grown} bytes for 500 waits`);
  await client.write(encodeWebSocketClose(1000), { end: true });
  socket.end(1000);
  await relayed;
});

Deno.test("relayWebSocket() makes a socket of ours wait while the stream takes nothing, and loses nothing of it", async () => {
  const { socket, stream, peer } = setUp();
  const tunnel = streamPair();
  const relayed = relayWebSocket(socket, tunnel.server, { maxBufferedBytes: 1_000_000 });
  const message = encodeWebSocketFrame(BINARY, new Uint8Array(300_000));
  let taken = 0;
  const sending = (async () => {
    for (let i = 0; i < 40; i++) {
      await peer.stream.write(message);
      taken++;
    }
  })();
  let before = -1;
  while (before < taken || taken === 0) { // until it stands still
    before = taken;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert(taken < 10, `${taken} messages of 300 000 bytes were taken`);
  assert(socket.readyState === socket.OPEN);
  const upstream = new Peer(tunnel.client);
  for (let i = 0; i < 40; i++) {
    const event = await upstream.next();
    assert(event?.type === "binary" && event.data.length === 300_000);
  }
  await sending;
  await tunnel.client.write(encodeWebSocketClose(1011, "broken"), { end: true });
  assertEquals(await peer.next(), { type: "close", code: 1011, reason: "broken" }); // as it is
  await peer.stream.write(encodeWebSocketClose(1011), { end: true });
  await relayed;
  assertEquals(stream.resetCode, undefined);
});

Deno.test("a StreamWebSocket that is made to wait ends when its stream is reset", async () => {
  const { socket, peer, closed, done } = setUp();
  const held = Promise.withResolvers<void>();
  socket._hold = () => {
    held.resolve();
    return new Promise<void>(() => {});
  };
  await peer.stream.write(encodeWebSocketFrame(TEXT, utf8("a")));
  await held.promise;
  peer.stream.reset();
  assertEquals((await closed).code, 1006);
  await done;
});

Deno.test("webSocketProxyUpstream() passes on the code of an application that closes at once, and both queries", async () => {
  const asked: string[] = [];
  await using application = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => {
      const { pathname, search } = new URL(request.url);
      asked.push(pathname + search);
      const { socket, response } = Deno.upgradeWebSocket(request);
      socket.onopen = () => socket.close(4001, "nope");
      return response;
    },
  );
  for (
    const [url, path, expected] of [
      ["/app?key=1", "/chat?q=2", "/app/chat?key=1&q=2"],
      ["/app?key=1", "/chat", "/app/chat?key=1"],
      ["/app/", "/chat?q=2?&", "/app/chat?q=2?&"],
    ] as const
  ) {
    const webSocket = webSocketProxyUpstream(`ws://127.0.0.1:${application.addr.port}${url}`);
    await using server = serve(() => new Response(), { http: { webSocket } });
    await using client = await connect(server.addr, { remoteStatic: server.publicKey });
    const socket = await webSocketOverStream(await client.createBidirectionalStream(), path);
    assertEquals(await closeOf(socket), { code: 4001, reason: "nope", wasClean: true });
    assertEquals(asked.pop(), expected);
  }
});

Deno.test("webSocketProxyUpstream() answers 400 to subprotocols that may not be offered", async () => {
  const errors: unknown[] = [];
  await using server = serve(() => new Response(), {
    http: { webSocket: webSocketProxyUpstream("ws://127.0.0.1:9"), onError: (error) => errors.push(error) },
  });
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  for (const protocols of [["chat", "chat"], ["chat", "Chat"], ["a/b"]]) {
    const stream = await client.createBidirectionalStream();
    await assertRejects(() => webSocketOverStream(stream, "/", { protocols }), HtxError, "400");
  }
  assertEquals(errors, []);
});
