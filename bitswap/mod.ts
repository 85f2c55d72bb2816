/**
 * Content-addressed blocks: CIDs, verified blockstores, the exchange of blocks over HTX streams (Bitswap 1.2
 * messages), files made of blocks, and the Trustless Gateway face of a store.
 *
 * @example Serving blocks, and getting them
 * ```ts
 * import { BitswapClient, BitswapServer, peerOf } from "@betanet/htx/bitswap";
 * import { connect, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const blocks = new BitswapServer();
 * const cid = await blocks.put(new TextEncoder().encode("hello"));
 * await using server = serveStreams(blocks.onStream);
 *
 * await using tunnel = await connect(server.addr, { remoteStatic: server.publicKey });
 * await using client = new BitswapClient({ peers: [peerOf("server", tunnel)] });
 * assertEquals(new TextDecoder().decode(await client.get(cid)), "hello");
 * ```
 *
 * @module
 */

export {
  BlockNotFoundError,
  type BlockSource,
  type Blockstore,
  type BlockstoreCallOptions,
  type CorruptBlock,
  DEFAULT_MEMORY_BYTES,
  type InputPair,
  MemoryBlockstore,
  type MemoryBlockstoreOptions,
  type Pair,
  type QuarantiningBlockstore,
  VerifiedBlockstore,
  type VerifiedBlockstoreOptions,
} from "./blockstore.ts";
export {
  type BlockData,
  blockKey,
  type CID,
  cidOf,
  DAG_PB_CODEC,
  isTrustedCid,
  matchesCid,
  multihashHex,
  parseCid,
  RAW_CODEC,
  toRawCid,
} from "./cid.ts";
export * from "./client.ts";
export { type DirectoryOptions, openDirectory } from "./directory.ts";
export {
  type BlockVerdict,
  type DropReason,
  type EngineCommand,
  type PeerStats,
  WantEngine,
  type WantEngineOptions,
} from "./engine.ts";
export * from "./files.ts";
export * from "./http.ts";
export type { Ledger, LedgerOptions } from "./ledger.ts";
export * from "./message.ts";
export * from "./peer.ts";
export * from "./server.ts";
export {
  CloseCode,
  type CloseCodeName,
  HtxError,
  type HtxErrorCode,
  type HtxErrorOptions,
} from "../core/mod.ts";
