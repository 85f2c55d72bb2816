import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { concat, fromHex, HtxError, toHex, utf8 } from "../../core/mod.ts";
import { connect } from "../client.ts";
import { serve } from "../serve.ts";
import { connectOverStream } from "./client.ts";
import { relayWebSocket, webSocketOverStream, webSocketProxyUpstream } from "./websocket.ts";
import {
  encodeWebSocketClose,
  encodeWebSocketFrame,
  WebSocketDecoder,
  type WebSocketEvent,
  WebSocketOpcode,
} from "./websocket_frames.ts";

const { TEXT, BINARY, CONTINUATION, PING, PONG } = WebSocketOpcode;

function decodeAll(bytes: Uint8Array, step = bytes.length || 1, maxMessageBytes?: number): WebSocketEvent[] {
  const decoder = new WebSocketDecoder({ maxMessageBytes });
  const events: WebSocketEvent[] = [];
  for (let at = 0; at < bytes.length; at += step) {
    decoder.push(bytes.slice(at, at + step));
    for (let event = decoder.next(); event !== undefined; event = decoder.next()) events.push(event);
  }
  return events;
}

Deno.test("WebSocketDecoder reads the examples of RFC 6455 §5.7", () => {
  assertEquals(decodeAll(fromHex("810548656c6c6f")), [{ type: "text", data: "Hello" }]);
  assertEquals(decodeAll(fromHex("010348656c80026c6f")), [{ type: "text", data: "Hello" }]);
  assertEquals(decodeAll(fromHex("890548656c6c6f")), [{ type: "ping", data: utf8("Hello") }]);
  const long = concat(fromHex("827e0100"), new Uint8Array(256).fill(5));
  assertEquals(decodeAll(long), [{ type: "binary", data: new Uint8Array(256).fill(5) }]);
  const longer = concat(fromHex("827f0000000000010000"), new Uint8Array(65_536).fill(6));
  assertEquals(decodeAll(longer, 1000), [{ type: "binary", data: new Uint8Array(65_536).fill(6) }]);
  assertEquals(toHex(encodeWebSocketFrame(TEXT, utf8("Hello"))), "810548656c6c6f");
  assertEquals(encodeWebSocketFrame(BINARY, new Uint8Array(256).fill(5)), long);
  assertEquals(encodeWebSocketFrame(BINARY, new Uint8Array(65_536).fill(6)), longer);
});

Deno.test("WebSocketDecoder gives control frames that stand between the fragments of a message", () => {
  const bytes = concat(
    encodeWebSocketFrame(TEXT, utf8("a"), { fin: false }),
    encodeWebSocketFrame(PING, utf8("p")),
    encodeWebSocketFrame(CONTINUATION, utf8("b"), { fin: false }),
    encodeWebSocketFrame(PONG, new Uint8Array(0)),
    encodeWebSocketFrame(CONTINUATION, utf8("c")),
    encodeWebSocketClose(1000, "bye"),
    encodeWebSocketFrame(TEXT, utf8("behind the end")),
  );
  const events: WebSocketEvent[] = [
    { type: "ping", data: utf8("p") },
    { type: "pong", data: new Uint8Array(0) },
    { type: "text", data: "abc" },
    { type: "close", code: 1000, reason: "bye" },
  ];
  for (const step of [bytes.length, 1, 2, 3, 5]) assertEquals(decodeAll(bytes, step), events);
});

Deno.test("WebSocketDecoder refuses what RFC 6455 forbids, and says with which code to close", () => {
  const cases: [string, string, number][] = [
    ["a masked frame", "818537fa213d7f9f4d5158", 1002],
    ["a reserved bit", "c100", 1002],
    ["an unknown opcode", "8300", 1002],
    ["an unknown control opcode", "8b00", 1002],
    ["a fragmented ping", "0900", 1002],
    ["a ping of 126 bytes", "897e007e", 1002],
    ["a continuation of nothing", "8000", 1002],
    ["a new message inside another", "010161" + "0101", 1002],
    ["a 16-bit length below 126", "827e007d", 1002],
    ["a 64-bit length below 65536", "827f000000000000ffff", 1002],
    ["a length above 2^63", "827f8000000000000000", 1009],
    ["text that is not UTF-8", "8101ff", 1007],
    ["text cut in a character", "8102c3a9".slice(0, 6).replace("02", "01"), 1007],
    ["a surrogate in UTF-8", "8103eda080", 1007],
    ["a close of one byte", "880103", 1002],
    ["a close with 1005", "880203ed", 1002],
    ["a close with 1006", "880203ee", 1002],
    ["a close with 999", "880203e7", 1002],
    ["a close with 5000", "88021388", 1002],
    ["a close reason that is not UTF-8", "880303e8ff", 1007],
  ];
  for (const [name, hex, code] of cases) {
    const decoder = new WebSocketDecoder();
    decoder.push(fromHex(hex));
    const error = assertThrows(() => {
      while (decoder.next() !== undefined);
    }, HtxError);
    assertEquals([name, decoder.closeCode, error.field], [name, code, "websocket"]);
    assertThrows(() => decoder.next(), HtxError); // it stays that way
  }
});

Deno.test("WebSocketDecoder counts all fragments against the limit, before it takes them", () => {
  const part = encodeWebSocketFrame(BINARY, new Uint8Array(60), { fin: false });
  const rest = encodeWebSocketFrame(CONTINUATION, new Uint8Array(41));
  assertEquals(decodeAll(concat(part, rest), 7, 101).length, 1);
  assertThrows(() => decodeAll(concat(part, rest), 7, 100), HtxError);
  const header = new WebSocketDecoder({ maxMessageBytes: 100 });
  header.push(fromHex("827f0000000100000000")); // 4 GiB announced, nothing there
  assertThrows(() => header.next(), HtxError, "longer than 100 bytes");
  const endless = new WebSocketDecoder();
  endless.push(concat(encodeWebSocketFrame(BINARY, new Uint8Array(0), { fin: false })));
  const empty = encodeWebSocketFrame(CONTINUATION, new Uint8Array(0), { fin: false });
  assertThrows(() => {
    for (let i = 0; i < 2000; i++) {
      endless.push(empty);
      endless.next();
    }
  }, HtxError);
});

/** A frame as a client sends it over TCP. */
function masked(frame: Uint8Array, key: Uint8Array): Uint8Array {
  const short = frame[1]!;
  const headerLength = short === 127 ? 10 : short === 126 ? 4 : 2;
  const out = concat(frame.subarray(0, headerLength), key, frame.subarray(headerLength));
  out[1] = short | 0x80;
  for (let i = headerLength + 4; i < out.length; i++) out[i] = out[i]! ^ key[(i - headerLength) % 4]!;
  return out;
}

Deno.test("WebSocketDecoder with `masked` reads the example of RFC 6455 §5.7, and refuses a frame that is not masked", () => {
  const decoder = new WebSocketDecoder({ masked: true });
  decoder.push(fromHex("818537fa213d7f9f4d5158"));
  assertEquals(decoder.next(), { type: "text", data: "Hello" });
  decoder.push(fromHex("8105"));
  assertThrows(() => decoder.next(), HtxError, "not masked");
  assertEquals(decoder.closeCode, 1002);
});

Deno.test("WebSocketDecoder with `masked` unmasks frames of any length, cut anywhere, at any place in memory", () => {
  fc.assert(fc.property(
    fc.array(fc.record({ length: fc.nat(400), key: fc.uint8Array({ minLength: 4, maxLength: 4 }) }), {
      minLength: 1,
      maxLength: 4,
    }),
    fc.integer({ min: 1, max: 500 }),
    fc.nat(7),
    (frames, step, offset) => {
      const payloads = frames.map(({ length }, at) =>
        Uint8Array.from({ length }, (_, i) => 31 * at + i & 0xff)
      );
      const ping = masked(encodeWebSocketFrame(PING, utf8("ping")), new Uint8Array([1, 2, 3, 4]));
      const bytes = concat(...payloads.flatMap((payload, i) => {
        const opcode = i === 0 ? BINARY : CONTINUATION;
        const fin = i === payloads.length - 1;
        return [masked(encodeWebSocketFrame(opcode, payload, { fin }), frames[i]!.key), ping];
      }));
      const decoder = new WebSocketDecoder({ masked: true });
      const events: WebSocketEvent[] = [];
      for (let at = 0; at < bytes.length; at += step) {
        const chunk = bytes.subarray(at, at + step);
        const moved = new Uint8Array(offset + chunk.length).subarray(offset);
        moved.set(chunk);
        decoder.push(moved);
        for (let event = decoder.next(); event !== undefined; event = decoder.next()) events.push(event);
      }
      assertEquals(events, [
        ...payloads.slice(1).map(() => ({ type: "ping" as const, data: utf8("ping") })),
        { type: "binary", data: concat(...payloads) },
        { type: "ping", data: utf8("ping") },
      ]);
    },
  ));
});

Deno.test("encodeWebSocketClose() cuts a reason between two characters", () => {
  const [event] = decodeAll(encodeWebSocketClose(4000, "é".repeat(100)));
  assertEquals(event, { type: "close", code: 4000, reason: "é".repeat(61) });
  assertEquals(decodeAll(encodeWebSocketClose()), [{ type: "close", code: 1005, reason: "" }]);
});

Deno.test("random bytes give events, a need for more, or an HtxError; what was encoded comes out again", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
    try {
      decodeAll(bytes, 3);
    } catch (error) {
      if (!(error instanceof HtxError)) throw error;
    }
  }));
  const message = fc.record({
    text: fc.boolean(),
    data: fc.uint8Array({ maxLength: 300 }),
    pieces: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), fc.integer({ min: 1, max: 400 }), (messages, step) => {
      const parts: Uint8Array[] = [];
      const expected: WebSocketEvent[] = [];
      for (const { text, data, pieces } of messages) {
        const payload = text ? utf8(toHex(data)) : new Uint8Array(data);
        for (let i = 0; i < pieces; i++) {
          parts.push(
            encodeWebSocketFrame(i > 0 ? CONTINUATION : text ? TEXT : BINARY, payload.subarray(i, i + 1), {
              fin: false,
            }),
          );
        }
        parts.push(
          encodeWebSocketFrame(pieces > 0 ? CONTINUATION : text ? TEXT : BINARY, payload.subarray(pieces)),
        );
        expected.push(text ? { type: "text", data: toHex(data) } : { type: "binary", data: payload });
      }
      const bytes = concat(...parts);
      assertEquals(bytes.length === 0 ? [] : decodeAll(bytes, step), expected);
    }),
  );
});

/** What the next message holds. */
async function nextMessage(socket: EventTarget): Promise<string | Uint8Array> {
  const { data }: { data: unknown } = await once(socket, "message", MessageEvent);
  if (typeof data === "string") return data;
  assert(data instanceof ArrayBuffer);
  return new Uint8Array(data);
}

/** A promise for the next event of a kind. */
function once<T extends Event>(
  target: EventTarget,
  type: string,
  kind: new (...args: never[]) => T,
): Promise<T> {
  return new Promise((resolve) => {
    target.addEventListener(type, (event) => {
      if (event instanceof kind) resolve(event);
    }, { once: true });
  });
}

Deno.test("info.upgradeWebSocket() gives a socket with the standard's interface, over the tunnel", async () => {
  const seen: string[] = [];
  const handled = Promise.withResolvers<CloseEvent>();
  await using server = serve((request, info) => {
    if (request.headers.get("upgrade") !== "websocket") return new Response("plain");
    seen.push(request.method, new URL(request.url).pathname, info.rawPath);
    const { socket, response } = info.upgradeWebSocket({ protocol: "chat" });
    const standard: WebSocket = socket; // it can be given to whoever takes a WebSocket
    standard.binaryType = "arraybuffer";
    standard.onopen = () => standard.send("welcome");
    standard.onmessage = ({ data }) => standard.send(data);
    standard.onclose = (event) => handled.resolve(event);
    assertThrows(() => standard.send("too early"), DOMException);
    assertThrows(() => info.upgradeWebSocket(), TypeError);
    return response;
  });
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const socket = await webSocketOverStream(await client.createBidirectionalStream(), "/a%2fb?x=1", {
    protocols: ["news", "chat"],
  });
  assertEquals([socket.protocol, socket.readyState], ["chat", socket.OPEN]);
  assertEquals(seen, ["GET", "/a%2fb", "/a%2fb?x=1"]);
  socket.binaryType = "arraybuffer";
  assertEquals(await nextMessage(socket), "welcome");
  socket.send("grüße");
  assertEquals(await nextMessage(socket), "grüße");
  const large = crypto.getRandomValues(new Uint8Array(65_536));
  const larger = concat(...Array.from({ length: 32 }, () => large)); // 2 MiB: far past the window
  socket.send(larger);
  assert(socket.bufferedAmount > 0);
  assertEquals(await nextMessage(socket), larger);
  socket.send(new Blob(["from a blob"]));
  assertEquals(await nextMessage(socket), utf8("from a blob"));
  socket.send(new Uint8Array(0));
  assertEquals(await nextMessage(socket), new Uint8Array(0));
  assertEquals(socket.bufferedAmount, 0);
  const closed = once(socket, "close", CloseEvent);
  assertThrows(() => socket.close(1001), DOMException);
  assertThrows(() => socket.close(4000, "x".repeat(124)), DOMException);
  socket.close(4001, "done");
  for (const { code, reason, wasClean } of [await closed, await handled.promise]) {
    assertEquals([code, reason, wasClean], [4001, code === 4001 && reason === "" ? "" : "done", true]);
  }
  assertEquals(socket.readyState, socket.CLOSED);
  assertEquals(await (await client.fetch("/")).text(), "plain");
});

Deno.test("a handler that knows of no WebSocket refuses one, whatever it answers", async () => {
  await using server = serve((request) =>
    new Response("a page", { status: new URL(request.url).pathname === "/404" ? 404 : 200 })
  );
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  for (const [path, status] of [["/", 501], ["/404", 404]] as const) {
    const stream = await client.createBidirectionalStream();
    const error = await webSocketOverStream(stream, path).then(() => undefined, (reason) => reason);
    assert(error instanceof HtxError);
    assertEquals([error.code, error.message.includes(String(status))], ["CONNECT_FAILED", true]);
  }
});

Deno.test("a WebSocket whose session breaks closes with 1006 on both sides", async () => {
  const handled = Promise.withResolvers<CloseEvent>();
  await using server = serve((_request, info) => {
    const { socket, response } = info.upgradeWebSocket();
    socket.onclose = (event) => handled.resolve(event);
    return response;
  });
  const client = await connect(server.addr, { remoteStatic: server.publicKey });
  const socket = await webSocketOverStream(await client.createBidirectionalStream(), "/");
  const closed = once(socket, "close", CloseEvent);
  for (const connection of client.connections) connection.abort();
  for (const { code, wasClean } of [await closed, await handled.promise]) {
    assertEquals([code, wasClean], [1006, false]);
  }
  await client.close();
});

Deno.test("a peer that breaks the framing is told so with 1002, and pings are answered", async () => {
  const handled = Promise.withResolvers<CloseEvent>();
  await using server = serve((_request, info) => {
    const { socket, response } = info.upgradeWebSocket();
    socket.onclose = (event) => handled.resolve(event);
    return response;
  });
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const { tunnel } = await connectOverStream(await client.createBidirectionalStream(), {
    method: "CONNECT",
    scheme: "http",
    authority: "app",
    path: "/",
    fields: [["upgrade", "websocket"]],
  });
  const decoder = new WebSocketDecoder();
  const next = async (): Promise<WebSocketEvent> => {
    for (;;) {
      const event = decoder.next();
      if (event !== undefined) return event;
      const chunk = await tunnel!.read();
      assert(chunk !== null);
      decoder.push(chunk);
    }
  };
  await tunnel!.write(encodeWebSocketFrame(PING, utf8("there?")));
  assertEquals(await next(), { type: "pong", data: utf8("there?") });
  await tunnel!.write(fromHex("818537fa213d7f9f4d5158")); // masked
  assertEquals(await next(), { type: "close", code: 1002, reason: "" });
  assertEquals((await handled.promise).code, 1002);
});

/** A gateway in small: browsers' WebSockets in, a tunnel out. */
function gateway(open: () => Promise<Parameters<typeof connectOverStream>[0]>) {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    const url = new URL(request.url);
    const answer = await connectOverStream(await open(), {
      method: "CONNECT",
      scheme: "http",
      authority: url.host,
      path: url.pathname + url.search,
      fields: [["upgrade", "websocket"], ["sec-websocket-protocol", "chat"]],
    });
    if (answer.tunnel === undefined) return new Response("refused", { status: answer.status });
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "chat" });
    relayWebSocket(socket, answer.tunnel);
    return response;
  });
}

for (const kind of ["a handler", "a ws: server behind webSocketProxyUpstream()"]) {
  Deno.test(`relayWebSocket() takes a browser's WebSocket through the tunnel to ${kind}`, async () => {
    const paths: string[] = [];
    const echo = (socket: WebSocket, path: string) => {
      paths.push(path);
      socket.binaryType = "arraybuffer";
      socket.onmessage = ({ data }) => data === "go" ? socket.close(4002, "gone") : socket.send(data);
    };
    const application = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
      const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "chat" });
      echo(socket, new URL(request.url).pathname);
      return response;
    });
    const server = serve((request, info) => {
      const { socket, response } = info.upgradeWebSocket({ protocol: "chat" });
      echo(socket, new URL(request.url).pathname);
      return response;
    }, {
      ...(kind !== "a handler" &&
        { http: { webSocket: webSocketProxyUpstream(`ws://127.0.0.1:${application.addr.port}/app/`) } }),
    });
    const client = await connect(server.addr, { remoteStatic: server.publicKey });
    const front = gateway(() => client.createBidirectionalStream());
    for (const leave of ["the browser", "the application"]) {
      const browser = new WebSocket(`ws://127.0.0.1:${front.addr.port}/room`, "chat");
      browser.binaryType = "arraybuffer";
      await once(browser, "open", Event);
      assertEquals(browser.protocol, "chat");
      browser.send("hello");
      assertEquals(await nextMessage(browser), "hello");
      const data = new Uint8Array(300_000).fill(9);
      browser.send(data);
      assertEquals(await nextMessage(browser), data);
      const closed = once(browser, "close", CloseEvent);
      if (leave === "the browser") browser.close(4001, "bye");
      else browser.send("go");
      const { code } = await closed;
      assertEquals(code, leave === "the browser" ? 4001 : 4002);
    }
    assertEquals(paths, kind === "a handler" ? ["/room", "/room"] : ["/app/room", "/app/room"]);
    if (kind !== "a handler") {
      // A path that leads out of the application's part of the server is not asked for.
      for (const path of ["/../secret", "/%2e%2e/secret", "/.."]) {
        const answer = await connectOverStream(await client.createBidirectionalStream(), {
          method: "CONNECT",
          scheme: "http",
          authority: "x",
          path,
          fields: [["upgrade", "websocket"]],
        });
        assertEquals([path, answer.status], [path, 400]);
      }
      assertEquals(paths.length, 2);
    }
    await client.close();
    await server.shutdown();
    await Promise.all([front.shutdown(), application.shutdown()]);
  });
}

Deno.test("webSocketProxyUpstream() answers 502 where the application is not there", async () => {
  const nobody = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = nobody.addr;
  nobody.close();
  await using server = serve(() => new Response(), {
    http: { webSocket: webSocketProxyUpstream(`ws://127.0.0.1:${port}`) },
  });
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const error = await webSocketOverStream(await client.createBidirectionalStream(), "/").catch((reason) =>
    reason
  );
  assert(error instanceof HtxError && error.message.includes("502"));
  assertThrows(() => webSocketProxyUpstream("http://127.0.0.1/"), TypeError);
});
