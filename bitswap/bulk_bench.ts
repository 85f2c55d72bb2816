/**
 * How fast blocks move, beside the plain stream throughput of the same session: two processes over TCP on
 * loopback, interleaved rounds, every block checked against its CID on both sides.
 *
 *     deno run -A bitswap/bulk_bench.ts [MiB per round, 256] [rounds, 5]
 *
 * @module
 */

import { connect, serveStreams } from "../transport/mod.ts";
import { concat, fromHex, toHex, utf8 } from "./_core.ts";
import { cidOf } from "./cid.ts";
import { BitswapClient } from "./client.ts";
import { type BitswapStream, peerOf, readProtocol } from "./peer.ts";
import { BitswapServer } from "./server.ts";

const BLOCK = 262_144;
const RAW = utf8("/bench/raw");

/** Blocks that differ in their first bytes; the same in both processes. */
function makeBlocks(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    const block = new Uint8Array(BLOCK).fill(7);
    new DataView(block.buffer).setUint32(0, i);
    return block;
  });
}

/** Gives back what was read to find out the protocol. */
function replay(stream: BitswapStream, read: Uint8Array): BitswapStream {
  let first: Uint8Array | undefined = read;
  return {
    read: () => {
      const now = first;
      first = undefined;
      return now === undefined ? stream.read() : Promise.resolve(now);
    },
    write: (data) => stream.write(data),
    closeWrite: () => stream.closeWrite(),
    reset: (code) => stream.reset(code),
  };
}

async function serve(mebibytes: number): Promise<void> {
  const blocks = makeBlocks(mebibytes * 4);
  const server = new BitswapServer();
  for (const block of blocks) await server.put(block);
  const listening = serveStreams(async (stream, { remoteStatic }) => {
    const protocol = await readProtocol(stream);
    if (protocol === undefined) return;
    const id = utf8(protocol.id);
    if (protocol.id !== "/bench/raw") {
      await server.onStream(replay(stream, concat(new Uint8Array([id.length]), id, protocol.rest)), {
        remoteStatic,
      });
      return;
    }
    for (const block of blocks) await stream.write(block);
    await stream.closeWrite();
  });
  console.log(JSON.stringify({ ...listening.addr, key: toHex(listening.publicKey) }));
  await Deno.stdin.readable.pipeTo(new WritableStream());
  await listening.shutdown();
}

async function measure(mebibytes: number, rounds: number): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-lock", "-A", import.meta.filename!, "serve", `${mebibytes}`],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { key, ...addr } = JSON.parse((await lines.read()).value!);
  const cids = makeBlocks(mebibytes * 4).map((block) => cidOf(block));
  {
    await using tunnel = await connect(addr, { remoteStatic: fromHex(key) });
    const raw: number[] = [];
    const exchange: number[] = [];
    const kept: number[] = [];
    for (let round = 0; round < rounds; round++) {
      raw.push(await rawRound(tunnel));
      exchange.push(await exchangeRound(new BitswapClient({ peers: [peerOf("server", tunnel)] }), cids));
      kept.push(
        await exchangeRound(
          new BitswapClient({
            peers: [peerOf("server", tunnel)],
            blockstore: new BitswapServer().blockstore,
          }),
          cids,
        ),
      );
    }
    const row = (name: string, figures: number[]): void => {
      const sorted = figures.toSorted((a, b) => a - b);
      const median = sorted[sorted.length >> 1]!;
      const ratio = median / raw.toSorted((a, b) => a - b)[raw.length >> 1]!;
      console.log(
        `${name.padEnd(34)} ${median.toFixed(0).padStart(5)} MB/s  [${sorted[0]!.toFixed(0)}-${
          sorted.at(-1)!.toFixed(0)
        }]  ${ratio.toFixed(2)} of raw`,
      );
    };
    row("raw stream", raw);
    row("blocks of 256 KiB, verified", exchange);
    row("the same, kept in memory", kept);
  }
  await lines.cancel();
  await child.stdin.close();
  await child.status;
}

async function rawRound(tunnel: Awaited<ReturnType<typeof connect>>): Promise<number> {
  const stream = await tunnel.createBidirectionalStream();
  const start = performance.now();
  await stream.write(concat(new Uint8Array([RAW.length]), RAW));
  await stream.closeWrite();
  let bytes = 0;
  for (let chunk; (chunk = await stream.read()) !== null;) bytes += chunk.length;
  return bytes / (performance.now() - start) / 1000;
}

async function exchangeRound(client: BitswapClient, cids: ReturnType<typeof cidOf>[]): Promise<number> {
  const start = performance.now();
  let bytes = 0;
  for await (const block of client.getMany(cids)) bytes += block.length;
  const elapsed = performance.now() - start;
  await client.close();
  if (bytes !== cids.length * BLOCK) throw new Error(`got ${bytes} bytes`);
  return bytes / elapsed / 1000;
}

if (import.meta.main) {
  const [first = "256", second = "5"] = Deno.args;
  if (first === "serve") await serve(Number(second));
  else await measure(Number(first), Number(second));
}
