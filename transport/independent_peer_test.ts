/** Our ends against an implementation that shares nothing with them but the text of the protocol (e-48). */

import { assert, assertEquals } from "@std/assert";
import type { HtxError } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { connect, type ConnectOptions, type HtxClient } from "./client.ts";
import {
  bytes,
  CLOSE,
  field,
  join,
  Key,
  KEY_UPDATE,
  Peer,
  PING,
  STREAM,
  STREAM_END,
  text,
  unvarint,
  varint,
  WINDOW_UPDATE,
} from "./independent/_testing.ts";
import { serve } from "./serve.ts";
import { type HtxServer, serveStreams, type ServeStreamsOptions, type StreamHandler } from "./server.ts";
import { echo } from "./upstream/echo.ts";

const MAX = 65_535;

/** A server of ours, and the other implementation dialing it. */
async function withServer(
  handler: StreamHandler,
  work: (peer: Peer, server: HtxServer) => Promise<void>,
  options: ServeStreamsOptions & { hybrid?: boolean; writeSize?: number } = {},
): Promise<void> {
  const { hybrid, writeSize, ...rest } = options;
  const server = serveStreams(handler, rest);
  let peer: Peer | undefined;
  try {
    peer = await Peer.connect(server.addr.port!, server.publicKey, {
      ...(hybrid !== undefined && { hybrid }),
      ...(writeSize !== undefined && { writeSize }),
    });
    await work(peer, server);
  } finally {
    peer?.wire.close();
    server.abort();
    await server.finished;
  }
}

/** A client of ours, and the other implementation as its server. */
async function withClient(
  work: (client: HtxClient, peer: Peer) => Promise<void>,
  options: Partial<ConnectOptions> & { writeSize?: number } = {},
): Promise<void> {
  const { writeSize, ...rest } = options;
  const key = new Key();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepting = listener.accept().then((conn) =>
    Peer.accept(conn, key, writeSize === undefined ? {} : { writeSize })
  );
  const client = await connect(listener.addr, { remoteStatic: key.open, ...rest });
  const peer = await accepting;
  try {
    await work(client, peer);
  } finally {
    for (const connection of client.connections) connection.abort();
    await client.close();
    peer.wire.close();
    listener.close();
  }
}

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));
}

Deno.test("both handshakes and an echo, byte by byte or at once, with our server (e-03, e-26)", async () => {
  for (const hybrid of [false, true]) {
    for (const writeSize of [Infinity, 1]) {
      await withServer(echo(), async (peer) => {
        await peer.send(STREAM, 1, "hello, ");
        await peer.send(STREAM_END, 1, "stranger");
        assertEquals(text(await peer.readAll(1)), "hello, stranger");
        await peer.close();
        assertEquals(await peer.nextClose(), [0, 0]);
        assertEquals(await peer.next(), undefined);
      }, { hybrid, writeSize });
    }
  }
});

Deno.test("both handshakes and an echo, byte by byte or at once, with our client (e-03, e-26)", async () => {
  for (const postQuantum of ["off", "require"] as const) {
    for (const writeSize of [Infinity, 1]) {
      await withClient(async (client, peer) => {
        const stream = await client.createBidirectionalStream();
        await stream.write(bytes("hello"), { end: true });
        assertEquals(text(await peer.readAll(1)), "hello");
        await peer.send(STREAM, 1, "and ");
        await peer.send(STREAM_END, 1, "hello");
        const parts = await Array.fromAsync(stream.readable);
        assertEquals(text(join(...parts)), "and hello");
        const closing = client.close();
        assertEquals(await peer.nextClose(), [0, 0]);
        await peer.close();
        assertEquals(await peer.next(), undefined);
        peer.wire.close();
        await closing;
      }, { postQuantum, writeSize });
    }
  }
});

Deno.test("the server learns who the client is, and refuses with silence whom it does not want (e-02)", async () => {
  const key = new Key();
  const seen: Uint8Array[] = [];
  const server = serveStreams(echo(), {
    authorize: (remote) => (seen.push(remote), seen.length === 1),
    handshakeTimeoutMs: 500,
  });
  const first = await Peer.connect(server.addr.port!, server.publicKey, { key });
  await first.send(STREAM_END, 1, "x");
  assertEquals(text(await first.readAll(1)), "x");
  const second = await Peer.connect(server.addr.port!, server.publicKey, { key });
  await second.send(STREAM_END, 1, "x");
  assertEquals(await second.next(), undefined);
  assertEquals(seen, [key.open, key.open]);
  first.wire.close();
  second.wire.close();
  await server.shutdown();
});

Deno.test("both directions change keys at every step, ours every 16 frames, with a megabyte under way (e-21, e-46)", async () => {
  const data = pattern(1 << 20);
  await withServer(echo(), async (peer) => {
    const sending = (async () => {
      for (let at = 0, frames = 0; at < data.length;) {
        while (peer.window(1) - at <= 0) await new Promise((resolve) => setTimeout(resolve, 0));
        const part = data.subarray(at, Math.min(data.length, at + 5003, peer.window(1)));
        at += part.length;
        await peer.send(at === data.length ? STREAM_END : STREAM, 1, part);
        if (++frames % 17 === 0) await peer.send(KEY_UPDATE);
      }
    })();
    const [answer] = await Promise.all([peer.readAll(1), sending]);
    assertEquals(answer.length, data.length);
    assert(answer.every((byte, i) => byte === data[i]));
    assert(peer.updates > 0);
  }, { rekey: { afterFrames: 16 } });
});

Deno.test("two KEY_UPDATEs in a row, and one before anything else, are legal", async () => {
  await withServer(echo(), async (peer) => {
    for (let i = 0; i < 2; i++) await peer.send(KEY_UPDATE);
    await peer.send(STREAM_END, 1, "x");
    assertEquals(text(await peer.readAll(1)), "x");
    assertEquals(peer.updates, 0, "one received calls for none in return");
    for (let i = 0; i < 63; i++) await peer.send(KEY_UPDATE);
    assertEquals(await peer.nextClose(), [11, 0]);
  });
});

Deno.test("a peer that knows types 0 to 4 alone is served, by either end", async () => {
  await withServer(echo(), async (peer) => {
    await peer.send(STREAM, 1, "x");
    await peer.send(STREAM, 1);
    const types: number[] = [];
    for (;;) {
      const frame = await peer.nextOf(1);
      types.push(frame!.type);
      if (frame!.data.length === 0) break;
    }
    assertEquals(types, [STREAM, STREAM]);
  }, { streamEnd: false });
  await withClient(async (client, peer) => {
    const stream = await client.createBidirectionalStream();
    await stream.write(bytes("x"), { end: true });
    assertEquals([(await peer.nextOf(1))!.type, (await peer.nextOf(1))!.data.length], [STREAM, 0]);
    await peer.send(STREAM, 1, "y");
    await peer.send(STREAM, 1);
    assertEquals(text(join(...await Array.fromAsync(stream.readable))), "y");
  }, { streamEnd: false });
});

Deno.test("long stream ids, padding, empty PINGs and unknown types in between change nothing (e-26)", async () => {
  await withServer(echo(), async (peer) => {
    for (const length of [2, 4, 8]) {
      await peer.send(STREAM, 1, "x", length);
      await peer.send(PING, undefined, join(new Uint8Array([2]), new Uint8Array(3072)));
      await peer.send(PING);
      await peer.send(PING, undefined, new Uint8Array([77, 1, 2, 3]));
      await peer.send(200, undefined, new Uint8Array(MAX));
    }
    await peer.send(STREAM_END, 1, "", 8);
    assertEquals(text(await peer.readAll(1)), "xxx");
    await peer.send(PING, undefined, join(new Uint8Array([0]), bytes("0123456789abcdef0123456789abcdef")));
    const answer = await peer.next();
    assertEquals([answer?.type, text(answer!.data)], [PING, "\x010123456789abcdef0123456789abcdef"]);
    for (let i = 0; i < 1001; i++) await peer.send(i % 2 ? PING : 99);
    assertEquals(await peer.nextClose(), [11, 0]);
  });
});

Deno.test("an HTTP exchange by hand with our server (RFC 9292)", async () => {
  const server = serve(async (request) => {
    const body = await request.text();
    return new Response(`${request.method} ${new URL(request.url).pathname} ${body}`, {
      status: 201,
      headers: { "x-got": request.headers.get("x-sent") ?? "" },
    });
  });
  const peer = await Peer.connect(server.addr.port!, server.publicKey);
  await peer.send(STREAM, 1, join(varint(2), field("POST"), field("http"), field("a.test"), field("/p?q")));
  await peer.send(STREAM, 1, join(field("x-sent"), field("yes"), varint(0), varint(3), bytes("bo")));
  await peer.send(STREAM, 1, join(bytes("d"), varint(1), bytes("y")));
  await peer.send(STREAM_END, 1, join(varint(0), varint(0)));
  const message = await peer.readAll(1);
  let at = 0;
  const number = () => {
    const [value, next] = unvarint(message, at);
    at = next;
    return value;
  };
  const piece = (length: number) => text(message.subarray(at, at += length));
  assertEquals([number(), number()], [3, 201]);
  const fields = new Map<string, string>();
  for (let length = number(); length > 0; length = number()) fields.set(piece(length), piece(number()));
  assertEquals(fields.get("x-got"), "yes");
  let content = "";
  for (let length = number(); length > 0; length = number()) content += piece(length);
  assertEquals(content, "POST /p body");
  assert(at === message.length || number() === 0 && at === message.length);
  // Known-length form, and a message cut off inside a field line.
  await peer.send(
    STREAM_END,
    3,
    join(
      varint(0),
      field("GET"),
      field("http"),
      field("a.test"),
      field("/k"),
      varint(0),
      varint(0),
      varint(0),
    ),
  );
  assertEquals(unvarint(await peer.readAll(3), 1)[0], 201);
  await peer.send(
    STREAM_END,
    5,
    join(varint(2), field("GET"), field("http"), field("a"), field("/"), varint(9)),
  );
  assertEquals(unvarint(await peer.readAll(5), 1)[0], 400);
  peer.wire.close();
  server.abort();
  await server.finished;
});

Deno.test("an HTTP exchange by hand with our client (RFC 9292)", async () => {
  await withClient(async (client, peer) => {
    const fetching = client.fetch("http://a.test/x%2f?y", { method: "PUT", body: "data" });
    const request = await peer.readAll(1);
    const head = join(varint(2), field("PUT"), field("http"), field("a.test"), field("/x%2f?y"));
    assertEquals(request.subarray(0, head.length), head);
    await peer.send(STREAM, 1, join(varint(3), varint(103), field("link"), field("</a>"), varint(0)));
    await peer.send(STREAM, 1, join(varint(200), field("a"), field("1"), varint(0), varint(5), bytes("he")));
    const response = await fetching;
    assertEquals([response.status, response.headers.get("a")], [200, "1"]);
    await peer.send(STREAM_END, 1, join(bytes("llo"), varint(0)));
    assertEquals(await response.text().catch((error) => (error as HtxError).code), "hello");
  });
});

Deno.test("CLOSE is answered with CLOSE, then FIN; frames behind it are not looked at", async () => {
  await withServer(echo(), async (peer, server) => {
    await peer.send(STREAM, 1, "x");
    assertEquals((await peer.nextOf(1))?.data.length, 1);
    const closed = [...server.connections][0]!.closed;
    await peer.close();
    await peer.wire.send(new Uint8Array(1000).fill(255));
    assertEquals(await peer.nextClose(), [0, 0]);
    assertEquals(await peer.next(), undefined);
    peer.wire.close();
    assertEquals((await closed).code, "NO_ERROR");
  });
});

Deno.test("data with a CLOSE right behind it: the stream errors with CANCELLED, the session ends well", async () => {
  const outcome = Promise.withResolvers<string>();
  await withServer(async (stream) => {
    try {
      while (await stream.read() !== null);
      await stream.write(bytes("late"), { end: true });
      outcome.resolve("complete");
    } catch (error) {
      outcome.resolve((error as HtxError).code);
    }
  }, async (peer, server) => {
    const connected = Promise.withResolvers<void>();
    while (server.connections.size === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    connected.resolve();
    const closed = [...server.connections][0]!.closed;
    const message = join(peer.frame(STREAM_END, 1, bytes("x")), peer.frame(CLOSE, undefined));
    await peer.wire.send(message);
    assertEquals(await peer.nextClose(), [0, 0]);
    assertEquals(await outcome.promise, "CANCELLED");
    peer.wire.close();
    assertEquals((await closed).code, "NO_ERROR");
  });
});

Deno.test("without WINDOW_UPDATE exactly a window comes, and the rest with credit (e-23, e-24)", async () => {
  const data = pattern(200_000);
  await withServer((stream) => stream.write(data, { end: true }), async (peer) => {
    await peer.send(STREAM, 1, "go");
    let got = 0;
    while (got < MAX) got += (await peer.nextOf(1))!.data.length;
    assertEquals(got, MAX);
    await peer.send(PING, undefined, new Uint8Array([0, 1]));
    assertEquals((await peer.next())?.type, PING, "nothing past the window, and the session lives");
    await peer.send(WINDOW_UPDATE, 1, varint(1));
    assertEquals((await peer.nextOf(1))!.data, data.subarray(MAX, MAX + 1));
    await peer.send(WINDOW_UPDATE, 1, varint(2 ** 31 - 1));
    assertEquals((await peer.readAll(1, { credit: false })).length, data.length - MAX - 1);
  });
});

Deno.test("past the window the session ends with FLOW_CONTROL_ERROR, and the code is not lost to a RST (e-23)", async () => {
  await withServer(async () => {}, async (peer) => {
    await peer.send(STREAM, 1, new Uint8Array(MAX));
    const flood = (async () => {
      try {
        for (let i = 0; i < 100; i++) await peer.send(STREAM, 1, new Uint8Array(MAX));
      } catch {
        // the server has ended
      }
    })();
    assertEquals(await peer.nextClose(), [3, 0]);
    await flood;
  });
});

Deno.test("rules of stream ids", async () => {
  const cases: [name: string, type: number, id: number, code: number][] = [
    ["STREAM 0", STREAM, 0, 1],
    ["STREAM_END 0", STREAM_END, 0, 1],
    ["WINDOW_UPDATE 0", WINDOW_UPDATE, 0, 1],
    ["an even id of a client's", STREAM, 4, 1],
    ["the control stream of a client's", STREAM, 2, 1],
    ["credit for a stream not opened", WINDOW_UPDATE, 7, 1],
    ["an id past 2^53-1", STREAM, 2 ** 60, 1],
  ];
  for (const [name, type, id, code] of cases) {
    await withServer(echo(), async (peer) => {
      await peer.send(type, id, type === WINDOW_UPDATE ? varint(1) : "x");
      assertEquals(await peer.nextClose(), [code, 0], name);
    });
  }
  await withServer(echo(), async (peer) => {
    await peer.send(STREAM_END, 9, "nine");
    assertEquals(text(await peer.readAll(9)), "nine");
    for (const id of [9, 5]) { // finished, and skipped
      await peer.send(STREAM, id, "dropped");
      await peer.send(WINDOW_UPDATE, id, varint(1));
    }
    await peer.send(STREAM, 11, "eleven");
    await peer.send(STREAM_END, 11);
    assertEquals(text(await peer.readAll(11)), "eleven");
    await peer.send(STREAM, 13, "x");
    await peer.close(7, 13, "gone"); // a reset is not answered
    await peer.send(STREAM_END, 15, "y");
    let frame = await peer.next();
    while (frame?.id === 13) frame = await peer.next();
    assertEquals([frame?.id, text(frame!.data)], [15, "y"]);
  });
});

Deno.test("data after the end resets the stream alone; the 257th stream is refused", async () => {
  const held = Promise.withResolvers<void>();
  await withServer(() => held.promise, async (peer) => {
    await peer.send(STREAM_END, 1, "x");
    await peer.send(STREAM, 1, "y");
    assertEquals(await peer.nextClose(), [1, 1]);
    for (let i = 0; i < 256; i++) await peer.send(STREAM_END, 3 + 2 * i, "x");
    assertEquals(await peer.nextClose(), [5, 3 + 2 * 255], "the reset one counts while its handler runs");
    held.resolve();
  });
});

Deno.test("a flipped bit is AUTH_FAILED in a CLOSE, with a lot unread behind it (e-20, e-25)", async () => {
  await withServer(echo(), async (peer) => {
    await peer.send(STREAM, 1, "x");
    assertEquals((await peer.nextOf(1))?.data.length, 1);
    const frame = peer.frame(STREAM, 1, new Uint8Array(1000));
    frame[500]! ^= 1;
    await peer.wire.send(join(frame, new Uint8Array(300_000)));
    assertEquals(await peer.nextClose(), [2, 0]);
  });
});

Deno.test("a TCP half-close, a broken socket and a cut-off frame are truncation (e-19)", async () => {
  for (const how of ["FIN", "close", "cut"] as const) {
    const outcome = Promise.withResolvers<string>();
    await withServer(async (stream) => {
      try {
        while (await stream.read() !== null);
        outcome.resolve("complete");
      } catch (error) {
        outcome.resolve((error as HtxError).code);
      }
    }, async (peer, server) => {
      await peer.send(STREAM, 1, "x");
      await peer.send(PING, undefined, new Uint8Array([0]));
      assertEquals((await peer.next())?.type, PING);
      const closed = [...server.connections][0]!.closed;
      if (how === "cut") await peer.wire.send(peer.frame(STREAM, 1, bytes("never whole")).subarray(0, 9));
      if (how === "close") peer.wire.close();
      else await peer.wire.conn.closeWrite();
      assertEquals(await outcome.promise, "TRUNCATED");
      assertEquals(await closed.then(() => "well", (error) => error.code), "TRUNCATED");
      if (how !== "close") assertEquals(await peer.next(), undefined, "both directions end");
    });
  }
});

Deno.test("streams of the server's have even ids from 4; stream 2 is refused once", async () => {
  const server = serveStreams(async (_stream, { connection }) => {
    for (const word of ["a", "b"]) {
      const own = await connection.createBidirectionalStream();
      await own.write(bytes(word), { end: true });
    }
  });
  const peer = await Peer.connect(server.addr.port!, server.publicKey);
  await peer.send(STREAM_END, 1, "go");
  assertEquals(text(await peer.readAll(4)), "a");
  assertEquals(text(await peer.readAll(6)), "b");
  await peer.send(STREAM, 4, "late ");
  await peer.send(STREAM_END, 4, "answer");
  await peer.send(STREAM, 8, "never opened");
  assertEquals(await peer.nextClose(), [1, 0]);
  peer.wire.close();
  server.abort();
  await server.finished;

  const streams: string[] = [];
  await withClient(async (client, other) => {
    await other.send(STREAM, 2, "map");
    await other.send(STREAM, 2, "map");
    await other.send(STREAM_END, 4, "from the server");
    assertEquals(await other.nextClose(), [6, 2]);
    assertEquals(text(await other.readAll(4)), "ok");
    assertEquals(streams, ["4 from the server"]);
    await client.createBidirectionalStream();
    await other.send(STREAM, 1, "before the client spoke");
    assertEquals(await other.nextClose(), [1, 0]);
  }, {
    onStream: async (stream) => {
      streams.push(`${stream.id} ${text(await stream.read() ?? new Uint8Array())}`);
      await stream.write(bytes("ok"), { end: true });
    },
  });
});

Deno.test("a KEY_UPDATE in one read with the opening of stream 2 makes what came before it old all the same (e-31)", async () => {
  for (const registers of ["at once", "later"] as const) {
    for (const last of [STREAM, STREAM_END]) {
      const seen: string[] = [];
      const done = Promise.withResolvers<void>();
      await withClient(async (_client, peer) => {
        await peer.wire.send(join(
          peer.frame(STREAM, 2, bytes("old")),
          peer.frame(KEY_UPDATE, undefined),
          peer.frame(STREAM, 2, bytes("newer")),
          peer.frame(KEY_UPDATE, undefined),
          peer.frame(last, 2, bytes("newest")),
        ));
        await done.promise;
      }, {
        controlStream: async ({ chunks, onRekey }) => {
          if (registers === "later") await undefined;
          onRekey((atByte) => seen.push(`rekey at ${atByte}`));
          for await (const chunk of chunks) {
            seen.push(text(chunk));
            if (seen.at(-1) === "newest") break;
          }
          done.resolve();
        },
      });
      assertEquals(seen, ["rekey at 8", "old", "newer", "newest"], `${registers} ${last}`);
    }
  }
});

Deno.test("a server that shuts down refuses new streams, finishes the others, then sends an empty CLOSE", async () => {
  await withServer(echo(), async (peer, server) => {
    await peer.send(STREAM, 1, "x");
    assertEquals((await peer.nextOf(1))?.data.length, 1);
    const down = server.shutdown();
    await peer.send(STREAM, 3, "new");
    assertEquals(await peer.nextClose(), [10, 3]);
    // The last of the old stream and another new one in one write: both are answered before the end.
    await peer.wire.send(join(peer.frame(STREAM_END, 1, bytes("y")), peer.frame(STREAM, 5, bytes("new"))));
    const seen: string[] = [];
    for (let frame = await peer.next(); frame !== undefined; frame = await peer.next()) {
      if (frame.type === WINDOW_UPDATE) continue;
      seen.push(`${frame.type} ${frame.type === CLOSE ? [...frame.data] : frame.id}`);
      if (frame.type === CLOSE && frame.data.length === 0) {
        await peer.close();
        peer.wire.close();
        break;
      }
    }
    assertEquals(seen.sort(), ["2 ", "2 10,5", "5 1"]);
    await down;
  });
});

Deno.test("a handshake with a byte too many, the wrong key, or the wrong form is met with silence (e-04, e-27)", async () => {
  const server = serveStreams(echo(), {
    keyPair: KeyPair.generate(),
    postQuantum: "require",
    handshakeTimeoutMs: 300,
  });
  for (const what of ["classic", "wrong key", "long"] as const) {
    const failing = what === "long"
      ? (async () => {
        const conn = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port! });
        await conn.write(join(new Uint8Array([0x04, 0xe1]), new Uint8Array(1249)));
        const read = await conn.read(new Uint8Array(1));
        conn.close();
        throw new Error(read === null ? "the peer ended in its handshake" : "it answered");
      })()
      : Peer.connect(server.addr.port!, what === "wrong key" ? new Key().open : server.publicKey, {
        hybrid: what !== "classic",
      });
    assertEquals(await failing.then(() => "in", (error) => error.message), "the peer ended in its handshake");
  }
  await server.shutdown();
});
