/**
 * Names: ids that certify themselves, and aliases that chains or a quorum make final.
 *
 *     betanet://<64 hex of SHA-256(service public key)>[/resource]
 *     betanet1 pk=<64 hex> seq=<u64> sig=<base64> exp=<unix seconds>
 *
 * Times are in Unix seconds.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  copyOf,
  ed25519Sign,
  ed25519Verify,
  fromHex,
  selectCrypto,
  timingSafeEqual,
  toHex,
  utf8,
} from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes, malformed } from "./_malformed.ts";
import { type QuorumCertificate, type QuorumRefusal, verifyQuorumCertificate } from "./certificate.ts";
import type { Condition } from "./governance.ts";

/** "Handshake (12 confirmations and no reorg for 1 h)." */
export const HANDSHAKE_CONFIRMATIONS = 12;
/** "… no reorg for 1 h", in seconds. */
export const HANDSHAKE_QUIET_SECONDS = 3_600;
/** "Valid when the same payload hash is final on 2 of 3 chains." */
export const FINAL_CHAINS = 2;
/** "Emergency advance: only after fewer than 2 chains gave finality for 14 days", in seconds. */
export const EMERGENCY_SECONDS = 14 * 86_400;

const KEY_LENGTH = 32;
const HASH_LENGTH = 32;
const MAX_URI_LENGTH = 8_192;
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const URI = /^betanet:\/\/([0-9a-f]{64})(?:\/([\x21-\x7e]*))?$/;

/** A self-certifying id, with the resource behind it. */
export interface ServiceUri {
  /** SHA-256 of the service's public key: 32 bytes. */
  readonly id: Bytes;
  /** What follows the slash after the id; absent without a slash. */
  readonly resource?: string;
}

/** What {@linkcode verifyServiceKey} says. */
export type ServiceKeyVerdict = { readonly ok: true } | { readonly ok: false; readonly reason: "other-key" };

/**
 * Reads `betanet://<64 hex>[/resource]`: lower case, and printable ASCII without blanks in the resource.
 *
 * @throws {HtxError} `MALFORMED`, field `uri`
 *
 * @example
 * ```ts
 * import { formatServiceUri, parseServiceUri, serviceId, verifyServiceKey } from "@betanet/htx/overlay";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const publicKey = new Uint8Array(32);
 * const text = formatServiceUri({ id: serviceId(publicKey), resource: "index.html" });
 * const uri = parseServiceUri(text);
 * assertEquals(uri.resource, "index.html");
 * assert(verifyServiceKey(uri, publicKey).ok);
 * ```
 */
export function parseServiceUri(text: string): ServiceUri {
  const match = text.length > MAX_URI_LENGTH ? null : URI.exec(text);
  if (!match) throw malformed("service id", "uri", "is not betanet://<64 lower-case hex>[/resource]");
  const [, id, resource] = match;
  return { id: fromHex(id!), ...(resource === undefined ? {} : { resource }) };
}

/**
 * Writes what {@linkcode parseServiceUri} reads.
 *
 * @throws {TypeError} when it could not be read back
 */
export function formatServiceUri(uri: ServiceUri): string {
  checkBytes(uri.id, HASH_LENGTH, "service id");
  const text = `betanet://${toHex(uri.id)}${uri.resource === undefined ? "" : `/${uri.resource}`}`;
  if (text.length > MAX_URI_LENGTH || !URI.test(text)) {
    throw new TypeError("Cannot format service id: the resource is not printable ASCII without blanks");
  }
  return text;
}

/** The id of a service: SHA-256 of its public key. */
export function serviceId(publicKey: Uint8Array): Bytes {
  checkBytes(publicKey, KEY_LENGTH, "service key");
  return selectCrypto().sha256(publicKey);
}

/** Tells whether a presented key is the one that an id certifies. */
export function verifyServiceKey(uri: ServiceUri, publicKey: Uint8Array): ServiceKeyVerdict {
  const same = publicKey.length === KEY_LENGTH && timingSafeEqual(uri.id, serviceId(publicKey));
  return same ? { ok: true } : { ok: false, reason: "other-key" };
}

/** An alias record. */
export interface AliasRecord {
  /** Public key that owns the alias: 32 bytes. */
  readonly pk: Bytes;
  /** Version: grows with each record of the key. */
  readonly seq: bigint;
  /** Signature of {@linkcode aliasPayload}: 64 bytes. */
  readonly sig: Bytes;
  /** When the record ends, in Unix seconds: it is good before, not at, that time. */
  readonly exp: bigint;
}

/** The fields in their order, each with what its text must look like. */
const ALIAS_FIELDS = [
  ["pk", /^[0-9a-f]{64}$/],
  ["seq", /^(?:0|[1-9][0-9]{0,19})$/],
  // 64 bytes: 86 digits, the last with four zero bits, and two signs of padding.
  ["sig", /^[A-Za-z0-9+/]{85}[AQgw]==$/],
  ["exp", /^(?:0|[1-9][0-9]{0,19})$/],
] as const;
const ALIAS_MAGIC = "betanet1";

/**
 * Reads one line: "strict parser: order, single spaces, ranges, no extra fields". No line end.
 *
 * @throws {HtxError} `MALFORMED`, field `pk`, `seq`, `sig`, `exp`, or `alias` for the line as a whole
 */
export function parseAlias(line: string): AliasRecord {
  const [magic, ...parts] = line.split(" ", ALIAS_FIELDS.length + 2);
  if (magic !== ALIAS_MAGIC) {
    throw malformed("alias record", "alias", `does not begin with "${ALIAS_MAGIC} "`);
  }
  const values: string[] = [];
  for (const [i, [name, pattern]] of ALIAS_FIELDS.entries()) {
    const part = parts[i];
    if (!part?.startsWith(`${name}=`)) throw malformed("alias record", name, "is not in its place");
    const value = part.slice(name.length + 1);
    if (!pattern.test(value)) throw malformed("alias record", name, "is not in its one spelling");
    values.push(value);
  }
  if (parts.length > ALIAS_FIELDS.length) throw malformed("alias record", "alias", "has extra fields");
  const [pk, seq, sig, exp] = values as [string, string, string, string];
  return {
    pk: fromHex(pk),
    seq: u64(seq, "seq"),
    sig: Uint8Array.from(atob(sig), (char) => char.charCodeAt(0)),
    exp: u64(exp, "exp"),
  };
}

/** Writes the line that {@linkcode parseAlias} reads. */
export function formatAlias(record: AliasRecord): string {
  checkBytes(record.sig, 64, "alias signature");
  const { pk, seq, exp } = texts(record);
  return `${ALIAS_MAGIC} pk=${pk} seq=${seq} sig=${btoa(String.fromCharCode(...record.sig))} exp=${exp}`;
}

/** What is signed: "the signature covers the line without its `sig=` field". */
export function aliasPayload(record: Omit<AliasRecord, "sig">): Bytes {
  const { pk, seq, exp } = texts(record);
  return utf8(`${ALIAS_MAGIC} pk=${pk} seq=${seq} exp=${exp}`);
}

/** What chains and quorums make final: SHA-256 of {@linkcode aliasPayload} (our choice). */
export function aliasPayloadHash(record: Omit<AliasRecord, "sig">): Bytes {
  return selectCrypto().sha256(aliasPayload(record));
}

/** Signs a record with the 32-byte private key of `pk`. */
export function signAlias(fields: Omit<AliasRecord, "sig">, privateKey: Uint8Array): AliasRecord {
  const { pk, seq, exp } = fields;
  return { pk: copyOf(pk), seq, sig: ed25519Sign(aliasPayload(fields), privateKey), exp };
}

/** A chain that makes records final. */
export type ChainName = "handshake" | "filecoin" | "ethereum-l2";

/** What one chain says of a payload. */
export type ChainEvidence =
  | {
    readonly chain: "handshake";
    /** The payload found there. */
    readonly payloadHash: Uint8Array;
    /** Blocks on top of it, its own included. */
    readonly confirmations: number;
    /** Time without a reorganisation, in seconds. */
    readonly quietSeconds: number;
  }
  | {
    readonly chain: "filecoin" | "ethereum-l2";
    /** The payload found there. */
    readonly payloadHash: Uint8Array;
    /** Whether the chain calls it finalized. */
    readonly finalized: boolean;
  };

/** What {@linkcode evaluateFinality} says. */
export type FinalityVerdict =
  | { readonly ok: true }
  | {
    readonly ok: false;
    readonly reason: "confirmations" | "reorg" | "not-finalized" | "unknown-chain";
  };

/**
 * Judges evidence by the chain's own rule: "Handshake (12 confirmations and no reorg for 1 h)", the others finalized. A
 * chain that is none of the three, as untyped evidence can name one, makes nothing final.
 */
export function evaluateFinality(evidence: ChainEvidence): FinalityVerdict {
  switch (evidence.chain) {
    case "handshake":
      if (!(evidence.confirmations >= HANDSHAKE_CONFIRMATIONS)) return { ok: false, reason: "confirmations" };
      if (!(evidence.quietSeconds >= HANDSHAKE_QUIET_SECONDS)) return { ok: false, reason: "reorg" };
      return { ok: true };
    case "filecoin":
    case "ethereum-l2":
      return evidence.finalized ? { ok: true } : { ok: false, reason: "not-finalized" };
    default:
      return { ok: false, reason: "unknown-chain" };
  }
}

/** The chains on which a payload is final, each once. */
export function finalChains(payloadHash: Uint8Array, evidence: readonly ChainEvidence[]): ChainName[] {
  const chains = evidence.filter((item) =>
    timingSafeEqual(item.payloadHash, payloadHash) && evaluateFinality(item).ok
  );
  return [...new Set(chains.map(({ chain }) => chain))];
}

/** What is known of one key's alias; `undefined` where nothing is. */
export interface AliasState {
  /** The record in force. */
  readonly record: AliasRecord;
  /** What made it so. */
  readonly via: "finality" | "emergency";
  /** Epoch of the last quorum certificate accepted for the key; lower ones are refused. */
  readonly epoch: bigint;
}

/** What decides about a record. */
export interface AliasFacts {
  /** The time, in Unix seconds. */
  now: number;
  /** What chains say of the record. @default {[]} */
  evidence?: readonly ChainEvidence[] | undefined;
  /** For an emergency advance. */
  emergency?: {
    /** When each chain last made anything final, in Unix seconds; absent = never. */
    lastFinality: Partial<Readonly<Record<ChainName, number>>>;
    /** The quorum's certificate for the record. */
    certificate: QuorumCertificate;
    /** Effective weights by public key in lower-case hexadecimal. */
    weights: ReadonlyMap<string, number>;
  } | undefined;
}

/** A condition of a record. */
export type AliasConditionName = "signature" | "not-expired" | "seq" | "finality" | "outage" | "quorum";

/** Why a record is refused: the first condition that failed. */
export type AliasRefusal =
  | "other-key"
  | "signature"
  | "expired"
  | "seq"
  | "not-final"
  | "no-outage"
  | QuorumRefusal;

/** The verdict on a record. */
export type AliasVerdict =
  | {
    readonly ok: true;
    /** What is in force now. */
    readonly state: AliasState;
    readonly conditions: readonly Condition<AliasConditionName>[];
  }
  | {
    readonly ok: false;
    readonly reason: AliasRefusal;
    /** What stays in force. */
    readonly state: AliasState | undefined;
    readonly conditions: readonly Condition<AliasConditionName>[];
  };

/**
 * Judges a record against what is in force for its key.
 *
 * "Valid when the same payload hash is final on 2 of 3 chains. seq grows strictly per pk; on conflict the higher final seq
 * wins; expired records are refused. Emergency advance: only after fewer than 2 chains gave finality for 14 days, and
 * with a quorum certificate over the payload hash of at least 67 % of effective weight. When finality resumes, the first
 * final record with seq at or above supersedes it."
 *
 * The seq in force never falls, and stays remembered when its record has expired. Two final records of one seq (a key
 * that signs two things) are a matter of which came first: the second is refused.
 */
export function evaluateAlias(
  state: AliasState | undefined,
  record: AliasRecord,
  facts: AliasFacts,
): AliasVerdict {
  const { now, evidence = [], emergency } = facts;
  const conditions: Condition<AliasConditionName>[] = [];
  const refuse = (reason: AliasRefusal): AliasVerdict => ({ ok: false, reason, state, conditions });
  if (state && !timingSafeEqual(state.record.pk, record.pk)) return refuse("other-key");

  const payload = aliasPayload(record);
  const signed = ed25519Verify(record.sig, payload, record.pk);
  conditions.push({ name: "signature", value: Number(signed), relation: ">=", bound: 1, held: signed });
  if (!signed) return refuse("signature");

  const fresh = !isExpired(record, now);
  conditions.push({
    name: "not-expired",
    value: Number(record.exp),
    relation: ">",
    bound: now,
    held: fresh,
  });
  if (!fresh) return refuse("expired");

  const payloadHash = selectCrypto().sha256(payload);
  const chains = finalChains(payloadHash, evidence).length;
  const final = chains >= FINAL_CHAINS;
  // Strictly above; "at or above" when finality meets an emergency record.
  const least = state === undefined
    ? 0n
    : final && state.via === "emergency"
    ? state.record.seq
    : state.record.seq + 1n;
  const grows = record.seq >= least;
  conditions.push({
    name: "seq",
    value: Number(record.seq),
    relation: ">=",
    bound: Number(least),
    held: grows,
  });
  if (!grows) return refuse("seq");

  conditions.push({ name: "finality", value: chains, relation: ">=", bound: FINAL_CHAINS, held: final });
  const epoch = state?.epoch ?? 0n;
  if (final) return { ok: true, state: { record, via: "finality", epoch }, conditions };
  if (!emergency) return refuse("not-final");

  const outage = outageSeconds(emergency.lastFinality, now);
  const silent = outage >= EMERGENCY_SECONDS;
  conditions.push({ name: "outage", value: outage, relation: ">=", bound: EMERGENCY_SECONDS, held: silent });
  if (!silent) return refuse("no-outage");

  const { certificate, weights } = emergency;
  const quorum = verifyQuorumCertificate(certificate, { payloadHash, weights, minEpoch: epoch });
  conditions.push({ name: "quorum", value: quorum.share ?? 0, relation: ">=", bound: 0.67, held: quorum.ok });
  if (!quorum.ok) return refuse(quorum.reason);
  return { ok: true, state: { record, via: "emergency", epoch: certificate.epoch }, conditions };
}

/** What an alias stands for now. */
export type AliasResolution =
  | { readonly ok: true; readonly record: AliasRecord; readonly via: AliasState["via"] }
  | { readonly ok: false; readonly reason: "unknown" | "expired" };

/** What is in force for a key: "expired records are refused" also when they were good once. */
export function resolveAlias(state: AliasState | undefined, now: number): AliasResolution {
  if (!state) return { ok: false, reason: "unknown" };
  if (isExpired(state.record, now)) return { ok: false, reason: "expired" };
  return { ok: true, record: state.record, via: state.via };
}

/** How long fewer than 2 chains have given finality: since the second latest did. `Infinity` when fewer than 2 ever did. */
function outageSeconds(lastFinality: Partial<Readonly<Record<ChainName, number>>>, now: number): number {
  const times = (["handshake", "filecoin", "ethereum-l2"] as const).map((chain) =>
    lastFinality[chain] ?? -Infinity
  );
  if (times.some(Number.isNaN)) {
    throw new RangeError("Cannot evaluate alias: a time of finality is no number");
  }
  return now - times.sort((a, b) => b - a)[FINAL_CHAINS - 1]!;
}

/** Compared as whole numbers: exp may be past 2^53. */
function isExpired(record: AliasRecord, now: number): boolean {
  return BigInt(Math.floor(now)) >= record.exp;
}

function u64(text: string, field: string): bigint {
  const value = BigInt(text);
  if (value > U64_MAX) throw malformed("alias record", field, "is above 2^64-1");
  return value;
}

function texts(record: Omit<AliasRecord, "sig">): { pk: string; seq: bigint; exp: bigint } {
  checkBytes(record.pk, KEY_LENGTH, "alias key");
  for (const value of [record.seq, record.exp]) {
    if (value < 0n || value > U64_MAX) {
      throw new RangeError("Cannot use alias record: a number in it is no uint64");
    }
  }
  return { pk: toHex(record.pk), seq: record.seq, exp: record.exp };
}
