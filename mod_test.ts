import { assertEquals } from "@std/assert";
import { addFile, BitswapClient, BitswapServer, catFile, MemoryBlockstore, peerOf } from "./bitswap/mod.ts";
import { createGateway, fixedDecoy, localUpstream } from "./gateway/mod.ts";
import { KeyPair, ReplayGuard } from "./noise/mod.ts";
import { VoucherGate } from "./overlay/mod.ts";
import {
  generateTicketKey,
  MemoryReplayStore,
  TicketClient,
  TicketPolicy,
  TicketVerifier,
} from "./tickets/mod.ts";
import { connect, memoryDuplexPair, serve, serveStreams } from "./transport/mod.ts";

/** What `deno bundle` makes of these names of the entry of everything. */
async function bundleOf(names: string): Promise<string> {
  const folder = await Deno.makeTempDir();
  try {
    const entry = `${folder}/program.ts`;
    const root = new URL("./mod.ts", import.meta.url).href;
    await Deno.writeTextFile(entry, `export { ${names} } from ${JSON.stringify(root)};`);
    const { success, stdout, stderr } = await new Deno.Command("deno", {
      args: ["bundle", "-q", "--platform", "browser", "--external=libsodium", entry],
      cwd: new URL("./", import.meta.url).pathname,
    }).output();
    assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
    return new TextDecoder().decode(stdout);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a program that takes the client from the entry of everything bundles for runtimes without Node's modules", async () => {
  const text = await bundleOf("connect, dialWebSocket");
  assertEquals(text.match(/^(?:import|export) .*\bfrom "node:.*$/gm) ?? [], []);
  // What a gateway runs is not taken along: were a room of ours imported late, all that it stands on would be.
  assertEquals(text.match(/^\/\/ \S*\/gateway\/(?:run|exchange|node_front)\.ts$/gm) ?? [], []);
});

Deno.test("one function of the entry of everything brings no class of any room into a bundle, and no cryptography", async () => {
  const text = await bundleOf("encodeVarint");
  assertEquals(text.match(/^\/\/ \S*@noble\S*$/gm) ?? [], []);
  const classes =
    /\b(?:HtxSession|KeyPair|TicketPolicy|ForwardingPolicy|BytesResponse|MemoryBlockstore|VerifiedBlockstore)\b/g;
  assertEquals(text.match(classes) ?? [], []);
});

Deno.test("an option that is undefined is as if it were left out, in every room", async () => {
  const none = undefined;
  const key = generateTicketKey();
  const policy = new TicketPolicy({ carriers: none, minPad: none, maxPad: none, cookie: none });
  const replay = new MemoryReplayStore({ capacity: none });
  const verifier = new TicketVerifier({ keys: [key], replay, limiter: none, now: none, equalize: none });
  assertEquals((await verifier.verify(new TicketClient(key, { policy, carrier: none }).ticket())).ok, true);
  new ReplayGuard({ capacity: none });
  new VoucherGate({ maxParked: none, now: none });
  memoryDuplexPair({ highWaterMark: none });

  const keyPair = KeyPair.generate({ random: none });
  const limits = { maxStreamWindow: none, sendBuffer: none, rekey: { afterBytes: none } };
  await using server = serve(() => new Response("in"), {
    keyPair,
    ...limits,
    http: { limits: { headerBytes: none } },
  });
  await using client = await connect(server.addr, {
    remoteStatic: keyPair.publicKey,
    ...limits,
    signal: none,
  });
  assertEquals(await (await client.fetch("/", { signal: none, body: none })).text(), "in");
  const field = "x".repeat(70_000);
  assertEquals((await client.fetch("/", { headers: { field } })).status, 431);

  await using upstream = localUpstream(() => new Response("in"), { name: none });
  const decoy = fixedDecoy({ status: none, headers: none, body: none });
  await using gateway = createGateway({
    upstream,
    decoy,
    limits: { bodyBytes: none },
    sessions: { maxSessions: none },
  });
  const info = { remoteAddr: none, encrypted: false };
  assertEquals(await (await gateway.handler(new Request("http://localhost/"), info)).text(), "in");

  const blocks = new BitswapServer({ blockstore: new MemoryBlockstore({ maxBytes: none }), readAhead: none });
  const text = new TextEncoder().encode("a block");
  assertEquals((await blocks.put(text, { codec: none, signal: none })).code, 0x55);
  const { cid } = await addFile(blocks.blockstore, text, { profile: none, chunkSize: none, signal: none });
  await using store = serveStreams(blocks.onStream);
  await using tunnel = await connect(store.addr, { remoteStatic: store.publicKey });
  await using peer = new BitswapClient({
    peers: [peerOf("store", tunnel)],
    blockstore: none,
    stallTimeoutMs: none,
  });
  const got = await Array.fromAsync(catFile(peer, cid, { offset: none, path: none, signal: none }));
  assertEquals(got, [text]);
});

Deno.test("what the documentation of a room shows as a class, a function or a constant can be imported as one", async () => {
  const { exports } = JSON.parse(await Deno.readTextFile(new URL("./deno.json", import.meta.url)));
  const missing: string[] = [];
  let checked = 0;
  for (const [room, file] of Object.entries<string>(exports)) {
    const url = new URL(file, import.meta.url).href;
    const { stdout } = await new Deno.Command("deno", { args: ["doc", "--json", url] }).output();
    interface Symbol {
      name: string;
      declarations: { kind: string; declarationKind: string }[];
    }
    const { symbols } = JSON.parse(new TextDecoder().decode(stdout)).nodes[url] as { symbols: Symbol[] };
    const shown = symbols.filter(({ declarations }) =>
      declarations.some(({ kind, declarationKind }) =>
        ["class", "function", "variable", "enum"].includes(kind) && declarationKind === "export"
      )
    );
    const there = Object.keys(await import(url));
    for (const { name } of shown) if (!there.includes(name)) missing.push(`${room}: ${name}`);
    checked += shown.length;
  }
  assertEquals(missing, []);
  assertEquals(checked > 500, true);
});
