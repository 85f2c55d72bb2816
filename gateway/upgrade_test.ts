import { assert, assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import {
  connect,
  dialTcp,
  dialWebSocket,
  type Duplex,
  type HttpHandler,
  memoryDuplexPair,
  serve,
} from "../transport/mod.ts";
import { generateTicketKey, makeTicket, MemoryRateLimiter } from "../tickets/mod.ts";
import { closeUnlessOpened } from "./_opening.ts";
import { over, raw, until } from "./_testing.ts";
import { decoyAlone, fixedDecoy } from "./decoy.ts";
import { parseConfig } from "./config.ts";
import { denoFront } from "./front.ts";
import { createGateway, type Gateway, type GatewayOptions } from "./gateway.ts";
import { localUpstream } from "./local.ts";
import { nodeFront } from "./node_front.ts";
import { runGateway } from "./run.ts";
import { covertEndpoint, passWebSockets } from "./upgrade.ts";

type MakeFront = typeof denoFront | typeof nodeFront;

/** A test of what holds behind both fronts. */
function behindBoth(name: string, test: (make: MakeFront) => Promise<void>): void {
  for (const make of [denoFront, nodeFront]) Deno.test(`${name} (${make.name})`, () => test(make));
}

/** A front of a gateway, which ends by itself once the gateway has. */
async function behind(make: MakeFront, gateway: Gateway) {
  const front = await make(gateway.handler, { port: 0 });
  return {
    url: `ws://127.0.0.1:${front.addr.port}`,
    [Symbol.asyncDispose]: () => front.shutdown(),
  };
}

/** A gateway over an upstream of `handler`, behind a real listener. */
async function listening(
  make: MakeFront,
  handler: HttpHandler,
  onUpgrade: GatewayOptions["onUpgrade"],
  limits: GatewayOptions["limits"] = {},
) {
  const { gateway, ask, [Symbol.asyncDispose]: end } = over(handler, { onUpgrade, limits });
  const front = await behind(make, gateway);
  return {
    url: front.url,
    gateway,
    ask,
    [Symbol.asyncDispose]: async () => {
      await end();
      await front[Symbol.asyncDispose]();
    },
  };
}

function event(socket: WebSocket, type: "open" | "close"): Promise<Event> {
  return new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
}

behindBoth(
  "passWebSockets() takes a browser's WebSocket to a handler of the application's, subprotocol and cookie with it",
  async (make) => {
    await using site = await listening(make, (request, info) => {
      if (new URL(request.url).pathname !== "/chat") return new Response("no", { status: 403 });
      const { socket, response } = info.upgradeWebSocket({ protocol: "b" });
      socket.onmessage = ({ data }) => socket.send(`${data}!`);
      response.headers.append("set-cookie", "seen=1");
      return response;
    }, passWebSockets());
    const socket = new WebSocket(`${site.url}/chat`, ["a", "b"]);
    await event(socket, "open");
    assertEquals(socket.protocol, "b");
    const answer = new Promise((resolve) => socket.onmessage = ({ data }) => resolve(data));
    socket.send("hello");
    assertEquals(await answer, "hello!");
    const closed = event(socket, "close");
    socket.close(4001, "bye");
    await closed;
    const refused = new WebSocket(`${site.url}/other`);
    refused.onerror = (error) => error.preventDefault();
    await event(refused, "close");
    assertEquals(refused.protocol, "");
  },
);

behindBoth(
  "passWebSockets(): a WebSocket goes to another upstream where the first cannot be reached, or hangs",
  async (make) => {
    for (const how of ["refused", "silent"] as const) {
      const upstreams = ["a", "b"].map((name) =>
        localUpstream((_request, info) => {
          const { socket, response } = info.upgradeWebSocket();
          socket.onmessage = ({ data }) => socket.send(`${name}: ${data}`);
          return response;
        }, { name })
      );
      const lost = new Set<string>();
      const never = Promise.withResolvers<never>();
      const gateway = createGateway({
        upstream: upstreams.map(({ name, publicKey, dial }) => ({
          name,
          publicKey,
          dial: async (options) => {
            if (!lost.has(name!)) return await dial!(options);
            if (how === "refused") throw new HtxError("CONNECT_FAILED", "refused");
            return await never.promise;
          },
        })),
        onUpgrade: passWebSockets(),
      });
      await using site = await behind(make, gateway);
      await until(() => gateway.stats.upstreams.every((one) => one.state === "validated"));
      const active = gateway.stats.upstreams.find((one) => one.active)!.name;
      lost.add(active);
      await upstreams.find((one) => one.name === active)!.server.shutdown({ graceMs: 0 });
      await until(() => gateway.stats.upstreams.every((one) => one.name !== active || one.sessions === 0));
      const socket = new WebSocket(`${site.url}/`);
      socket.onerror = (error) => error.preventDefault();
      assertEquals((await Promise.race([event(socket, "open"), event(socket, "close")])).type, "open");
      const answer = new Promise((resolve) => socket.onmessage = ({ data }) => resolve(data));
      socket.send("hello");
      assertEquals(await answer, `${active === "a" ? "b" : "a"}: hello`);
      const closed = event(socket, "close");
      socket.close();
      await closed;
      await gateway.close();
      for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
    }
  },
);

behindBoth(
  "passWebSockets(): an answer with a control character in a field is 502, accepted or not",
  async (make) => {
    for (const accept of [false, true]) {
      await using site = await listening(make, (_request, info) => {
        const response = accept ? info.upgradeWebSocket().response : new Response("no", { status: 403 });
        response.headers.append("set-cookie", "a=\x01");
        return response;
      }, passWebSockets());
      const { port } = new URL(site.url);
      const answer = await raw(
        Number(port),
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" +
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
      );
      assertEquals(answer.split("\r\n", 1)[0], "HTTP/1.1 502 Bad Gateway");
      assertEquals(site.gateway.metrics.outcomes["upstream-malformed"], 1);
    }
  },
);

Deno.test("passWebSockets(): an answer that opens none is under the limits of any answer until it ends", async () => {
  let [cancelled, pulling] = [0, 0];
  await using site = over((request) => {
    let left = request.url.endsWith("/short") ? 2 : Infinity;
    const body = new ReadableStream({
      pull: async (controller) => {
        pulling++;
        await new Promise((resolve) => setTimeout(resolve));
        pulling--;
        controller.enqueue(new Uint8Array(3));
        if (--left === 0) controller.close();
      },
      cancel: () => {
        cancelled++;
      },
    }, { highWaterMark: 0 });
    return new Response(body, { status: 403, headers: [["set-cookie", "a=1"], ["set-cookie", "b=2"]] });
  }, { onUpgrade: passWebSockets(), limits: { idleTimeoutMs: 200, concurrentRequests: 1 } });
  const { outcomes } = site.gateway.metrics;
  const ask = (path: string) => site.ask(path, shakingHands);

  const short = await ask("/short");
  assertEquals([short.status, short.headers.getSetCookie()], [403, ["a=1", "b=2"]]);
  assertEquals(site.gateway.metrics.active, 1);
  const full = await ask("/full");
  assertEquals(full.status, 503);
  await full.body?.cancel();
  assertEquals((await short.bytes()).length, 6);
  assertEquals([site.gateway.metrics.active, outcomes.upgraded], [0, 1]);

  const idle = await ask("/idle"); // nobody reads it
  await until(() => outcomes.cut === 1);
  await assertRejects(() => idle.bytes(), HtxError);
  const gone = await ask("/gone");
  await gone.body!.cancel();
  assertEquals(outcomes["client-gone"], 1);
  await until(() => cancelled === 2);

  const running = await ask("/running");
  const reader = running.body!.getReader();
  await reader.read();
  const stopping = site.gateway.shutdown({ graceMs: 100 });
  await assertRejects(async () => {
    while (!(await reader.read()).done);
  }, HtxError);
  await stopping;
  await until(() => cancelled === 3 && pulling === 0); // a cancel does not wait for a pull
  assertEquals([site.gateway.metrics.active, outcomes.cut], [0, 2]);
});

const HANDSHAKE = new TextEncoder().encode(
  "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
);

behindBoth("passWebSockets(): clients that leave during the handshake keep no place", async (make) => {
  const gate = Promise.withResolvers<void>();
  let asked = 0;
  await using site = over(async (request, info) => {
    if (request.url.endsWith("/plain")) return new Response("plain");
    asked++;
    await gate.promise;
    return info.upgradeWebSocket().response;
  }, { onUpgrade: passWebSockets() });
  await using front = await make(site.gateway.handler, { port: 0 });
  const conns: Deno.Conn[] = [];
  for (let i = 0; i < 20; i++) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: front.addr.port });
    await conn.write(HANDSHAKE);
    conns.push(conn);
  }
  await until(() => asked === 20);
  for (const conn of conns) conn.close();
  for (let i = 0; i < 5; i++) { // round trips, so that the front has seen them go
    await (await fetch(`http://127.0.0.1:${front.addr.port}/plain`)).text();
  }
  gate.resolve();
  await until(() => site.gateway.metrics.active === 0 && site.gateway.stats.upstreams[0]!.streams === 0);
});

Deno.test("closeUnlessOpened() ends a WebSocket that is about to open for ever, and no other", async () => {
  for (const answered of [() => Promise.resolve(), () => Promise.reject(new Error("gone"))]) {
    const ends: number[] = [];
    const sockets = ["stays", "opens", "is open"].map((fate, i) => {
      const socket = Object.assign(new EventTarget(), {
        readyState: fate === "is open" ? WebSocket.OPEN : WebSocket.CONNECTING,
        close: () => {},
      });
      socket.addEventListener("close", (event) => {
        assert(event instanceof CloseEvent && event.code === 1006);
        ends.push(i);
      });
      closeUnlessOpened(socket, answered(), 20);
      return socket;
    });
    await new Promise((resolve) => setTimeout(resolve));
    sockets[1]!.dispatchEvent(new Event("open"));
    await until(() => ends.length > 0);
    assertEquals(ends, [0]);
  }
});

behindBoth("passWebSockets(): when the gateway stops, its WebSockets end", async (make) => {
  const site = await listening(make, (_request, info) => info.upgradeWebSocket().response, passWebSockets());
  const socket = new WebSocket(`${site.url}/`);
  await event(socket, "open");
  const closed = event(socket, "close");
  await site[Symbol.asyncDispose]();
  await closed;
});

/** A request for a WebSocket to a gateway without a front, whose upgrade comes too late or never. */
const shakingHands = {
  headers: { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" },
  info: {
    upgradeWebSocket: () => {
      throw new Error("upgraded after all");
    },
  },
};

Deno.test("passWebSockets(): a handshake that takes too long, whose client leaves or whose gateway stops resets its stream", async () => {
  for (
    const [why, status] of [["upstream-slow", 504], ["client-gone", 499], ["stopping", 503]] as const
  ) {
    const [begun, aborted] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await using site = over((request) => {
      request.signal.addEventListener("abort", () => aborted.resolve());
      begun.resolve();
      return aborted.promise.then(() => new Response());
    }, {
      onUpgrade: passWebSockets(),
      limits: { responseTimeoutMs: why === "upstream-slow" ? 100 : 0 },
    });
    const client = new AbortController();
    const asking = site.ask("/", { ...shakingHands, signal: client.signal });
    await begun.promise;
    assertEquals(site.gateway.metrics.active, 1);
    if (why === "client-gone") client.abort();
    if (why === "stopping") site.gateway.close();
    const response = await asking;
    await response.body?.cancel();
    await aborted.promise;
    assertEquals(response.status, status);
    const { outcomes, active } = site.gateway.metrics;
    assertEquals([outcomes[why], outcomes.upgraded, active], [1, 0, 0]);
  }
});

behindBoth(
  "handshakes and open WebSockets count among concurrentRequests, and a WebSocket until it ends",
  async (make) => {
    const gate = Promise.withResolvers<void>();
    await using site = await listening(
      make,
      async (request, info) => {
        if (request.headers.get("upgrade") === null) return new Response("page");
        if (request.url.endsWith("/slow")) await gate.promise;
        return info.upgradeWebSocket().response;
      },
      passWebSockets(),
      { concurrentRequests: 2 },
    );
    const open = new WebSocket(`${site.url}/`);
    await event(open, "open");
    const slow = new WebSocket(`${site.url}/slow`);
    await until(() => site.gateway.metrics.active === 2);
    const refused = await site.ask("/");
    assertEquals([refused.status, refused.headers.get("retry-after")], [503, "1"]);
    await refused.body?.cancel();
    gate.resolve();
    await event(slow, "open");
    assertEquals(site.gateway.metrics.active, 2);
    for (const socket of [open, slow]) {
      const closed = event(socket, "close");
      socket.close();
      await closed;
    }
    await until(() => site.gateway.metrics.active === 0);
    assertEquals(await (await site.ask("/")).text(), "page");
  },
);

Deno.test("closeUnlessOpened() leaves a WebSocket alone that opened while the process was busy, and closes one that opens too late", async () => {
  const told: string[] = [];
  const connecting = (name: string) => {
    const socket = Object.assign(new EventTarget(), {
      readyState: WebSocket.CONNECTING,
      close: () => void told.push(`${name} is closed`),
    });
    socket.addEventListener("close", () => told.push(`${name} has ended`));
    closeUnlessOpened(socket, Promise.resolve(), 20);
    return socket;
  };
  const busy = connecting("busy");
  await Promise.resolve();
  setTimeout(() => busy.dispatchEvent(new Event("open")), 21);
  for (const end = performance.now() + 40; performance.now() < end;);
  await new Promise((resolve) => setTimeout(resolve, 30));
  assertEquals(told, []);
  const late = connecting("late");
  await until(() => told.length > 0);
  late.dispatchEvent(new Event("open"));
  assertEquals(told, ["late has ended", "late is closed"]);
});

Deno.test("covertEndpoint() ends what it dialed where the WebSocket cannot be upgraded, be it web streams alone", async () => {
  const ended: string[] = [];
  const far: Duplex = {
    readable: new ReadableStream({ cancel: () => void ended.push("readable") }),
    writable: new WritableStream({ abort: () => void ended.push("writable") }),
  };
  await using site = over(() => new Response(), {
    onUpgrade: covertEndpoint({ path: "/live", session: { dial: () => Promise.resolve(far) } }),
  });
  const response = await site.ask("/live", shakingHands);
  await response.body?.cancel();
  assertEquals([response.status >= 500, ended], [true, ["readable", "writable"]]);
});

Deno.test("covertEndpoint() is answered 504 where its dial hangs, and a dial that comes later is closed", async () => {
  const far = Promise.withResolvers<Duplex>();
  const closed = Promise.withResolvers<void>();
  const [duplex] = memoryDuplexPair();
  await using site = over(() => new Response("application"), {
    onUpgrade: covertEndpoint({ path: "/live", session: { dial: () => far.promise } }),
    limits: { responseTimeoutMs: 100 },
  });
  const response = await site.ask("/live", shakingHands);
  assertEquals(response.status, 504);
  await response.body?.cancel();
  far.resolve({ ...duplex, close: () => closed.resolve() });
  await closed.promise;
});

for (const kind of ["ends", "relays"]) {
  behindBoth(
    `covertEndpoint() ${kind} the HTX session inside a WebSocket; other paths go on`,
    async (make) => {
      const inner = serve(() => new Response("inside"));
      const session = kind === "ends" ? inner : { dial: () => dialTcp({ port: inner.addr.port! }) };
      await using site = await listening(
        make,
        (_request, info) => info.upgradeWebSocket().response,
        covertEndpoint({ path: "/live", session, next: passWebSockets() }),
      );
      const client = await connect(({ signal }) => dialWebSocket(`${site.url}/live?x=1`, { signal }), {
        remoteStatic: inner.publicKey,
      });
      const [connection] = client.connections;
      assert(connection!.handshake.hybrid); // with the inner server's key, whoever stands in front
      const bodies = Array.from({ length: 8 }, () => client.fetch("/").then((response) => response.text()));
      assertEquals(new Set(await Promise.all(bodies)), new Set(["inside"]));
      await client.close();
      const other = new WebSocket(`${site.url}/elsewhere`);
      await event(other, "open");
      const closed = event(other, "close");
      other.close();
      await closed;
      await inner.shutdown();
      if (kind === "relays") {
        // Nobody listens there any more: the endpoint refuses like any other failing upstream.
        const error = await assertRejects(() => dialWebSocket(`${site.url}/live`), HtxError);
        assertEquals(error.code, "CONNECT_FAILED");
      }
    },
  );
}

const ticketKey = generateTicketKey();

const admission: GatewayOptions["admission"] = {
  verifier: {
    keys: [ticketKey],
    limiter: new MemoryRateLimiter({ perMinute: 1e6, burst: 1e6 }),
    carriers: ["cookie", "query", "body"],
  },
  session: { keys: [new Uint8Array(32).fill(9)] },
};

/** What a prober sends to an address that may or may not hold something. */
function probes(): [string, string][] {
  const handshake = [
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
  ];
  const ask = (line: string, fields: string[] = [], rest = "") =>
    `${line} HTTP/1.1\r\n${
      ["host: site.example", ...fields].map((field) => `${field}\r\n`).join("")
    }\r\n${rest}`;
  const noise = String.fromCharCode(4, 0xe0, ...Array.from({ length: 1248 }, (_, i) => i % 128));
  const stranger = generateTicketKey();
  return [
    ["a page", ask("GET /live")],
    ["a head", ask("HEAD /live")],
    ["options", ask("OPTIONS /live")],
    ["a post", ask("POST /live", ["content-length: 5"], "hello")],
    ["an upgrade", ask("GET /live", handshake)],
    ["an upgrade elsewhere", ask("GET /elsewhere", handshake)],
    ["an upgrade by POST", ask("POST /live", [...handshake, "content-length: 0"])],
    ["an upgrade with subprotocols", ask("GET /live", [...handshake, "sec-websocket-protocol: htx"])],
    ["an upgrade without a key", ask("GET /live", handshake.slice(0, 3))],
    ["an upgrade of version 8", ask("GET /live", [...handshake.slice(0, 2), "sec-websocket-version: 8"])],
    ["h2c", ask("GET /live", ["connection: Upgrade", "upgrade: h2c"])],
    [
      "h2c with a body",
      ask("POST /live", ["connection: Upgrade", "upgrade: h2c", "content-length: 5"], "hello"),
    ],
    [
      "h2c and a request behind it",
      ask("GET /live", ["connection: Upgrade", "upgrade: h2c"], ask("GET /live")),
    ],
    ["an upgrade and a request behind it", ask("GET /live", handshake, ask("GET /live"))],
    ["a query that is no ticket", ask("GET /live?bn1=AAAA", handshake)],
    ["a stranger's ticket", ask(`GET /live?bn1=${makeTicket(stranger)}`, handshake)],
    [
      "a stranger's ticket in a cookie",
      ask("GET /live", [...handshake, `cookie: __Host-bn1=${makeTicket(stranger)}`]),
    ],
    ["a forged session", ask("GET /live", [...handshake, "cookie: __Host-bns=AAAA; bns=AAAA"])],
    ["a handshake of HTX behind the upgrade", ask("GET /live", handshake, noise)],
    ["a WebSocket frame behind the upgrade", ask("GET /live", handshake, "\x82\x80abcd")],
    ["garbage behind a request", ask("GET /live", [], "\x00\x01 nonsense\r\n\r\n")],
    ["two requests", ask("GET /live") + ask("GET /live", handshake)],
    ["a handshake of HTX alone", noise],
    ["half a request", "GET /live HTTP/1.1\r\nhost: site.exa"],
    ["half an upgrade", ask("GET /live", handshake).slice(0, -2)],
    ["nothing", ""],
  ];
}

Deno.test("e-41: without a ticket the covert endpoint is the decoy, byte for byte, whatever is sent", async () => {
  const inner = serve(() => new Response("inside"));
  const decoy = fixedDecoy({ status: 200, body: "an ordinary site\n" });
  const probed = [denoFront, nodeFront].map(async (make) => {
    await using site = over(() => new Response("application"), {
      admission,
      decoy,
      onUpgrade: covertEndpoint({ path: "/live", session: inner, next: passWebSockets() }),
    });
    await using front = await make(site.gateway.handler, { port: 0 });
    await using alone = await make(decoyAlone(decoy), { port: 0 });
    const dated = (text: string) => text.replaceAll(/date: [^\r]+/gi, "date: -");
    await Promise.all(
      probes().map(async ([name, bytes]) => {
        const [ours, theirs] = await Promise.all([
          raw(front.addr.port, bytes, 120),
          raw(alone.addr.port, bytes, 120),
        ]);
        assertEquals([name, dated(ours)], [name, dated(theirs)]);
      }),
    );
    assertEquals(site.upstream.server.connections.size, 0);
  });
  await Promise.all(probed);
  assertEquals(inner.connections.size, 0);
  await inner.shutdown();
});

behindBoth(
  "e-29, e-41: a ticket opens the covert endpoint once; the same request again is shown the decoy",
  async (make) => {
    const inner = serve(() => new Response("inside"));
    await using site = over(() => new Response("application"), {
      admission,
      decoy: fixedDecoy({ status: 200, body: "an ordinary site\n" }),
      onUpgrade: covertEndpoint({ path: "/live", session: inner }),
    });
    await using front = await make(site.gateway.handler, { port: 0 });
    const url = `ws://127.0.0.1:${front.addr.port}/live?bn1=${makeTicket(ticketKey)}`;
    const client = await connect(({ signal }) => dialWebSocket(url, { signal }), {
      remoteStatic: inner.publicKey,
    });
    assertEquals(await (await client.fetch("/")).text(), "inside");
    const again = await assertRejects(() => dialWebSocket(url), HtxError);
    assertEquals(again.code, "CONNECT_FAILED");
    await client.close();
    await inner.shutdown();
  },
);

behindBoth(
  "[websocket] of gateway.toml: a session inside a WebSocket reaches the server that it names",
  async (make) => {
    const inner = serve(() => new Response("through both"));
    const running = await runGateway(parseConfig(
      `[listen]\nport = 0\nfront = "${
        make === denoFront ? "deno" : "node"
      }"\n[websocket]\ncovert_path = "/live"\ncovert_upstream = "127.0.0.1:${inner.addr.port}"\n`,
    ));
    const url = `ws://127.0.0.1:${running.front.addr.port}/live`;
    const client = await connect(({ signal }) => dialWebSocket(url, { signal }), {
      remoteStatic: inner.publicKey,
    });
    assertEquals(await (await client.fetch("/")).text(), "through both");
    await client.close();
    await running.shutdown();
    await inner.shutdown();
  },
);
