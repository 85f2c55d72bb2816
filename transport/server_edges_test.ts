import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { connect } from "./client.ts";
import { memoryDuplexPair } from "./memory.ts";
import { serve } from "./serve.ts";
import { serveStreams } from "./server.ts";
import { dialTcp, listenTcp } from "./tcp.ts";
import { echo } from "./upstream/echo.ts";

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

Deno.test("an onListen that throws leaves no server behind", async () => {
  const listener = listenTcp({ port: 0 });
  const { port } = listener.addr;
  const onListen = () => {
    throw new RangeError("hook");
  };
  assertThrows(() => serveStreams(echo(), { listeners: [listener], onListen }), RangeError, "hook");
  await assertRejects(() => dialTcp({ port: port! }), HtxError);
});
