/**
 * Files by their content: stores them as blocks, serves the blocks through HTX, and gets them from one or more
 * servers at once.
 *
 *     deno run -R -W examples/bitswap.ts put FILE blocks
 *     deno run -N -R -W examples/bitswap.ts serve 127.0.0.1 9500 blocks
 *     deno run -N examples/bitswap.ts cat CID 127.0.0.1:9500/SERVER_PUB_HEX > copy
 *
 * Permissions: `-N` to dial and listen, `-R -W` for the directory and the file; `cat` without a directory needs `-N`
 * alone.
 *
 * @module
 */

import { decode } from "@ipld/dag-pb";
import {
  addFile,
  BitswapClient,
  BitswapServer,
  catFile,
  type CID,
  DAG_PB_CODEC,
  MemoryBlockstore,
  multihashHex,
  openDirectory,
  parseCid,
  peerOf,
  statFile,
  VerifiedBlockstore,
} from "@betanet/htx/bitswap";
import { KeyPair, publicKeyFromHex } from "@betanet/htx/noise";
import { connect, type HtxClient, serveStreams } from "@betanet/htx/transport";
import { type Arguments, Failure, main, untilStopped, UsageError } from "./_cli.ts";

const help = `
Files by their content: blocks over HTX.

Usage: bitswap.ts put FILE DIR             stores FILE as blocks in DIR, prints its CID ("-" reads standard input)
       bitswap.ts serve HOST PORT DIR      serves the blocks of DIR, prints what clients need as peer=...
       bitswap.ts get CID PEERS DIR        fetches all blocks under CID into DIR; goes on where it was broken off
       bitswap.ts cat CID PEERS [DIR]      writes the file CID to standard output; keeps its blocks in DIR if given

  PEERS   one or more peers as serve prints them, HOST:PORT/SERVER_PUB_HEX, with commas between
  CID     a CID, or the bare multihash in hex (1220...) of one that is a single raw block
  DIR     a directory of blocks, made where there is none; serve keeps its key there, readable for you alone

The result is on standard output, progress on standard error: a bar on a terminal, plain lines otherwise.
Exit status: 0 done, 1 failed (not found, no peer), 2 bad arguments.`;

/** Bytes of blocks that `cat` keeps where it is given no directory. */
const MEMORY_BYTES = 16 * 1024 * 1024;

const positional = {
  put: ["FILE", "DIR"],
  serve: ["HOST", "PORT", "DIR"],
  get: ["CID", "PEERS", "DIR"],
  cat: ["CID", "PEERS", "[DIR]"],
};

await main({ help, stays: ["serve"], positional }, async (args) => {
  switch (args.word) {
    case "put":
      return await put(args);
    case "serve":
      return await serve(args);
    case "get":
      return await get(args);
    default:
      return await cat(args);
  }
});

async function put(args: Arguments): Promise<void> {
  const name = args.text("FILE");
  const length = name === "-" ? undefined : await lengthOf(name);
  const store = await openDirectory(args.text("DIR"));
  const progress = showProgress(length);
  const content = name === "-" ? Deno.stdin.readable : (await Deno.open(name)).readable;
  const { cid } = await addFile(store, content, { onProgress: (bytes) => progress.set(bytes) });
  progress.end();
  console.log(`${cid}`);
}

async function lengthOf(file: string): Promise<number> {
  const info = await Deno.stat(file).catch((error) => {
    if (error instanceof Deno.errors.NotFound) {
      throw new Failure(`there is no file ${file}: name one that exists`);
    }
    throw error;
  });
  if (info.isDirectory) throw new Failure(`${file} is a directory: name a file`);
  return info.size;
}

async function serve(args: Arguments): Promise<void> {
  const dir = args.text("DIR");
  const blockstore = await openDirectory(dir, {
    onCorrupt: ({ cid }) => console.error(`block ${cid} went bad and was put aside`),
  });
  const blocks = new BitswapServer({ blockstore });
  const server = serveStreams(blocks.onStream, {
    hostname: args.text("HOST"),
    port: args.port("PORT"),
    keyPair: await keyOf(dir),
  });
  const { hostname = "", port } = server.addr;
  console.log(`peer=${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}/${hex(server.publicKey)}`);
  await untilStopped([server]);
  for (const { peer, blocksSent, bytesSent } of blocks.ledgers) {
    console.error(`${peer.slice(0, 16)}: ${blocksSent} blocks, ${size(bytesSent)}`);
  }
}

async function get(args: Arguments): Promise<void> {
  const root = cidOf(args);
  const blockstore = await openDirectory(args.text("DIR"));
  await using fetching = await fetchFrom(args.text("PEERS"), blockstore);
  const { type, size: total } = await statFile(fetching.client, root);
  const progress = showProgress(type === "file" ? total : undefined);
  let count = 0;
  let bytes = 0;
  const seen = new Set<string>();
  // Level by level, so that there are always many blocks to ask for at once.
  for (let level = [root]; level.length > 0;) {
    const next: CID[] = [];
    for await (const block of fetching.client.getMany(level)) {
      count++;
      progress.set(bytes += block.length);
      if (block.cid.code !== DAG_PB_CODEC) continue;
      for (const { Hash } of decode(block.bytes).Links) {
        const name = multihashHex(Hash);
        if (!seen.has(name)) next.push(Hash);
        seen.add(name);
      }
    }
    level = next;
  }
  progress.end();
  fetching.report();
  console.log(`${root}: ${count} blocks, ${bytes} bytes`);
}

async function cat(args: Arguments): Promise<void> {
  const root = cidOf(args);
  const dir = args.optional("DIR");
  // The root is read twice, and a part may occur twice: neither is fetched twice.
  const blockstore = dir === undefined
    ? new VerifiedBlockstore(new MemoryBlockstore({ maxBytes: MEMORY_BYTES, whenFull: "evict" }))
    : await openDirectory(dir);
  await using fetching = await fetchFrom(args.text("PEERS"), blockstore);
  const { size: total } = await statFile(fetching.client, root);
  const progress = showProgress(total);
  const out = Deno.stdout.writable.getWriter();
  let bytes = 0;
  for await (const piece of catFile(fetching.client, root)) {
    await out.write(piece);
    progress.set(bytes += piece.length);
  }
  progress.end();
  fetching.report();
}

function cidOf(args: Arguments): CID {
  try {
    return parseCid(args.text("CID"));
  } catch {
    throw new UsageError(`${JSON.stringify(args.text("CID"))} is no CID, nor a multihash in hex`);
  }
}

interface Fetching extends AsyncDisposable {
  readonly client: BitswapClient;
  /** Says who gave how much. */
  report(): void;
}

/** A client of all the peers that can be reached. */
async function fetchFrom(peers: string, blockstore: VerifiedBlockstore): Promise<Fetching> {
  const tunnels: HtxClient[] = [];
  const client = new BitswapClient({
    blockstore,
    onPeerDropped: ({ peer, reason }) => console.error(`${peer} is not asked any more: ${reason}`),
  });
  for (const text of peers.split(",")) {
    const match = /^\[?([^/]*?)\]?:([0-9]{1,5})\/([0-9a-fA-F]{64})$/.exec(text);
    if (match === null) throw new UsageError(`${JSON.stringify(text)} is no peer: HOST:PORT/SERVER_PUB_HEX`);
    const [, hostname = "", port, key = ""] = match;
    const address = { hostname, port: Number(port) };
    if (address.port < 1 || address.port > 65_535) {
      throw new UsageError(`${JSON.stringify(text)} is no peer: its port is none of 1 to 65535`);
    }
    try {
      const tunnel = await connect(address, { remoteStatic: publicKeyFromHex(key) });
      tunnels.push(tunnel);
      client.addPeer(peerOf(`${hostname}:${port}`, tunnel));
    } catch (error) {
      console.error(
        `${hostname}:${port} cannot be reached: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
  if (tunnels.length === 0) throw new Failure("none of the peers can be reached");
  return {
    client,
    report(): void {
      for (const { peer, blocks, bytes, duplicates } of client.peers) {
        console.error(
          `${peer}: ${blocks} blocks, ${size(bytes)}${duplicates > 0 ? `, ${duplicates} twice` : ""}`,
        );
      }
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await client.close();
      await Promise.all(tunnels.map((tunnel) => tunnel.close()));
    },
  };
}

/** The server's static key: the same at each start, so that clients which pinned it stay welcome. */
async function keyOf(dir: string): Promise<KeyPair> {
  const file = `${dir}/.key`;
  try {
    return KeyPair.fromHex((await Deno.readTextFile(file)).trim());
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const pair = KeyPair.generate();
  await Deno.writeTextFile(file, `${pair.exportPrivateHex()}\n`, { mode: 0o600, createNew: true });
  return pair;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function size(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

interface Progress {
  set(bytes: number): void;
  end(): void;
}

/** A bar on a terminal, now and then a line elsewhere. */
function showProgress(total?: number): Progress {
  const terminal = Deno.stderr.isTerminal();
  const start = performance.now();
  let last = start;
  let done = 0;
  function show(): void {
    const seconds = Math.max(0.001, (performance.now() - start) / 1000);
    const rate = `${size(done)}, ${(done / seconds / 1e6).toFixed(1)} MB/s`;
    if (!terminal) return console.error(rate);
    const text = total === undefined ? rate : `${bar(done / Math.max(1, total))} ${rate}`;
    Deno.stderr.writeSync(new TextEncoder().encode(`\r${text}\x1b[K`));
  }
  return {
    set(bytes: number): void {
      done = bytes;
      const now = performance.now();
      // Ten times a second is enough for the eye, every other second for a log.
      if (now - last < (terminal ? 100 : 2000)) return;
      last = now;
      show();
    },
    end(): void {
      show();
      if (terminal) console.error();
    },
  };
}

function bar(share: number): string {
  const width = 30;
  const done = Math.min(width, Math.round(share * width));
  return `[${"#".repeat(done)}${" ".repeat(width - done)}] ${Math.min(100, Math.round(share * 100))} %`;
}
