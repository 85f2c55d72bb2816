/**
 * Prints what V8 allocates on its heap for HTTP exchanges, both ends together, after warm-up. A process of its own, so
 * that nothing else allocates.
 *
 * @module
 */

import { measure } from "../../../core/testdata/allocated.ts";
import { countedPair } from "../../../core/testdata/counted.ts";
import { fetchOverStream, serveHttpStream } from "../mod.ts";

/** Bytes for each. */
export interface HttpAllocations {
  /** A GET with an answer of 16 bytes. */
  readonly perGet: number;
  /** A POST of a MiB. */
  readonly perPostedMebibyte: number;
}

async function main(): Promise<HttpAllocations> {
  const big = new Uint8Array(2 ** 20);
  await using pair = countedPair((stream) =>
    serveHttpStream(stream, async (request) => {
      if (request.method === "POST") return new Response(`${(await request.arrayBuffer()).byteLength}`);
      return new Response("0123456789abcdef");
    })
  );
  const exchange = async (init: RequestInit) => {
    const stream = await pair.client.createBidirectionalStream();
    const response = await fetchOverStream(stream, new Request("http://app.example/path?query", init));
    await response.arrayBuffer();
  };
  return {
    perGet: await measure(500, () => exchange({})),
    perPostedMebibyte: await measure(60, () => exchange({ method: "POST", body: big })),
  };
}

if (import.meta.main) console.log(JSON.stringify(await main()));
