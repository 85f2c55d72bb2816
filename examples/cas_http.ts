/**
 * A content store with an HTTP face: PUT stores, GET and HEAD follow the IPFS Trustless Gateway specification.
 *
 *     deno run -N examples/cas_http.ts
 *     curl -T FILE http://127.0.0.1:8090/
 *     curl "http://127.0.0.1:8090/ipfs/CID?format=raw"
 *
 * Permissions: `-N` (to listen); with `--dir DIR` also read and write of DIR.
 *
 * @module
 */

import {
  type CorruptBlock,
  httpGateway,
  MemoryBlockstore,
  openDirectory,
  VerifiedBlockstore,
} from "@betanet/htx/bitswap";
import { denoFront } from "@betanet/htx/gateway";
import { httpUrl, main, untilStopped, UsageError } from "./_cli.ts";

const help = `
A content store behind HTTP: PUT /, PUT /NAME or POST / stores a body and answers with its CID, whatever the name;
GET and HEAD /ipfs/CID give raw blocks (?format=raw) and CARs (?format=car). What is not stored here is not fetched
from anywhere.

Usage: deno run -N examples/cas_http.ts [options]

  --listen ADDR     address to listen on (127.0.0.1)
  --port PORT       port to listen on, 0 for any (8090)
  --dir DIR         keeps the blocks in DIR; else they are in memory and gone with the process
  --max-body BYTES  longest body stored (1073741824)

With "?cid=multihash" a PUT answers with the bare multihash in hex, which is taken in place of a CID everywhere. It
names raw blocks only: a body above 1 MiB, which is several blocks under a root, is answered with its CID all the same.`;

const options = { listen: "127.0.0.1", port: "8090", dir: undefined, "max-body": "1073741824" };

await main({ help, options }, async (args) => {
  const dir = args.optional("--dir");
  const onCorrupt = ({ cid }: CorruptBlock): void => console.error(`block ${cid} went bad and was put aside`);
  const blockstore = dir === undefined
    ? new VerifiedBlockstore(new MemoryBlockstore(), { onCorrupt })
    : await openDirectory(dir, { onCorrupt });
  const handler = httpGateway({
    blockstore,
    writable: true,
    maxBodyBytes: byteCount(args.text("--max-body")),
    onStored: (cid, size) => console.log(`stored ${cid} (${size} bytes)`),
    onError: (error) => console.error(`store: ${error instanceof Error ? error.message : error}`),
  });
  const front = denoFront(handler, { hostname: args.text("--listen"), port: args.port("--port") });
  console.log(`store on ${httpUrl(front.addr)}/`);
  await untilStopped([front]);
});

function byteCount(text: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new UsageError(`--max-body is ${text}, not a number of bytes`);
  return Number(text);
}
