/**
 * Privacy hops: how many, and which, in a way that the other side can repeat.
 *
 *     epoch     = floor(unix / 3600)
 *     BeaconSet = drand XOR NIST v2 XOR Ethereum L1      missing ones left out; none: SHA-256("bn-fallback" ‖ K0c ‖ epoch)
 *     seed      = SHA-256(BeaconSet ‖ srcPeerID ‖ dstPeerID ‖ streamNonce)
 *     beta      = ECVRF(source's key, alpha = seed)
 *     draw i    = first 64-bit word of SHA-256(beta ‖ uint32 i) below the largest multiple of n, modulo n
 *
 * This module is browser compatible.
 *
 * @module
 */

import { getLogger } from "@logtape/logtape";
import { HtxError, selectCrypto, tell, u64be, utf8 } from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes, malformed, requireBytes } from "./_malformed.ts";
import { checkPeerId } from "./identity.ts";
import { type VrfOptions, vrfProofToHash, vrfProve, vrfVerify } from "./vrf.ts";

/** "Strict = at least 3 hops for every stream." */
export const STRICT_HOPS = 3;
/** "Balanced (default) = at least 2 …" */
export const BALANCED_HOPS = 2;
/** "… until peer trust reaches 0.8." */
export const BALANCED_TRUST = 0.8;
/** "Performance = none unless the destination is labelled `.mixreq`" – then as many as balanced has (our choice). */
export const MIXREQ_HOPS = 2;
/** "The exact set is not reused within (src, dst, epoch) until 8 distinct sets were used." */
export const DISTINCT_HOP_SETS = 8;
/** Length of a stream nonce. */
export const STREAM_NONCE_LENGTH = 16;
/** Draws after which a choice is given up: 1 in 10^7 for the worst set of 65 536 nodes. */
export const MAX_HOP_DRAWS = 1 << 20;

const SECONDS_PER_EPOCH = 3_600;
const BEACON_LENGTH = 32;
const FALLBACK_CONTEXT = /* @__PURE__ */ utf8("bn-fallback");
const WORD_RANGE = 2n ** 64n;

/** How much privacy is asked for. */
export type PrivacyMode = "strict" | "balanced" | "performance";

/** What {@linkcode requiredHops} needs to know. */
export interface HopRequest {
  /** The mode. @default {"balanced"} */
  mode?: PrivacyMode | undefined;
  /** Trust in the peer, in [0, 1]; see {@linkcode peerTrust}. @default {0} */
  trust?: number | undefined;
  /** Name of the destination; `.mixreq` at its end asks for hops. */
  destination?: string | undefined;
}

/** How many hops a stream takes at least, and why. */
export interface HopVerdict {
  /** Least number of hops. */
  readonly hops: number;
  /** The clause that decided. */
  readonly reason: "strict" | "balanced-untrusted" | "balanced-trusted" | "performance" | "mixreq";
}

/**
 * The least number of hops for a stream.
 *
 * @throws {RangeError} when trust is not in [0, 1]
 * @throws {TypeError} when the mode is none
 */
export function requiredHops(request: HopRequest = {}): HopVerdict {
  const { mode = "balanced", trust = 0, destination = "" } = request;
  if (!(trust >= 0 && trust <= 1)) {
    throw new RangeError(`Cannot choose hops: trust is ${trust}, not in [0, 1]`);
  }
  switch (mode) {
    case "strict":
      return { hops: STRICT_HOPS, reason: "strict" };
    case "balanced":
      return trust >= BALANCED_TRUST
        ? { hops: 0, reason: "balanced-trusted" }
        : { hops: BALANCED_HOPS, reason: "balanced-untrusted" };
    case "performance":
      return /\.mixreq\.?$/i.test(destination)
        ? { hops: MIXREQ_HOPS, reason: "mixreq" }
        : { hops: 0, reason: "performance" };
    default:
      throw new TypeError(`Cannot choose hops: no mode is named ${mode}`);
  }
}

/** "epoch = floor(unix / 3600)." */
export function privacyEpoch(unixSeconds: number): number {
  return Math.floor(unixSeconds / SECONDS_PER_EPOCH);
}

/** The random values of one epoch, 32 bytes each; one that could not be had is left out. */
export interface Beacons {
  /** The randomness of drand. */
  drand?: Uint8Array | undefined;
  /** The output of the NIST randomness beacon v2. */
  nist?: Uint8Array | undefined;
  /** The finalized hash of Ethereum L1. */
  ethereum?: Uint8Array | undefined;
}

/** What the fallback of {@linkcode beaconSet} is made from. */
export interface BeaconFallback {
  /** The session's first client-to-server secret, 32 bytes. */
  k0c: Uint8Array;
  /** The epoch. */
  epoch: number | bigint;
  /** Told when the fallback is used. @default a warning in the log, category `htx.overlay` */
  onFallback?: ((epoch: bigint) => void) | undefined;
}

/** The common random value of an epoch. */
export interface BeaconSet {
  /** 32 bytes. */
  readonly value: Bytes;
  /** Which beacons are in it. */
  readonly sources: readonly (keyof Beacons)[];
  /** Whether it is the fallback, which only the two ends of one session can compute. */
  readonly fallback: boolean;
}

/**
 * "BeaconSet(epoch) = XOR of the 32-byte values of drand, NIST beacon v2 and the finalized Ethereum L1 hash; missing
 * ones are left out; if all are missing, `SHA-256("bn-fallback" ‖ K0c ‖ uint64 epoch)` and the event is logged."
 *
 * @throws {HtxError} `MALFORMED` with the beacon's name as `field`, when it is not 32 bytes
 * @throws {TypeError} when all are missing and `k0c` is not 32 bytes
 */
export function beaconSet(beacons: Beacons, fallback: BeaconFallback): BeaconSet {
  const value = new Uint8Array(BEACON_LENGTH);
  const sources: (keyof Beacons)[] = [];
  for (const name of ["drand", "nist", "ethereum"] as const) {
    const beacon = beacons[name];
    if (beacon === undefined) continue;
    requireBytes(beacon, BEACON_LENGTH, "beacon", name);
    for (let i = 0; i < BEACON_LENGTH; i++) value[i]! ^= beacon[i]!;
    sources.push(name);
  }
  if (sources.length > 0) return { value, sources, fallback: false };
  const { k0c, onFallback = logFallback } = fallback;
  const epoch = BigInt(fallback.epoch);
  checkBytes(k0c, 32, "K0c");
  tell(onFallback, epoch);
  return { value: selectCrypto().sha256(FALLBACK_CONTEXT, k0c, u64be(epoch)), sources, fallback: true };
}

function logFallback(epoch: bigint): void {
  getLogger(["htx", "overlay"]).warn(
    "No beacon for epoch {epoch}: hops are drawn from the session's own secret",
    {
      epoch: String(epoch),
    },
  );
}

/** What the seed of a stream's hops is made from. */
export interface HopSeedInputs {
  /** The epoch's {@linkcode BeaconSet} value, 32 bytes. */
  beaconSet: Uint8Array;
  /** The source's peer id. */
  src: Uint8Array;
  /** The destination's peer id. */
  dst: Uint8Array;
  /** 16 fresh random bytes of the stream: without them all who see the beacons could compute the hops. */
  streamNonce: Uint8Array;
}

/**
 * "seed = SHA-256(BeaconSet ‖ srcPeerID ‖ dstPeerID ‖ streamNonce[16])."
 *
 * @throws {TypeError} when a length is wrong
 * @throws {HtxError} `MALFORMED`, field `peerId`
 */
export function hopSeed(inputs: HopSeedInputs): Bytes {
  const { beaconSet, src, dst, streamNonce } = inputs;
  checkBytes(beaconSet, BEACON_LENGTH, "beacon set");
  checkBytes(streamNonce, STREAM_NONCE_LENGTH, "stream nonce");
  return selectCrypto().sha256(beaconSet, checkPeerId(src), checkPeerId(dst), streamNonce);
}

/** An advertised mixnode, or an end of a path. */
export interface MixNode {
  /** Its peer id as text, or another unique name. */
  readonly id: string;
  /** The group of its AS. */
  readonly asGroup: string;
}

/** What the choice of hops depends on, for the one who chooses as for the one who checks. */
export interface HopRules {
  /** The advertised mixnodes, in any order. */
  nodes: readonly MixNode[];
  /** How many hops, 1 or more. */
  hops: number;
  /** The source. */
  src: MixNode;
  /** The destination. */
  dst: MixNode;
  /** The seed: see {@linkcode hopSeed}. */
  seed: Uint8Array;
  /** Sets used before by this source, for this destination and epoch. @default {[]} */
  used?: readonly (readonly string[])[] | undefined;
  /** Most draws. @default {1048576} */
  maxDraws?: number | undefined;
}

/** The hops of a stream. */
export interface HopChoice {
  /** The nodes, in the order of the path. */
  readonly hops: readonly MixNode[];
  /** The proof that lets the other side repeat every draw. */
  readonly proof: Bytes;
  /** Candidates looked at. */
  readonly draws: number;
}

/**
 * Draws the hops of a stream under the source's key.
 *
 * A candidate is passed over when it is in the set already, when it is the source or the destination, or when no set
 * that keeps all the rules could be completed with it: "at least one hop outside both the source's and the
 * destination's AS group; the exact set is not reused within (src, dst, epoch) until 8 distinct sets were used".
 *
 * @param privateKey the source's 32-byte VRF key
 * @throws {HtxError} `LIMIT_EXCEEDED`, when too few nodes are eligible: "an error, never a shorter path"
 * @throws {HtxError} `MALFORMED`, field `nodes`, when an id is advertised twice
 *
 * @example
 * ```ts
 * import { selectHops, verifyHops } from "@betanet/htx/overlay";
 * import { ed25519PublicKey } from "@betanet/htx/core";
 * import { assert } from "@std/assert";
 *
 * const privateKey = crypto.getRandomValues(new Uint8Array(32));
 * const nodes = Array.from({ length: 20 }, (_, i) => ({ id: `node ${i}`, asGroup: `group ${i % 5}` }));
 * const rules = {
 *   nodes,
 *   hops: 3,
 *   src: { id: "me", asGroup: "group 0" },
 *   dst: { id: "you", asGroup: "group 1" },
 *   seed: new Uint8Array(32),
 * };
 * const choice = selectHops(privateKey, rules);
 * const ids = choice.hops.map(({ id }) => id);
 * assert(verifyHops(ed25519PublicKey(privateKey), ids, choice.proof, rules).ok);
 * ```
 */
export function selectHops(privateKey: Uint8Array, rules: HopRules, options: VrfOptions = {}): HopChoice {
  const prepared = prepare(rules);
  const proof = vrfProve(privateKey, rules.seed, options);
  const { hops, draws } = draw(prepared, vrfProofToHash(proof, options));
  return { hops, proof, draws };
}

/** What {@linkcode verifyHops} says. */
export type HopsVerdict =
  | { readonly ok: true; readonly draws: number }
  | {
    readonly ok: false;
    readonly reason: "public-key" | "proof-encoding" | "proof" | "infeasible" | "other-hops";
  };

/**
 * Repeats the draws of {@linkcode selectHops} and compares.
 *
 * @param publicKey the source's VRF key
 * @param hops ids in the order of the path
 * @throws {HtxError} `MALFORMED`, field `nodes`, when an id is advertised twice
 */
export function verifyHops(
  publicKey: Uint8Array,
  hops: readonly string[],
  proof: Uint8Array,
  rules: HopRules,
  options: VrfOptions = {},
): HopsVerdict {
  let drawn;
  const verdict = vrfVerify(publicKey, rules.seed, proof, options);
  if (!verdict.ok) return verdict;
  try {
    drawn = draw(prepare(rules), verdict.beta);
  } catch (error) {
    if (error instanceof HtxError && error.code === "LIMIT_EXCEEDED") {
      return { ok: false, reason: "infeasible" };
    }
    throw error;
  }
  const same = drawn.hops.length === hops.length && drawn.hops.every(({ id }, i) => id === hops[i]);
  return same ? { ok: true, draws: drawn.draws } : { ok: false, reason: "other-hops" };
}

/** Remembers the sets of hops used per (source, destination, epoch), as far as the rule needs them. */
export class HopHistory {
  readonly #sets = new Map<string, string[][]>();
  #epoch = -Infinity;
  readonly #limit: number;

  /**
   * Makes an empty history.
   *
   * @param limit most pairs of source and destination; past it `record` throws. @default {65536}
   * @throws {RangeError} when the limit is below 1
   */
  constructor(limit: number = 65_536) {
    if (!(limit >= 1)) throw new RangeError(`Cannot make hop history: the limit is ${limit}`);
    this.#limit = limit;
  }

  /** The sets used so far: what `used` of {@linkcode HopRules} wants. */
  used(src: string, dst: string, epoch: number): readonly (readonly string[])[] {
    return epoch === this.#epoch ? this.#sets.get(JSON.stringify([src, dst])) ?? [] : [];
  }

  /**
   * Notes a set as used. An epoch past the one known forgets the earlier; the one before it is not noted. At one further
   * back the clock was set, and the history begins anew there.
   *
   * @throws {HtxError} `LIMIT_EXCEEDED` when the history is full
   * @throws {RangeError} when the epoch is no number
   */
  record(src: string, dst: string, epoch: number, hops: readonly string[]): void {
    if (!Number.isFinite(epoch)) throw new RangeError(`Cannot record hops: the epoch is ${epoch}`);
    if (epoch === this.#epoch - 1) return;
    if (epoch !== this.#epoch) {
      this.#sets.clear();
      this.#epoch = epoch;
    }
    const key = JSON.stringify([src, dst]);
    const sets = this.#sets.get(key) ?? [];
    if (sets.length >= DISTINCT_HOP_SETS || sets.some((set) => hopSetKey(set) === hopSetKey(hops))) return;
    if (sets.length === 0 && this.#sets.size >= this.#limit) {
      throw new HtxError("LIMIT_EXCEEDED", `Cannot record hops: the history holds ${this.#limit} pairs`);
    }
    this.#sets.set(key, [...sets, [...hops]]);
  }
}

interface Prepared {
  /** Advertised nodes, sorted by id. */
  readonly nodes: readonly MixNode[];
  readonly hops: number;
  readonly isEligible: (node: MixNode) => boolean;
  /** Outside both ends' AS groups. */
  readonly isOutside: (node: MixNode) => boolean;
  readonly eligible: number;
  readonly eligibleInside: number;
  /** Used sets that bind: those that the rules would allow otherwise. */
  readonly used: readonly ReadonlySet<string>[];
  readonly maxDraws: number;
}

function prepare(rules: HopRules): Prepared {
  const { hops, src, dst, used = [], maxDraws = MAX_HOP_DRAWS } = rules;
  if (!Number.isInteger(hops) || hops < 1) throw new RangeError(`Cannot choose hops: ${hops} hops`);
  const inOrder = rules.nodes.every(({ id }, i, all) => i === 0 || all[i - 1]!.id < id);
  const nodes = inOrder ? [...rules.nodes] : rules.nodes.toSorted((a, b) => compareText(a.id, b.id));
  for (const [i, { id }] of nodes.entries()) {
    if (i > 0 && nodes[i - 1]!.id === id) throw malformed("mixnodes", "nodes", "holds an id twice");
  }
  const isEligible = ({ id }: MixNode) => id !== src.id && id !== dst.id;
  const isOutside = ({ asGroup }: MixNode) => asGroup !== src.asGroup && asGroup !== dst.asGroup;
  const eligible = nodes.filter(isEligible);
  const named = new Set(used.flat());
  const byId = new Map(eligible.filter(({ id }) => named.has(id)).map((node) => [node.id, node]));
  const distinct = new Map(used.map((set) => [hopSetKey(set), new Set(set)]));
  // "… until 8 distinct sets were used": from then on any may come again.
  const binding = distinct.size >= DISTINCT_HOP_SETS ? [] : [...distinct.values()].filter((set) => {
    const members = [...set].map((id) => byId.get(id));
    return set.size === hops && members.every((node) => node !== undefined) && members.some(isOutside);
  });
  return {
    nodes,
    hops,
    isEligible,
    isOutside,
    eligible: eligible.length,
    eligibleInside: eligible.filter((node) => !isOutside(node)).length,
    used: binding,
    maxDraws,
  };
}

function draw(rules: Prepared, beta: Uint8Array): { hops: MixNode[]; draws: number } {
  const { nodes, hops, isEligible, maxDraws } = rules;
  const chosen: MixNode[] = [];
  if (!isCompletable(rules, chosen)) {
    throw new HtxError(
      "LIMIT_EXCEEDED",
      `Cannot choose ${hops} hops: too few eligible nodes (${rules.eligible})`,
    );
  }
  const crypto = selectCrypto();
  const size = BigInt(nodes.length);
  const limit = WORD_RANGE - WORD_RANGE % size;
  for (let i = 0; i < maxDraws; i++) {
    const digest = crypto.sha256(beta, uint32(i));
    const view = new DataView(digest.buffer, digest.byteOffset, digest.byteLength);
    for (let at = 0; at < digest.length; at += 8) {
      const word = view.getBigUint64(at);
      if (word >= limit) continue;
      const candidate = nodes[Number(word % size)]!;
      if (
        isEligible(candidate) && !chosen.includes(candidate) && isCompletable(rules, [...chosen, candidate])
      ) {
        chosen.push(candidate);
      }
      break;
    }
    if (chosen.length === hops) return { hops: chosen, draws: i + 1 };
  }
  throw new HtxError("LIMIT_EXCEEDED", `Cannot choose ${hops} hops: not found in ${maxDraws} draws`);
}

/** Whether some set that keeps all the rules holds all of `chosen`: counted, not searched. */
function isCompletable(rules: Prepared, chosen: readonly MixNode[]): boolean {
  const { hops, isOutside, eligible, eligibleInside, used } = rules;
  const missing = hops - chosen.length;
  const inside = chosen.filter((node) => !isOutside(node)).length;
  let sets = choose(eligible - chosen.length, missing);
  // Without one outside yet, those that add none from outside do not count.
  if (inside === chosen.length) sets -= choose(eligibleInside - inside, missing);
  const spent = used.filter((set) => chosen.every(({ id }) => set.has(id))).length;
  return sets > BigInt(spent);
}

function choose(n: number, k: number): bigint {
  if (k > n) return 0n;
  let ways = 1n;
  for (let i = 1; i <= k; i++) ways = ways * BigInt(n - k + i) / BigInt(i);
  return ways;
}

function hopSetKey(set: readonly string[]): string {
  return JSON.stringify([...new Set(set)].sort());
}

/** By UTF-16 code units: for hexadecimal ids the order of the bytes. */
function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function uint32(n: number): Bytes {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, n);
  return out;
}
