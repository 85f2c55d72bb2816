import { assert, assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { connect, dialTcp, dialWebSocket, type HttpHandler, serve } from "../transport/mod.ts";
import { over } from "./_testing.ts";
import type { GatewayOptions } from "./gateway.ts";
import { covertEndpoint, passWebSockets } from "./upgrade.ts";

/** A gateway behind a real listener. */
function listening(handler: HttpHandler, onUpgrade: GatewayOptions["onUpgrade"]) {
  const { gateway, [Symbol.asyncDispose]: end } = over(handler, { onUpgrade });
  const front = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request, info) =>
      gateway.handler(request, {
        remoteAddr: { hostname: info.remoteAddr.hostname, port: info.remoteAddr.port },
        encrypted: false,
        upgradeWebSocket: (upgraded) => Deno.upgradeWebSocket(upgraded),
      }),
  );
  return {
    url: `ws://127.0.0.1:${front.addr.port}`,
    gateway,
    [Symbol.asyncDispose]: async () => {
      await end();
      await front.shutdown();
    },
  };
}

function event(socket: WebSocket, type: "open" | "close"): Promise<Event> {
  return new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
}

Deno.test("passWebSockets() takes a browser's WebSocket to a handler of the application's, subprotocol and cookie with it", async () => {
  await using site = listening((request, info) => {
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
});

Deno.test("passWebSockets(): when the gateway stops, its WebSockets end", async () => {
  const site = listening((_request, info) => info.upgradeWebSocket().response, passWebSockets());
  const socket = new WebSocket(`${site.url}/`);
  await event(socket, "open");
  const closed = event(socket, "close");
  await site[Symbol.asyncDispose]();
  await closed;
});

for (const kind of ["ends", "relays"]) {
  Deno.test(`covertEndpoint() ${kind} the HTX session inside a WebSocket; other paths go on`, async () => {
    const inner = serve(() => new Response("inside"));
    const session = kind === "ends" ? inner : { dial: () => dialTcp({ port: inner.addr.port! }) };
    await using site = listening(
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
  });
}
