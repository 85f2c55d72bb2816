/** Helpers for the tests of this folder; nothing here is exported from the package. */

/** Vectors that lie beside the checkout; `undefined`, with a visible line, where they do not. */
export function sharedVectors<T>(name: string): T | undefined {
  const url = new URL(`../../shared/vectors/${name}`, import.meta.url);
  try {
    return JSON.parse(Deno.readTextFileSync(url)) as T;
  } catch {
    console.warn(`skipped: ${name} is not beside this checkout`);
    return undefined;
  }
}

/** Whether the long rows run. */
export function longRun(): boolean {
  return Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
    Deno.env.get("HTX_LONG") === "1";
}

import { identity } from "multiformats/hashes/identity";
import { CID as MultiformatsCid } from "multiformats/cid";
import type { BitswapPeer, BitswapStream } from "./peer.ts";
import { HtxError } from "./_core.ts";
import { type CID, RAW_CODEC } from "./cid.ts";
import type { Blockstore, MemoryBlockstore } from "./blockstore.ts";
import { BitswapServer } from "./server.ts";

/** Longest chunk that a read gives: what an HTX frame holds. */
const CHUNK = 65_535;
/** Bytes that may wait in one direction before writes do. */
const ROOM = 1 << 20;

class Pipe {
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #ended = false;
  #error: HtxError | undefined;
  #wake = Promise.withResolvers<void>();

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      if (this.#error) throw this.#error;
      const chunk = this.#chunks.shift();
      if (chunk) {
        this.#bytes -= chunk.length;
        this.#notify();
        return chunk;
      }
      if (this.#ended) return null;
      await this.#wake.promise;
    }
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#error) throw this.#error;
    for (let at = 0; at < data.length; at += CHUNK) this.#chunks.push(data.slice(at, at + CHUNK));
    this.#bytes += data.length;
    this.#notify();
    while (this.#bytes > ROOM && !this.#error) await this.#wake.promise;
    if (this.#error) throw this.#error;
  }

  end(): void {
    this.#ended = true;
    this.#notify();
  }

  fail(error: HtxError): void {
    this.#error ??= error;
    this.#notify();
  }
}

/** Two ends of a stream in memory, with back-pressure and resets. */
export function streamPair(): [BitswapStream, BitswapStream] {
  const there = new Pipe();
  const back = new Pipe();
  const end = (input: Pipe, output: Pipe): BitswapStream => ({
    read: () => input.read(),
    write: (data) => output.write(data),
    closeWrite: () => Promise.resolve(output.end()),
    reset: (code = "CANCELLED") => {
      input.fail(new HtxError(code, "Stream was reset"));
      output.fail(new HtxError(code, "Stream was reset", { remote: true }));
    },
  });
  return [end(back, there), end(there, back)];
}

/** A peer whose streams are handled in this process. */
export function memoryPeer(id: string, handle: (stream: BitswapStream) => unknown): BitswapPeer {
  return {
    id,
    openStream(signal) {
      signal.throwIfAborted();
      const [mine, theirs] = streamPair();
      handle(theirs);
      return Promise.resolve(mine);
    },
  };
}

/** Blocks that differ, of any size; the same for the same seed. */
export function testBlocks(count: number, length: number, seed = 0): Uint8Array[] {
  const base = new Uint8Array(length);
  let state = seed + 1;
  for (let i = 0; i < length; i++) {
    state = Math.imul(state, 1_664_525) + 1_013_904_223 | 0;
    base[i] = state >>> 24;
  }
  return Array.from({ length: count }, (_, i) => {
    const block = base.slice();
    new DataView(block.buffer).setUint32(0, i);
    return block;
  });
}

/** The CID that holds the block itself. */
export function identityCid(block: Uint8Array, codec: number = RAW_CODEC): CID {
  return MultiformatsCid.createV1(codec, identity.digest(block));
}

/** {@linkcode memoryPeer} of a server, which knows the other side as `client`. */
export function peerOf(id: string, server: BitswapServer): BitswapPeer {
  return memoryPeer(id, (stream) => void server.handleStream(stream, { peer: "client" }));
}

/** A server that has the blocks. */
export async function serverWith(blocks: readonly Uint8Array[]): Promise<BitswapServer> {
  const server = new BitswapServer();
  for (const block of blocks) await server.put(block);
  return server;
}

/** `inner`, but for how it is read. */
export function storeWith(inner: MemoryBlockstore, get: Blockstore["get"]): Blockstore {
  return {
    has: (cid) => inner.has(cid),
    put: (cid, block) => inner.put(cid, block),
    get,
    delete: (cid) => inner.delete(cid),
    putMany: (source) => inner.putMany(source),
    getMany: (source) => inner.getMany(source),
    deleteMany: (source) => inner.deleteMany(source),
    getAll: () => inner.getAll(),
  };
}
