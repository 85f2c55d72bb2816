import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type ByteIo, concat, type Duplex, HtxError, utf8 } from "../core/mod.ts";
import { connect } from "./client.ts";
import { ioDuplex } from "./duplex.ts";
import { forward, type ForwardTarget, forwardUpstream } from "./forward.ts";
import { memoryDuplexPair } from "./memory.ts";
import { serveStreams } from "./server.ts";
import { dialTcp, listenTcp } from "./tcp.ts";

/** A TCP server that hands its connections to `serve`, one after another. */
function tcpServer(serve: (conn: Deno.TcpConn) => Promise<void>) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const running = (async () => {
    for await (const conn of listener) {
      try {
        await serve(conn);
      } catch {
        // the other side broke it
      }
      try {
        conn.close();
      } catch {
        // closed by `serve`
      }
    }
  })();
  return {
    target: `127.0.0.1:${listener.addr.port}`,
    [Symbol.asyncDispose]: async () => {
      listener.close();
      await running.catch(() => {});
    },
  };
}

async function readAll(conn: { read(into: Uint8Array): Promise<number | null> }): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(65_536);
    const length = await conn.read(into);
    if (length === null) return concat(...parts);
    parts.push(into.subarray(0, length));
  }
}

Deno.test("forward(): half-close crosses in both directions, and nothing is lost", async () => {
  const data = crypto.getRandomValues(new Uint8Array(65_536));
  const large = concat(...Array.from({ length: 32 }, () => data)); // past every window
  // The target answers only once it has read the end, and the client reads only once it has sent its own.
  await using target = tcpServer(async (conn) => {
    const received = await readAll(conn);
    for (let at = 0; at < received.length;) at += await conn.write(received.subarray(at));
    await conn.closeWrite();
    assertEquals(await conn.read(new Uint8Array(1)), null);
  });
  await using server = serveStreams(forwardUpstream({ allow: [target.target] }));
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  await using forwarder = forward({ client, target: target.target });
  for (const body of [new Uint8Array(0), utf8("small"), large]) {
    const { io } = await dialTcp({ port: forwarder.addr.port! });
    await io!.write(body);
    await io!.closeWrite();
    assertEquals((await readAll(io!)).length, body.length);
    io!.close();
  }
});

Deno.test("forward(): a server that speaks first is heard before the client says a word", async () => {
  await using target = tcpServer(async (conn) => {
    await conn.write(utf8("SSH-2.0-x\r\n"));
    await readAll(conn);
  });
  await using server = serveStreams(forwardUpstream({ allow: ["127.0.0.1:*"] }));
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  await using forwarder = forward({ client, target: target.target });
  const { io } = await dialTcp({ port: forwarder.addr.port! });
  const into = new Uint8Array(64);
  const length = await io!.read(into);
  assertEquals(new TextDecoder().decode(into.subarray(0, length!)), "SSH-2.0-x\r\n");
  assertEquals(forwarder.connections, 1);
  io!.close();
  await forwarder.shutdown();
  assertEquals(forwarder.connections, 0);
});

Deno.test("forward(): a target outside the allow-list is refused, and the local end sees it break", async () => {
  let reached = 0;
  await using target = tcpServer(() => {
    reached++;
    return Promise.resolve();
  });
  const errors: unknown[] = [];
  await using server = serveStreams(forwardUpstream({ allow: ["127.0.0.1:1", "LOCALHOST:*"] }));
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const forwarder = forward({ client, target: target.target, onError: (error) => errors.push(error) });
  const { io } = await dialTcp({ port: forwarder.addr.port! });
  await io!.write(utf8("hello")).catch(() => {});
  assertEquals(await io!.read(new Uint8Array(1)).catch(() => null), null);
  io!.close();
  await forwarder.close();
  assertEquals(reached, 0);
  assert(errors[0] instanceof HtxError && errors[0].code === "REFUSED" && errors[0].remote);
});

Deno.test("forwardUpstream() compares hosts by their usual form, and refuses what is no target", async () => {
  const dialled: string[] = [];
  const dial = ({ hostname, port }: ForwardTarget) => {
    dialled.push(`${hostname} ${port}`);
    return Promise.reject(new Error("not there"));
  };
  await using server = serveStreams(
    forwardUpstream({ allow: ["Example.COM:80", "[::1]:*", "127.0.0.1:22"], dial }),
  );
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const ask = async (header: Uint8Array) => {
    const stream = await client.createBidirectionalStream();
    stream.write(header, { end: true }).catch(() => {});
    return await stream.closed.then(() => "ended", (error) => error.code);
  };
  const named = (text: string) => {
    const bytes = utf8(text);
    return concat(new Uint8Array([bytes.length >> 8, bytes.length & 255]), bytes);
  };
  const cases: [string, string][] = [
    ["tcp:example.com:80", "INTERNAL_ERROR"],
    ["tcp:EXAMPLE.com.:80", "INTERNAL_ERROR"],
    ["tcp:[0:0::1]:5432", "INTERNAL_ERROR"],
    ["tcp:127.1:22", "INTERNAL_ERROR"],
    ["tcp:example.com:81", "REFUSED"],
    ["tcp:example.com.evil.test:80", "REFUSED"],
    ["tcp:xexample.com:80", "REFUSED"],
    ["tcp:127.0.0.2:22", "REFUSED"],
    ["tcp:[::ffff:127.0.0.1]:22", "REFUSED"],
    ["tcp:127.0.0.1:0", "PROTOCOL_ERROR"],
    ["tcp:127.0.0.1:65536", "PROTOCOL_ERROR"],
    ["tcp:127.0.0.1", "PROTOCOL_ERROR"],
    ["tcp:user@127.0.0.1:22", "PROTOCOL_ERROR"],
    ["tcp:127.0.0.1:22/x", "PROTOCOL_ERROR"],
    ["tcp:a b:22", "PROTOCOL_ERROR"],
    ["udp:127.0.0.1:22", "PROTOCOL_ERROR"],
    ["", "PROTOCOL_ERROR"],
    [`tcp:${"a".repeat(600)}:22`, "PROTOCOL_ERROR"],
  ];
  for (const [text, code] of cases) assertEquals([text, await ask(named(text))], [text, code]);
  assertEquals(dialled, ["example.com 80", "example.com 80", "::1 5432", "127.0.0.1 22"]);
  for (
    const header of [
      new Uint8Array(0),
      new Uint8Array([0]),
      new Uint8Array([0, 9, 116]),
      new Uint8Array([0, 2, 0xff, 0xff]),
    ]
  ) {
    assertEquals(await ask(header), "PROTOCOL_ERROR");
  }
  for (const bad of ["example.com", "*:80", ":80", "host:*x", "host:99999"]) {
    if (bad === "*:80") continue; // a host named so, which never is
    assertThrows(() => forwardUpstream({ allow: [bad] }), TypeError);
    assertThrows(() => forward({ client, target: bad }), TypeError);
  }
  const nothing = forwardUpstream({ allow: [] });
  assertEquals(typeof nothing, "function");
});

Deno.test("forwardUpstream(): a dial that knows nothing of its signal ends in time, and what it opens too late is closed", async () => {
  const [here, there] = memoryDuplexPair();
  const late = Promise.withResolvers<Duplex>();
  const errors: unknown[] = [];
  await using server = serveStreams(
    forwardUpstream({
      allow: ["a.test:1"],
      dial: () => late.promise,
      dialTimeoutMs: 20,
      onError: (error) => errors.push(error),
    }),
  );
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const stream = await client.createBidirectionalStream();
  await stream.write(concat(new Uint8Array([0, 12]), utf8("tcp:a.test:1")));
  const error = await assertRejects(() => stream.read(), HtxError, "cannot reach target");
  assertEquals(error.code, "INTERNAL_ERROR");
  assert(errors[0] instanceof DOMException && errors[0].name === "TimeoutError");
  late.resolve(there);
  assertEquals(await here.io!.read(new Uint8Array(1)), null);
});

Deno.test("forwardUpstream(): a client that goes takes a target along that takes nothing", async () => {
  for (const behindHeader of [true, false]) {
    const stuck = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<void>();
    const io: ByteIo = {
      read: () => closed.promise.then(() => null),
      write: () => {
        stuck.resolve();
        return closed.promise;
      },
      closeWrite: () => Promise.resolve(),
      close: () => closed.resolve(),
    };
    await using server = serveStreams(
      forwardUpstream({ allow: ["a.test:1"], dial: () => Promise.resolve(ioDuplex(io)) }),
    );
    await using client = await connect(server.addr, { remoteStatic: server.publicKey });
    const stream = await client.createBidirectionalStream();
    const header = concat(new Uint8Array([0, 12]), utf8("tcp:a.test:1"));
    await stream.write(behindHeader ? concat(header, utf8("hello")) : header);
    if (!behindHeader) await stream.write(utf8("hello"));
    await stuck.promise;
    stream.reset("CANCELLED");
    await closed.promise;
  }
});

Deno.test("forwardUpstream(): a dial may give a duplex of nothing but web streams, which is ended with its stream", async () => {
  const ended: string[] = [];
  const echo = new TransformStream<Uint8Array, Uint8Array>();
  const writer = echo.writable.getWriter();
  const duplex: Duplex = {
    readable: echo.readable,
    writable: new WritableStream({
      write: (chunk) => writer.write(chunk),
      close: () => writer.close(),
      abort: () => {
        ended.push("abort");
        return writer.abort();
      },
    }),
  };
  const errors: unknown[] = [];
  const onError = (error: unknown) => void errors.push(error);
  await using server = serveStreams(
    forwardUpstream({ allow: ["a.test:1"], dial: () => Promise.resolve(duplex), onError }),
  );
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  const stream = await client.createBidirectionalStream();
  await stream.write(concat(new Uint8Array([0, 12]), utf8("tcp:a.test:1hello")));
  assertEquals(await stream.read(), utf8("hello"));
  assertEquals(errors, []);
  stream.reset("CANCELLED");
  await writer.closed.catch(() => {});
  assertEquals(ended, ["abort"]);
});

Deno.test("forward(): when the tunnel breaks, the local connections break too, and close() leaves nothing", async () => {
  await using target = tcpServer((conn) => readAll(conn).then(() => {}));
  await using server = serveStreams(forwardUpstream({ allow: [target.target] }));
  const client = await connect(server.addr, { remoteStatic: server.publicKey });
  const forwarder = forward({ client, target: target.target, maxConnections: 1 });
  const first = await dialTcp({ port: forwarder.addr.port! });
  await first.io!.write(utf8("hello"));
  const second = await dialTcp({ port: forwarder.addr.port! }); // waits for its turn
  for (const connection of client.connections) connection.abort();
  assertEquals(await first.io!.read(new Uint8Array(1)).catch(() => null), null);
  first.close?.();
  second.close?.();
  await forwarder.close();
  await client.close();
});

Deno.test("curl reaches an HTTP server through a forward", async () => {
  const web = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => new Response(`${request.method} ${(await request.bytes()).length}`),
  );
  const target = `127.0.0.1:${web.addr.port}`;
  await using server = serveStreams(forwardUpstream({ allow: [target] }));
  await using client = await connect(server.addr, { remoteStatic: server.publicKey });
  await using forwarder = forward({ client, target });
  try {
    const command = new Deno.Command("curl", {
      args: ["-s", "--data-binary", "@-", `http://127.0.0.1:${forwarder.addr.port}/`],
      stdin: "piped",
      stdout: "piped",
    });
    const child = command.spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new Uint8Array(1_000_000));
    await writer.close();
    assertEquals(new TextDecoder().decode((await child.output()).stdout), "POST 1000000");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("skipped: curl is not installed");
  }
  await forwarder.close();
  await web.shutdown();
});

Deno.test("a forward on a port that is taken says so at once", async () => {
  const taken = listenTcp({ port: 0 });
  const client = { createBidirectionalStream: () => Promise.reject(new Error("unused")) };
  assertThrows(
    () => forward({ client, target: "a:1", listen: { port: taken.addr.port! } }),
    Deno.errors.AddrInUse,
  );
  taken.close();
  const controller = new AbortController();
  const forwarder = forward({ client, target: "a:1", signal: controller.signal });
  controller.abort();
  await forwarder.finished;
});

Deno.test("forward(): an accept that fails is told, and the next connection is taken", async () => {
  const script = new URL("./testdata/forward_descriptors.ts", import.meta.url).pathname;
  try {
    const { success, stdout, stderr } = await new Deno.Command("bash", {
      args: ["-c", 'ulimit -n 100; exec deno run -q -A "$0"', script],
      cwd: new URL("../", import.meta.url).pathname,
    }).output();
    const decoder = new TextDecoder();
    assertEquals([decoder.decode(stderr), decoder.decode(stdout), success], ["", "true\n1\n", true]);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("skipped: bash is not installed");
  }
});

Deno.test("forward(): an onError that fails takes neither the forwarder nor the process with it", async () => {
  let told = 0;
  const forwarder = forward({
    client: { createBidirectionalStream: () => Promise.reject(new Error("no way there")) },
    target: "127.0.0.1:9",
    onError: () => {
      told++;
      throw new Error("hook");
    },
  });
  for (let i = 1; i <= 2; i++) {
    const { io } = await dialTcp({ port: forwarder.addr.port! });
    assertEquals([await io!.read(new Uint8Array(1)).catch(() => null), told], [null, i]);
    io!.close();
  }
  await forwarder.close();
});
