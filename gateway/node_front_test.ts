import { assert, assertEquals } from "@std/assert";
import { concat, utf8 } from "../core/mod.ts";
import { usedHeap } from "../core/_test_heap.ts";
import {
  connect,
  dialWebSocket,
  encodeWebSocketClose,
  encodeWebSocketFrame,
  serve,
  WebSocketDecoder,
  type WebSocketEvent,
  WebSocketListener,
  WebSocketOpcode,
} from "../transport/mod.ts";
import { over, raw, until } from "./_testing.ts";
import { makeCertificate } from "./_testing_tls.ts";
import type { FrontHandler, FrontInfo, FrontTls, FrontUpgradeOptions } from "./front.ts";
import { nodeFront, type NodeFrontOptions } from "./node_front.ts";
import { covertEndpoint, passWebSockets } from "./upgrade.ts";

const { TEXT, BINARY, CONTINUATION, PING } = WebSocketOpcode;
const HANDSHAKE =
  "host: site.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n" +
  "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

let made: Promise<FrontTls> | undefined;

/** A certificate for all the tests here. */
function certificate(): Promise<FrontTls> {
  return made ??= (async () => {
    const base = await Deno.makeTempDir();
    try {
      return await makeCertificate(base);
    } finally {
      await Deno.remove(base, { recursive: true });
    }
  })();
}

/** A client of WebSocket frames by hand. */
class Client {
  readonly conn: Deno.Conn;
  readonly #decoder = new WebSocketDecoder();
  readonly #buffer = new Uint8Array(65_536);

  constructor(conn: Deno.Conn) {
    this.conn = conn;
  }

  /** Sends bytes; `false` where the other side takes none any more. */
  async send(bytes: Uint8Array): Promise<boolean> {
    try {
      for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
      return true;
    } catch {
      return false;
    }
  }

  /** Sends the handshake, with `behind` in the same write, and gives the head of the answer. */
  async open(path = "/", fields = "", behind: Uint8Array = new Uint8Array()): Promise<string> {
    await this.send(concat(utf8(`GET ${path} HTTP/1.1\r\n${HANDSHAKE}${fields}\r\n`), behind));
    let head = "";
    for (const one = new Uint8Array(1); !head.endsWith("\r\n\r\n");) {
      if (await this.conn.read(one) === null) return `${head}<end>`;
      head += String.fromCharCode(one[0]!);
    }
    return head;
  }

  frame(opcode: number, payload: Uint8Array, options: { fin?: boolean } = {}): Promise<boolean> {
    return this.send(masked(encodeWebSocketFrame(opcode, payload, options)));
  }

  /** The next frame; `null` at the end, "reset" where the connection broke off. */
  async next(): Promise<WebSocketEvent | null | "reset"> {
    for (;;) {
      const event = this.#decoder.next();
      if (event !== undefined) return event;
      const length = await this.conn.read(this.#buffer).catch(() => undefined);
      if (length === undefined) return "reset";
      if (length === null) return null;
      this.#decoder.push(this.#buffer.slice(0, length));
    }
  }

  [Symbol.dispose](): void {
    try {
      this.conn.close();
    } catch { /* it is closed */ }
  }
}

/** A frame as clients send it. */
function masked(frame: Uint8Array): Uint8Array {
  const key = [0x37, 0xfa, 0x21, 0x3d];
  const short = frame[1]!;
  const headerLength = short === 127 ? 10 : short === 126 ? 4 : 2;
  const out = concat(frame.subarray(0, headerLength), new Uint8Array(key), frame.subarray(headerLength));
  out[1] = short | 0x80;
  for (let i = headerLength; i < frame.length; i++) out[i + 4] = frame[i]! ^ key[(i - headerLength) & 3]!;
  return out;
}

type Upgraded = { socket: WebSocket; info: FrontInfo; request: Request };

/** A front whose handler upgrades whoever asks for it, and what it upgraded. */
async function upgrading(
  encrypted: boolean,
  onSocket: (socket: WebSocket) => void,
  options: NodeFrontOptions & { upgrade?: FrontUpgradeOptions } = {},
) {
  const tls = encrypted ? await certificate() : undefined;
  const upgraded: Upgraded[] = [];
  const handler: FrontHandler = (request, info) => {
    if (info.upgradeWebSocket === undefined) return new Response("a page");
    const { socket, response } = info.upgradeWebSocket(request, options.upgrade);
    socket.binaryType = "arraybuffer";
    upgraded.push({ socket, info, request });
    onSocket(socket);
    return response;
  };
  const front = await nodeFront(handler, { port: 0, tls, ...options });
  const { port } = front.addr;
  return {
    front,
    port,
    upgraded,
    url: `${encrypted ? "wss" : "ws"}://localhost:${port}`,
    dial: async () =>
      new Client(
        tls === undefined
          ? await Deno.connect({ hostname: "127.0.0.1", port })
          : await Deno.connectTls({ hostname: "localhost", port, caCerts: [tls.cert] }),
      ),
    httpClient: () => Deno.createHttpClient({ caCerts: tls === undefined ? [] : [tls.cert] }),
    [Symbol.asyncDispose]: () => front[Symbol.asyncDispose](),
  };
}

const echo = (socket: WebSocket) => socket.onmessage = ({ data }) => socket.send(data);

/** What the `close` event says. */
function closeOf(socket: WebSocket): Promise<[code: number, reason: string, wasClean: boolean]> {
  return new Promise((resolve) =>
    socket.addEventListener(
      "close",
      ({ code, reason, wasClean }) => resolve([code, reason, wasClean]),
      { once: true },
    )
  );
}

/** Waits until `count` stands still. */
async function still(count: () => number): Promise<number> {
  for (let before = -1, same = 0;; before = count()) {
    same = before === count() ? same + 1 : 0;
    if (same === 4) return before;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

for (const encrypted of [false, true]) {
  const how = encrypted ? "over TLS" : "over TCP";

  Deno.test(`nodeFront ${how}: a WebSocket of the runtime's is echoed text and binary messages, and both close codes arrive`, async () => {
    const closes: ReturnType<typeof closeOf>[] = [];
    await using site = await upgrading(encrypted, (socket) => {
      echo(socket);
      closes.push(closeOf(socket));
    });
    using client = site.httpClient();
    const opened = async () => {
      const init = { client };
      const socket: WebSocket = Reflect.construct(WebSocket, [`${site.url}/chat`, init]);
      socket.binaryType = "arraybuffer";
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = reject;
      });
      return socket;
    };
    const socket = await opened();
    const answers: unknown[] = [];
    socket.onmessage = ({ data }) =>
      answers.push(typeof data === "string" ? data : new Uint8Array(data).length);
    socket.send("héllo");
    for (const length of [0, 1, 125, 126, 65_535, 65_536, 1_000_000]) socket.send(new Uint8Array(length));
    await until(() => answers.length === 8);
    assertEquals(answers, ["héllo", 0, 1, 125, 126, 65_535, 65_536, 1_000_000]);
    const closed = closeOf(socket);
    socket.close(4001, "from the client");
    assertEquals(await closes[0], [4001, "from the client", true]);
    assertEquals((await closed)[2], true);
    const other = await opened();
    const otherClosed = closeOf(other);
    site.upgraded[1]!.socket.close(4002, "from the server");
    assertEquals(await otherClosed, [4002, "from the server", true]);
    assertEquals((await closes[1]!)[2], true);
    await site.front.shutdown(); // nothing is left
  });

  Deno.test(`nodeFront ${how} answers the handshake of RFC 6455 §1.3, and takes what comes in one write with it`, async () => {
    await using site = await upgrading(encrypted, echo);
    using client = await site.dial();
    const behind = concat(
      masked(encodeWebSocketFrame(TEXT, utf8("first"))),
      masked(encodeWebSocketFrame(TEXT, utf8("second"))),
    );
    const head = await client.open("/a?b", "", behind);
    assertEquals(
      head,
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" +
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    assertEquals(await client.next(), { type: "text", data: "first" });
    assertEquals(await client.next(), { type: "text", data: "second" });
    const { info, request } = site.upgraded[0]!;
    assertEquals([info.target, info.encrypted, request.headers.get("upgrade")], [
      "/a?b",
      encrypted,
      "websocket",
    ]);
  });

  Deno.test(`nodeFront ${how} puts fragments together, answers a ping among them, and a Close frame with the same code`, async () => {
    await using site = await upgrading(encrypted, echo);
    using client = await site.dial();
    await client.open();
    await client.frame(TEXT, utf8("a"), { fin: false });
    await client.frame(PING, utf8("p"));
    await client.frame(CONTINUATION, utf8("b"), { fin: false });
    await client.frame(CONTINUATION, utf8("c"));
    assertEquals(await client.next(), { type: "pong", data: utf8("p") });
    assertEquals(await client.next(), { type: "text", data: "abc" });
    await client.send(masked(encodeWebSocketClose(1001, "bye")));
    assertEquals(await client.next(), { type: "close", code: 1001, reason: "" });
    assertEquals(await client.next(), null);
  });

  Deno.test(`nodeFront ${how}: a client that vanishes closes its WebSocket with 1006`, async () => {
    for (const half of [false, true]) {
      const closed = Promise.withResolvers<unknown>();
      await using site = await upgrading(encrypted, (socket) => void closeOf(socket).then(closed.resolve));
      using client = await site.dial();
      await client.open();
      if (half) await client.conn.closeWrite();
      else client.conn.close();
      assertEquals(await closed.promise, [1006, "", false]);
    }
  });

  Deno.test({
    name:
      `nodeFront ${how}: the system asks after a client that says nothing, so that one that was lost is noticed`,
    ignore: Deno.build.os !== "linux",
    fn: async () => {
      await using site = await upgrading(encrypted, echo);
      using client = await site.dial();
      await client.open();
      const here = `0100007F:${site.port.toString(16).toUpperCase().padStart(4, "0")}`;
      const timer = async () => {
        const { stdout } = await new Deno.Command("bash", { args: ["-c", "cat /proc/net/tcp"] }).output();
        const established = new TextDecoder().decode(stdout).split("\n")
          .map((line) => line.trim().split(/\s+/))
          .find(([, local, , state]) => local === here && state === "01");
        return established?.[5]?.split(":")[0];
      };
      await until(async () => await timer() === "02"); // a keepalive: what was sent has been acknowledged
    },
  });

  Deno.test(`nodeFront ${how} cuts a client off that does not answer a Close frame, or takes nothing`, async () => {
    for (const takes of [true, false]) {
      await using site = await upgrading(encrypted, (socket) => {
        socket.onopen = () => {
          if (!takes) { for (let i = 0; i < 16; i++) socket.send(new Uint8Array(1024 ** 2)); }
          socket.close(4000, "bye");
        };
      }, { upgrade: { closeTimeoutMs: 500 } });
      using client = await site.dial();
      await client.open();
      const socket = site.upgraded[0]!.socket;
      const closed = closeOf(socket);
      if (takes) assertEquals(await client.next(), { type: "close", code: 4000, reason: "bye" });
      assertEquals(await closed, [1006, "", false]);
      await site.front.shutdown(); // nothing is left
    }
  });

  Deno.test(`nodeFront ${how} ends a frame that is not masked with 1002, and one that is too long with 1009`, async () => {
    for (
      const [frame, code] of [
        [encodeWebSocketFrame(TEXT, utf8("bare")), 1002],
        [masked(encodeWebSocketFrame(BINARY, new Uint8Array(1001))), 1009],
      ] as const
    ) {
      const closed = Promise.withResolvers<unknown>();
      await using site = await upgrading(encrypted, (socket) => void closeOf(socket).then(closed.resolve), {
        upgrade: { maxMessageBytes: 1000 },
      });
      using client = await site.dial();
      await client.open();
      await client.send(frame);
      assertEquals(await client.next(), { type: "close", code, reason: "" });
      assertEquals(await client.next(), null);
      assertEquals(await closed.promise, [code, "", false]);
      client.conn.close();
      await site.front.shutdown(); // nothing is left
    }
  });

  Deno.test(`nodeFront ${how} ends a message of endless fragments with 1009, keeps no more than its bound of it, and cuts off who goes on`, async () => {
    const closed = Promise.withResolvers<unknown>();
    await using site = await upgrading(encrypted, (socket) => void closeOf(socket).then(closed.resolve), {
      upgrade: { maxMessageBytes: 4 * 1024 ** 2 },
      lingerTimeoutMs: 300,
    });
    using client = await site.dial();
    await client.open();
    await client.frame(BINARY, new Uint8Array(10), { fin: false });
    await usedHeap(); // lets go of garbage
    const before = Deno.memoryUsage().external;
    let most = 0;
    const fragment = masked(encodeWebSocketFrame(CONTINUATION, new Uint8Array(100_000), { fin: false }));
    for (let sent = 0; await client.send(fragment); sent += 100_000) {
      assert(sent < 64 * 1024 ** 2, `${sent} bytes were taken`);
      most = Math.max(most, Deno.memoryUsage().external);
    }
    assertEquals(await closed.promise, [1009, "", false]);
    assert(most - before < 24 * 1024 ** 2, `${most - before} bytes more`);
    await site.front.shutdown(); // nothing is left
  });

  Deno.test(`nodeFront ${how}: a client that does not read makes who sends wait, and is cut off after writeTimeoutMs`, async () => {
    const closed = Promise.withResolvers<unknown>();
    await using site = await upgrading(encrypted, (socket) => {
      socket.onopen = () => {
        for (let i = 0; i < 32; i++) socket.send(new Uint8Array(1024 ** 2));
      };
      closeOf(socket).then(closed.resolve);
    }, { writeTimeoutMs: 400 });
    using client = await site.dial();
    await client.open();
    const { socket } = site.upgraded[0]!;
    assert(await still(() => socket.bufferedAmount) > 16 * 1024 ** 2);
    assertEquals(await closed.promise, [1006, "", false]);
  });

  Deno.test(`nodeFront ${how}: shutdown() waits for open WebSockets and takes no new ones, abort() cuts them`, async () => {
    await using site = await upgrading(encrypted, echo);
    using client = await site.dial();
    await client.open();
    let over = false;
    const shutdown = site.front.shutdown().then(() => over = true);
    const refused = await site.dial().then((other) => other[Symbol.dispose](), () => "refused");
    assertEquals(refused, "refused");
    await client.frame(TEXT, utf8("still there"));
    assertEquals(await client.next(), { type: "text", data: "still there" });
    assertEquals(over, false);
    const closed = closeOf(site.upgraded[0]!.socket);
    site.front.abort();
    assertEquals((await closed)[0], 1006);
    await shutdown;
    const end = await client.next();
    assert(end === null || end === "reset");
  });

  Deno.test(`nodeFront ${how}: a slow upstream makes a client of passWebSockets() wait, and a slow client the upstream`, async () => {
    const tls = encrypted ? await certificate() : undefined;
    const sent = Promise.withResolvers<WebSocket>();
    const release = Promise.withResolvers<void>();
    let got = 0;
    await using site = over((_request, info) => {
      const { socket, response } = info.upgradeWebSocket();
      socket.binaryType = "arraybuffer";
      socket._hold = () => release.promise;
      socket.onmessage = ({ data }) => got += data.byteLength;
      socket.onopen = () => sent.resolve(socket);
      return response;
    }, { onUpgrade: passWebSockets() });
    await using front = await nodeFront(site.gateway.handler, { port: 0, tls });
    const { port } = front.addr;
    using client = new Client(
      tls === undefined
        ? await Deno.connect({ hostname: "127.0.0.1", port })
        : await Deno.connectTls({ hostname: "localhost", port, caCerts: [tls.cert] }),
    );
    await client.open("/slow");
    const upstream = await sent.promise;
    let taken = 0;
    const message = masked(encodeWebSocketFrame(BINARY, new Uint8Array(200_000)));
    const sending = (async () => {
      for (; taken < 200 && await client.send(message); taken++);
    })();
    assert(await still(() => taken) < 100, `${taken} messages of 200 000 bytes were taken`);
    assertEquals(upstream.readyState, WebSocket.OPEN);
    release.resolve();
    await sending;
    assertEquals(taken, 200);
    await until(() => got === 200 * 200_000);
    for (let i = 0; i < 64; i++) upstream.send(new Uint8Array(1024 ** 2));
    assert(await still(() => upstream.bufferedAmount) > 32 * 1024 ** 2);
    let bytes = 0;
    while (bytes < 64 * 1024 ** 2) {
      const event = await client.next();
      assert(event !== null && event !== "reset" && event.type === "binary");
      bytes += event.data.length;
    }
    assertEquals(upstream.bufferedAmount, 0);
  });

  Deno.test(`nodeFront ${how}: covertEndpoint() carries a session of HTX`, async () => {
    const tls = encrypted ? await certificate() : undefined;
    const inner = serve(async (request) => new Response(await request.bytes()));
    await using site = over(() => new Response(), {
      onUpgrade: covertEndpoint({ path: "/live", session: inner }),
    });
    await using front = await nodeFront(site.gateway.handler, { port: 0, tls });
    using httpClient = Deno.createHttpClient({ caCerts: tls === undefined ? [] : [tls.cert] });
    const url = `${encrypted ? "wss" : "ws"}://localhost:${front.addr.port}/live`;
    const client = await connect(({ signal }) => dialWebSocket(url, { signal, client: httpClient }), {
      remoteStatic: inner.publicKey,
    });
    const body = crypto.getRandomValues(new Uint8Array(60_000));
    const answers = await Promise.all(
      Array.from({ length: 20 }, async () => (await client.fetch("/", { method: "POST", body })).bytes()),
    );
    for (const answer of answers) assertEquals(answer, body);
    const large = new Uint8Array(8 * 1024 ** 2).fill(7);
    assertEquals(await (await client.fetch("/", { method: "POST", body: large })).bytes(), large);
    await client.close();
    await inner.shutdown();
    await until(() => site.gateway.metrics.active === 0);
    await front.shutdown(); // nothing is left
  });
}

/** The answer's lines but its date. */
const undated = (answer: string) => answer.replace(/date: [^\r]+\r\n/i, "");

Deno.test("nodeFront answers a request for a WebSocket that its handler does not upgrade like any other, and ends the connection", async () => {
  const part = new Uint8Array(65_536).fill(97);
  const handler: FrontHandler = (request) => {
    if (!request.url.endsWith("/long")) return new Response("a page", { headers: { "x-a": "b" } });
    let left = 64;
    return new Response(
      new ReadableStream({
        pull: (controller) => left-- > 0 ? controller.enqueue(part) : controller.close(),
      }, { highWaterMark: 0 }),
    );
  };
  await using front = await nodeFront(handler, { port: 0 });
  const ask = (path: string, fields: string) =>
    raw(front.addr.port, `GET ${path} HTTP/1.1\r\n${fields}\r\n`, 500);
  const upgrade = await ask("/live", HANDSHAKE);
  assertEquals(
    undated(upgrade),
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain;charset=UTF-8\r\nx-a: b\r\ncontent-length: 6\r\n" +
      "Connection: close\r\n\r\na page<end>",
  );
  assertEquals(undated(upgrade), undated(await ask("/live", "host: site.example\r\nconnection: close\r\n")));
  const long = await ask("/long", HANDSHAKE);
  assertEquals(long.match(/a{60000}/g)?.length, 64);
  assert(long.endsWith("0\r\n\r\n<end>"));
  const response = await fetch(`http://127.0.0.1:${front.addr.port}/live`);
  assertEquals([response.status, response.headers.get("x-a"), await response.text()], [200, "b", "a page"]);
});

Deno.test("nodeFront takes a request that asks for another protocol, or cannot be a WebSocket, for any other request", async () => {
  const handler: FrontHandler = async (request, info) =>
    new Response(`${request.method} ${await request.text()} ${info.upgradeWebSocket !== undefined}`);
  await using front = await nodeFront(handler, { port: 0 });
  const h2c =
    "host: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
  const next = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
  for (
    const [request, body] of [
      [`GET / HTTP/1.1\r\n${h2c}\r\n`, "GET  false"],
      [`POST / HTTP/1.1\r\n${h2c}content-length: 5\r\n\r\nhello`, "POST hello false"],
      [
        `POST / HTTP/1.1\r\n${h2c}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
        "POST hello false",
      ],
      [`POST / HTTP/1.1\r\n${HANDSHAKE}content-length: 5\r\n\r\nhello`, "POST hello false"],
      [`GET / HTTP/1.1\r\n${HANDSHAKE}content-length: 5\r\n\r\nhello`, "GET  false"],
      [`GET / HTTP/1.0\r\n${HANDSHAKE}\r\n`, "GET  false"],
      [`GET / HTTP/1.1\r\n${HANDSHAKE}\r\n`, "GET  true"],
    ] as const
  ) {
    const answer = await raw(front.addr.port, request + next, 500);
    assertEquals([request, answer.match(/HTTP\/1\.1 /g)?.length], [request, 1]); // what follows is no request
    assert(answer.endsWith(`\r\n\r\n${body}<end>`), answer);
    assert(/\r\nconnection: close\r\n/i.test(answer), answer);
  }
});

Deno.test("nodeFront takes no request behind one that asked for another protocol, while that runs or when it was answered", async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const asked: string[] = [];
  await using front = await nodeFront(async (request) => {
    asked.push(new URL(request.url).pathname);
    if (request.url.endsWith("/2")) throw new Error("asked all the same");
    await gates.shift()!.promise;
    return new Response("a page");
  }, { port: 0 });
  const next = utf8("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n");
  for (const [i, when] of ["while it runs", "answered"].entries()) {
    using client = new Client(await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port }));
    await client.send(utf8("GET /1 HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n"));
    const [gate] = gates;
    await until(() => asked.length === i + 1);
    if (when === "while it runs") {
      await client.send(next);
      await new Promise((resolve) => setTimeout(resolve, 50)); // it has arrived
    }
    gate!.resolve();
    let answer = "";
    const buffer = new Uint8Array(1000);
    for (;;) {
      const length = await client.conn.read(buffer).catch(() => null);
      if (length === null) break;
      answer += new TextDecoder().decode(buffer.subarray(0, length));
      if (when === "answered") await client.send(next);
    }
    assertEquals(answer.match(/HTTP\/1\.1 \d+/g), ["HTTP/1.1 200"]);
  }
  assertEquals(asked, ["/1", "/1"]);
});

Deno.test("nodeFront upgrades a connection that has asked before, but none where an answer is still to come", async () => {
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const handler: FrontHandler = async (request, info) => {
    if (request.url.endsWith("/slow")) {
      begun.resolve();
      await gate.promise;
    }
    if (request.headers.get("upgrade") === null) return new Response("a page");
    if (info.upgradeWebSocket === undefined) return new Response("no", { status: 501 });
    const { socket, response } = info.upgradeWebSocket(request);
    echo(socket);
    return response;
  };
  await using front = await nodeFront(handler, { port: 0, keepAliveTimeoutMs: 100 });
  const page = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
  using client = new Client(await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port }));
  await client.send(utf8(page));
  let answer = "";
  for (const buffer = new Uint8Array(1000); !answer.endsWith("a page");) {
    answer += new TextDecoder().decode(buffer.subarray(0, await client.conn.read(buffer) ?? 0));
  }
  assert((await client.open()).startsWith("HTTP/1.1 101 "));
  await new Promise((resolve) => setTimeout(resolve, 300)); // longer than it may idle between requests
  await client.frame(TEXT, utf8("hello"));
  assertEquals(await client.next(), { type: "text", data: "hello" });

  const both = raw(front.addr.port, `${page.replace("/", "/slow")}GET / HTTP/1.1\r\n${HANDSHAKE}\r\n`);
  await begun.promise;
  gate.resolve();
  assertEquals((await both).match(/HTTP\/1\.1 \d+/g), ["HTTP/1.1 200", "HTTP/1.1 501"]);
});

Deno.test("nodeFront closes a WebSocket whose handler answers otherwise, fails, or whose client leaves before the answer", async () => {
  for (const why of ["otherwise", "fails", "leaves", "control"]) {
    const closed = Promise.withResolvers<unknown>();
    const gate = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<AbortSignal>();
    let again: unknown;
    await using front = await nodeFront(async (request, info) => {
      const { socket, response } = info.upgradeWebSocket!(request);
      closeOf(socket).then(closed.resolve);
      asked.resolve(request.signal);
      await gate.promise;
      if (why === "fails") throw new Error("as it should");
      if (why === "otherwise") return new Response("no", { status: 403 });
      if (why === "control") response.headers.set("x-a", "\x01");
      try {
        info.upgradeWebSocket!(request);
      } catch (error) {
        again = error;
      }
      return response;
    }, { port: 0 });
    using client = new Client(await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port }));
    const answer = client.open();
    const signal = await asked.promise;
    if (why === "leaves") {
      await client.conn.closeWrite();
      await until(() => signal.aborted);
    }
    gate.resolve();
    assertEquals(await closed.promise, [1006, "", false]);
    assert((await answer).startsWith(why === "otherwise" ? "HTTP/1.1 403 " : "<end>"), await answer);
    assertEquals(again instanceof TypeError, why === "leaves" || why === "control");
    client.conn.close();
    await front.shutdown();
  }
});

Deno.test("covertEndpoint() behind nodeFront refuses a message above 1 MiB by its length, before it comes", async () => {
  const inner = serve(() => new Response());
  await using site = over(() => new Response(), {
    onUpgrade: covertEndpoint({ path: "/live", session: inner }),
  });
  await using front = await nodeFront(site.gateway.handler, { port: 0 });
  using client = new Client(await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port }));
  await client.open("/live");
  await client.send(masked(encodeWebSocketFrame(BINARY, new Uint8Array(1024 ** 2 + 1))).subarray(0, 14));
  assertEquals(await client.next(), { type: "close", code: 1009, reason: "" });
  assertEquals(await client.next(), null);
  client.conn.close();
  await inner.shutdown();
});

Deno.test("nodeFront: WebSocketListener.upgrade() takes its sockets, bounds their messages and is left by who does not close them", async () => {
  const listener = new WebSocketListener();
  await using server = serve(() => new Response("in"), { listeners: [listener] });
  await using front = await nodeFront((request, info) =>
    Promise.resolve(
      request.headers.get("upgrade") === "websocket"
        ? listener.upgrade(request, info)
        : new Response("a site"),
    ), { port: 0 });
  const url = `ws://127.0.0.1:${front.addr.port}/chat`;
  const client = await connect(({ signal }) => dialWebSocket(url, { signal }), {
    remoteStatic: server.publicKey,
  });
  const sent = new Uint8Array(2 ** 21).fill(7);
  const response = await client.fetch("/", { method: "POST", body: sent });
  assertEquals(await response.text(), "in");
  const [connection] = server.connections;
  assertEquals(connection?.remoteAddr?.hostname, "127.0.0.1");
  await client.close();
  using conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
  const stranger = new Client(conn);
  assert((await stranger.open("/chat")).startsWith("HTTP/1.1 101 "));
  const fragment = new Uint8Array(65_536);
  await stranger.frame(BINARY, fragment, { fin: false });
  for (let i = 0; i < 15; i++) await stranger.frame(CONTINUATION, fragment, { fin: false });
  await stranger.frame(CONTINUATION, new Uint8Array(1), { fin: false });
  assertEquals(await stranger.next(), { type: "close", code: 1009, reason: "" });
  await until(() => listener.lingering === 0);
});

Deno.test("nodeFront: an ill-formed handshake is answered 400 by a gateway, and its stream is let go", async () => {
  await using site = over((_request, info) => info.upgradeWebSocket().response, {
    onUpgrade: passWebSockets(),
  });
  await using front = await nodeFront(site.gateway.handler, { port: 0 });
  for (
    const [from, to] of [
      ["version: 13", "version: 8"],
      ["sec-websocket-version: 13\r\n", ""],
      ["dGhlIHNhbXBsZSBub25jZQ==", "AAAA"],
      ["sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""],
    ] as const
  ) {
    const answer = await raw(front.addr.port, `GET / HTTP/1.1\r\n${HANDSHAKE.replace(from, to)}\r\n`);
    assert(answer.startsWith("HTTP/1.1 400 Bad Request\r\n"), answer);
  }
  await until(() => site.gateway.stats.upstreams[0]!.streams === 0);
  assertEquals(site.gateway.metrics.active, 0);
});
