import { assertEquals, assertMatch } from "@std/assert";
import { serve } from "./serve.ts";
import { WebSocketListener } from "./websocket.ts";

const EXPECTED = [
  "crypto e3b0c442",
  "echo hello hybrid=true",
  "ticket true /p?x=1",
  "peer 12206668",
  "plan 0",
  "quic UNSUPPORTED",
  "tcp UNSUPPORTED",
  "tls UNSUPPORTED",
  "serve UNSUPPORTED",
];

/** The bundle, and a server for it to reach over a WebSocket. */
async function withBundle(
  run: (bundle: string, url: string, serverPub: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const listener = new WebSocketListener();
  const front = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request, info) => listener.upgrade(request, info),
  );
  const server = serve(async (request) => {
    const { length } = await request.bytes();
    return new Response(`${request.method} ${new URL(request.url).pathname} ${length}`);
  }, { listeners: [listener] });
  try {
    const bundle = `${folder}/rooms.js`;
    const entry = new URL("./testdata/runtimes.ts", import.meta.url);
    const { success, stderr } = await new Deno.Command("deno", {
      args: ["bundle", "-q", "--platform", "browser", "-o", bundle, entry.pathname],
      cwd: new URL("../", import.meta.url).pathname,
    }).output();
    assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
    await run(bundle, `ws://127.0.0.1:${front.addr.port}/`, server.publicKey.toHex());
  } finally {
    await server.shutdown();
    await front.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("core, noise, tickets, overlay and transport run in Node and in a Worker without Deno's APIs", async () => {
  await withBundle(async (bundle, url, serverPub) => {
    await Deno.writeTextFile(
      `${bundle}.mjs`,
      `import { smoke } from "./rooms.js";
       const url = typeof WebSocket === "undefined" ? undefined : process.argv[2];
       console.log(JSON.stringify(await smoke(url, process.argv[3])));`,
    );
    const version = await nodeVersion();
    if (version === undefined) {
      console.log("skipped: node is not installed");
    } else {
      // Node has had a WebSocket of its own since 22; before that, and without the flag, the call says that it has none.
      const flags = version < 22 ? [[], ["--experimental-websocket"]] : [[]];
      for (const [i, flag] of flags.entries()) {
        const { stdout, stderr } = await new Deno.Command("node", {
          args: ["--no-warnings", ...flag, `${bundle}.mjs`, url, serverPub],
        }).output();
        const text = new TextDecoder().decode(stdout);
        assertMatch(text, /^\[/, new TextDecoder().decode(stderr));
        const bare = version < 22 && i === 0;
        assertEquals(JSON.parse(text), [
          ...EXPECTED,
          `websocket ${bare ? "UNSUPPORTED" : "POST /tea 300000"}`,
        ]);
      }
    }

    await Deno.writeTextFile(
      `${bundle}.worker.js`,
      `delete globalThis.Deno;
       delete globalThis.process;
       addEventListener("message", async ({ data }) => {
         try {
           const { smoke } = await import("./rooms.js");
           postMessage(await smoke(data.url, data.serverPub));
         } catch (error) {
           postMessage(String(error?.stack ?? error));
         }
       });`,
    );
    const worker = new Worker(`file://${bundle}.worker.js`, { type: "module" });
    const answer = new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
    worker.postMessage({ url, serverPub });
    assertEquals(await answer, [...EXPECTED, "websocket POST /tea 300000"]);
    worker.terminate();
  });
});

/** The major version of node; `undefined` where there is none. */
async function nodeVersion(): Promise<number | undefined> {
  try {
    const { stdout } = await new Deno.Command("node", { args: ["--version"] }).output();
    return Number(/^v(\d+)/.exec(new TextDecoder().decode(stdout))?.[1]);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
