/**
 * Content identifiers: CIDv1 with sha2-256, and the bare multihash in hex that the Betanet text writes
 * (HTX 1.1 §7).
 *
 * A {@linkcode CID} comes from `multiformats`, so it is the one that the rest of the ecosystem passes around.
 * Parsing is strict: what parses is spelled the one canonical way, whatever its base. Whether a hash function is
 * trusted is another question, and {@linkcode matchesCid} answers it: full-length sha2-256 alone is.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { base16 } from "multiformats/bases/base16";
import { base36 } from "multiformats/bases/base36";
import { base58btc } from "multiformats/bases/base58";
import { CID as MultiformatsCid } from "multiformats/cid";
import { create as createDigest, type Digest } from "multiformats/hashes/digest";
import { type Bytes, fromHex, HtxError, selectCrypto, timingSafeEqual, toHex } from "./_core.ts";

/** A content identifier, as `multiformats` has it: {@linkcode parseCid} and {@linkcode cidOf} make them. */
export type CID = MultiformatsCid;

/** Multicodec of raw bytes. */
export const RAW_CODEC = 0x55;
/** Multicodec of dag-pb, the codec of UnixFS files and directories. */
export const DAG_PB_CODEC = 0x70;
/** Multihash code of sha2-256. */
export const SHA2_256_CODE = 0x12;
/** Multihash code of the identity "hash", whose digest is the content. */
export const IDENTITY_CODE = 0x00;
/** Bytes that an identity CID may hold (IPIP-512): others take no more either. */
export const MAX_IDENTITY_LENGTH = 128;
/** Bytes of a sha2-256 digest. */
export const SHA2_256_LENGTH = 32;
/** Bytes of a sha2-256 multihash: code, length, digest. */
export const MULTIHASH_LENGTH: number = 2 + SHA2_256_LENGTH;

/** One block's bytes, whole or in pieces. */
export type BlockData = Uint8Array | readonly Uint8Array[];

/** `1220` and 64 hex digits: a sha2-256 multihash. */
const MULTIHASH_HEX = /^1220(?:[0-9a-f]{64}|[0-9A-F]{64})$/;
/** Longer text is no CID of ours; checked before any decoding. */
const MAX_CID_TEXT = 512;

/**
 * The CID of a block: CIDv1, sha2-256, codec raw unless another is named.
 *
 * @example
 * ```ts
 * import { cidOf, parseCid } from "@betanet/htx/bitswap";
 * import { assert } from "@std/assert";
 *
 * const cid = cidOf(new TextEncoder().encode("hello world"));
 * assert(cid.toString() === "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
 * assert(parseCid("1220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9").equals(cid));
 * ```
 */
export function cidOf(data: BlockData, codec: number = RAW_CODEC): CID {
  return MultiformatsCid.createV1(codec, sha256Multihash(sha256Of(data)));
}

/** SHA-256 of a block, whole or in pieces, by the fastest implementation that this runtime has. */
export function sha256Of(data: BlockData): Bytes {
  const crypto = selectCrypto();
  return data instanceof Uint8Array ? crypto.sha256(data) : crypto.sha256(...data);
}

/** The multihash of a 32-byte sha2-256 digest. */
export function sha256Multihash(digest: Uint8Array): Digest<typeof SHA2_256_CODE, number> {
  if (digest.length !== SHA2_256_LENGTH) {
    throw new RangeError(
      `Cannot make multihash: digest is ${digest.length} bytes, expected ${SHA2_256_LENGTH}`,
    );
  }
  return createDigest(SHA2_256_CODE, digest);
}

/**
 * Reads a CID: text in base32, base36, base58btc or base16 with its prefix, `Qm…` of version 0, the bare
 * multihash in hex, or the binary form.
 *
 * Only canonical spellings pass: minimal varints, nothing after the digest, no stray bits.
 *
 * @throws {HtxError} `MALFORMED`, field `cid`, when it is none of these
 */
export function parseCid(source: string | Uint8Array): CID {
  try {
    if (typeof source !== "string") return canonical(source, MultiformatsCid.decode(source));
    if (source.length > MAX_CID_TEXT) {
      throw new RangeError(`length is ${source.length}, limit is ${MAX_CID_TEXT}`);
    }
    if (MULTIHASH_HEX.test(source)) {
      return MultiformatsCid.createV1(RAW_CODEC, sha256Multihash(fromHex(source.toLowerCase()).subarray(2)));
    }
    return parseText(source);
  } catch (cause) {
    throw new HtxError("MALFORMED", `Cannot parse CID: ${messageOf(cause)}`, { field: "cid", cause });
  }
}

function parseText(text: string): CID {
  const cid = text.startsWith(base16.prefix)
    ? MultiformatsCid.parse(text, base16)
    : MultiformatsCid.parse(text);
  canonical(cid.bytes, MultiformatsCid.decode(cid.bytes));
  // CID.parse remembers the text it was given: only a fresh object spells it anew.
  const fresh = MultiformatsCid.decode(cid.bytes);
  if (spell(fresh, text[0]) !== text) throw new TypeError("not the canonical spelling");
  return cid;
}

function spell(cid: CID, prefix: string | undefined): string {
  if (cid.version === 0) return cid.toString();
  switch (prefix) {
    case base16.prefix:
      return cid.toString(base16.encoder);
    case base36.prefix:
      return cid.toString(base36.encoder);
    case base58btc.prefix:
      return cid.toString(base58btc.encoder);
    default:
      return cid.toString();
  }
}

function canonical(source: Uint8Array, cid: CID): CID {
  const again = MultiformatsCid.create(
    cid.version,
    cid.code,
    createDigest(cid.multihash.code, cid.multihash.digest),
  );
  if (!timingSafeEqual(source, again.bytes)) throw new TypeError("not the canonical form");
  if (cid.multihash.code === SHA2_256_CODE && cid.multihash.size > SHA2_256_LENGTH) {
    throw new RangeError(`sha2-256 digest is ${cid.multihash.size} bytes, limit is ${SHA2_256_LENGTH}`);
  }
  return cid;
}

/** The bare multihash in lower-case hex, as the Betanet text writes it: `1220…`. */
export function multihashHex(cid: CID): string {
  return toHex(cid.multihash.bytes);
}

/** The same block's CID with codec raw: what a block is called when only its bytes matter. */
export function toRawCid(cid: CID): CID {
  return cid.version === 1 && cid.code === RAW_CODEC
    ? cid
    : MultiformatsCid.createV1(RAW_CODEC, cid.multihash);
}

/**
 * A short string that is equal for CIDs of equal multihash: a key for maps. Blocks are the same block whatever
 * codec or version their CID names.
 */
export function blockKey(cid: CID): string {
  return multihashKey(cid.multihash.bytes);
}

/** {@linkcode blockKey} of a binary multihash. */
export function multihashKey(multihash: Uint8Array): string {
  return multihash.length <= 256 ? String.fromCharCode(...multihash) : toHex(multihash);
}

/**
 * {@linkcode blockKey} of a binary CID as it stands in a message; `undefined` when it is none, or is named by a
 * hash that is not trusted.
 */
export function binaryCidKey(cid: Uint8Array): string | undefined {
  // What nearly every want and presence holds: version 1, a codec of one byte, sha2-256.
  if (cid.length === 2 + MULTIHASH_LENGTH && cid[0] === 1 && cid[1]! < 0x80) {
    return sha256Key(cid.subarray(2));
  }
  if (cid.length === MULTIHASH_LENGTH) return sha256Key(cid);
  try {
    return isTrustedCid(parseCid(cid)) ? multihashKey(parseCid(cid).multihash.bytes) : undefined;
  } catch {
    return undefined;
  }
}

function sha256Key(multihash: Uint8Array): string | undefined {
  return multihash[0] === SHA2_256_CODE && multihash[1] === SHA2_256_LENGTH
    ? multihashKey(multihash)
    : undefined;
}

/** The {@linkcode blockKey} that a block with this sha2-256 digest has. */
export function digestKey(digest: Uint8Array): string {
  return SHA2_256_KEY_PREFIX + String.fromCharCode(...digest);
}

const SHA2_256_KEY_PREFIX = "\x12\x20";

/**
 * Whether a CID names its block by a hash that this library trusts: sha2-256, all 32 bytes. Identity, truncated
 * and older hashes are legal CIDs and prove nothing, or too little.
 */
export function isTrustedCid(cid: CID): boolean {
  return cid.multihash.code === SHA2_256_CODE && cid.multihash.digest.length === SHA2_256_LENGTH;
}

/** Whether the bytes are the block that the CID names (e-35). False for every hash that is not trusted. */
export function matchesCid(cid: CID, data: BlockData): boolean {
  return isTrustedCid(cid) && timingSafeEqual(sha256Of(data), cid.multihash.digest);
}

/**
 * A copy of the block that the CID itself holds (`ipfs add --inline` makes such CIDs of small blocks), `undefined` for a
 * CID that names its block by a hash. Whoever loads blocks to read them calls this first: a block that is here already is
 * asked of no store and of no peer. In stores and in the exchange (HTX 1.1 §7) identity CIDs name nothing.
 *
 * @throws {HtxError} `LIMIT_EXCEEDED`, field `cid`, when it holds more than {@linkcode MAX_IDENTITY_LENGTH} bytes
 */
export function inlineBlock({ multihash: { code, digest } }: CID): Uint8Array | undefined {
  if (code !== IDENTITY_CODE) return undefined;
  if (digest.length > MAX_IDENTITY_LENGTH) {
    throw new HtxError(
      "LIMIT_EXCEEDED",
      `Cannot take the block of a CID: its identity digest is ${digest.length} bytes, limit is ${MAX_IDENTITY_LENGTH}`,
      { field: "cid" },
    );
  }
  // Of a link the digest is a view of the block around it, a store's own perhaps.
  return digest.slice();
}

/** Total length of a block's pieces. */
export function blockLength(data: BlockData): number {
  if (data instanceof Uint8Array) return data.length;
  let length = 0;
  for (const piece of data) length += piece.length;
  return length;
}

/** A block in one array; copies only when it is in several pieces. */
export function joinBlock(data: BlockData): Uint8Array {
  if (data instanceof Uint8Array) return data;
  if (data.length === 1) return data[0]!;
  const out = new Uint8Array(blockLength(data));
  let at = 0;
  for (const piece of data) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
