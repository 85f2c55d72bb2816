/**
 * Payments: vouchers that a mint of several signers issued, checked without asking it.
 *
 *     voucher (128 bytes) = keysetId[32] ‖ secret[32] ‖ aggregateSig[64]
 *     keysetId            = SHA-256(sorted member public keys, joined)
 *     aggregateSig        = Ed25519 under the keyset's group key over the secret (FROST, RFC 9591)
 *
 * Money is bigint, in sat.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type BucketRate, Buckets, checkRate } from "./_buckets.ts";
import { groupBy } from "./_collections.ts";
import {
  ByteCollector,
  concat,
  copyOf,
  ed25519Verify,
  selectCrypto,
  timingSafeEqual,
  toHex,
} from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes, malformed } from "./_malformed.ts";
import { POW_MIN_BITS, type ProofOfWorkVerdict, verifyProofOfWork } from "./pow.ts";

/** "Voucher: 128 bytes." */
export const VOUCHER_LENGTH = 128;
/** "A mint has n >= 5 …" */
export const MINT_MIN_MEMBERS = 5;
/** "… t = 3." */
export const MINT_THRESHOLD = 3;
/** "Settlement is due from 10 000 sat." */
export const SETTLEMENT_SAT = 10_000n;
/** "Mint adverts carry at least 22 bits of proof of work." */
export const MINT_ADVERT_BITS: number = POW_MIN_BITS;

const KEY_LENGTH = 32;
const ID_LENGTH = 32;
const SECRET_LENGTH = 32;
const MAX_SPENT = 1_048_576;
const MAX_PARKED = 1_024;
/** Ours, as the rules name no time. */
const PARKED_MS = 3_600_000;
const MAX_BUCKETS = 65_536;
/** Vouchers a second, ours, as the rules name no numbers. */
const KEYSET_RATE: BucketRate = { burst: 1_000, perSecond: 100 };
const PEER_RATE: BucketRate = { burst: 50, perSecond: 5 };

/** A voucher; it is worth nothing before {@linkcode VoucherGate.accept} says so. */
export interface Voucher {
  /** The mint's keyset: 32 bytes. */
  readonly keysetId: Bytes;
  /** What makes it one of its kind: 32 bytes. Who has voucher and secret can spend it. */
  readonly secret: Bytes;
  /** The mint's signature: 64 bytes. */
  readonly aggregateSig: Bytes;
}

/**
 * Reads 128 bytes as a voucher. Nothing is verified by this.
 *
 * @throws {HtxError} `MALFORMED`, field `voucher`, at any other length
 */
export function parseVoucher(bytes: Uint8Array): Voucher {
  if (bytes.length !== VOUCHER_LENGTH) {
    throw malformed("voucher", "voucher", `is ${bytes.length} bytes, not ${VOUCHER_LENGTH}`);
  }
  return {
    keysetId: copyOf(bytes.subarray(0, ID_LENGTH)),
    secret: copyOf(bytes.subarray(ID_LENGTH, ID_LENGTH + SECRET_LENGTH)),
    aggregateSig: copyOf(bytes.subarray(ID_LENGTH + SECRET_LENGTH)),
  };
}

/** The bytes of a voucher. */
export function encodeVoucher(voucher: Voucher): Bytes {
  checkBytes(voucher.keysetId, ID_LENGTH, "keyset id");
  checkBytes(voucher.secret, SECRET_LENGTH, "voucher secret");
  checkBytes(voucher.aggregateSig, 64, "voucher signature");
  return concat(voucher.keysetId, voucher.secret, voucher.aggregateSig);
}

/** The signers of a mint, and the key they make together. */
export interface Keyset {
  /** SHA-256 of the sorted members: 32 bytes. */
  readonly id: Bytes;
  /** The members' public keys, sorted. */
  readonly members: readonly Bytes[];
  /** The key under which their joint signatures verify: 32 bytes. */
  readonly groupKey: Bytes;
}

/** What {@linkcode makeKeyset} says. */
export type KeysetVerdict =
  | { readonly ok: true; readonly keyset: Keyset }
  | { readonly ok: false; readonly reason: "too-few-members" | "duplicate-member" | "threshold" };

/** "keysetId = SHA-256(sorted member public keys, concatenated)." */
export function keysetId(members: readonly Uint8Array[]): Bytes {
  for (const member of members) checkBytes(member, KEY_LENGTH, "member key");
  const joined = new ByteCollector(members.length * KEY_LENGTH);
  for (const member of sorted(members)) joined.push(member); // as arguments, as many as an advert may name fit no stack
  return selectCrypto().sha256(joined.take());
}

/**
 * Makes a keyset of what a mint advertises: "a mint has n >= 5, t = 3".
 *
 * The id is made from the members alone: that the group key is theirs is for whoever lists the keyset to know.
 *
 * @throws {TypeError} when a key is not 32 bytes
 */
export function makeKeyset(
  members: readonly Uint8Array[],
  groupKey: Uint8Array,
  threshold: number = MINT_THRESHOLD,
): KeysetVerdict {
  checkBytes(groupKey, KEY_LENGTH, "group key");
  const id = keysetId(members);
  if (new Set(members.map(toHex)).size < members.length) return { ok: false, reason: "duplicate-member" };
  if (members.length < MINT_MIN_MEMBERS) return { ok: false, reason: "too-few-members" };
  if (threshold !== MINT_THRESHOLD) return { ok: false, reason: "threshold" };
  return { ok: true, keyset: { id, members: sorted(members), groupKey: copyOf(groupKey) } };
}

/** What {@linkcode verifyVoucher} says. */
export type VoucherSignatureVerdict = { readonly ok: true } | {
  readonly ok: false;
  readonly reason: "other-keyset" | "signature";
};

/** Checks a voucher's signature under its keyset's group key; whether it was spent is for {@linkcode VoucherGate}. */
export function verifyVoucher(voucher: Voucher, keyset: Keyset): VoucherSignatureVerdict {
  if (!timingSafeEqual(voucher.keysetId, keyset.id)) return { ok: false, reason: "other-keyset" };
  return ed25519Verify(voucher.aggregateSig, voucher.secret, keyset.groupKey)
    ? { ok: true }
    : { ok: false, reason: "signature" };
}

/** Settings of a {@linkcode VoucherGate}. */
export interface VoucherGateOptions {
  /** Keysets accepted from the start; more by `addKeyset`. @default {[]} */
  keysets?: readonly Keyset[] | undefined;
  /** Clock in ms. @default {Date.now} */
  now?: (() => number) | undefined;
  /** Secrets remembered as spent; when there are more, vouchers are refused. @default {1048576} */
  maxSpent?: number | undefined;
  /** Vouchers of unknown keysets kept for later; 0 keeps none. @default {1024} */
  maxParked?: number | undefined;
  /** How long they are kept, in ms; whoever still has one may present it again. @default {3600000} */
  parkedMs?: number | undefined;
  /** Token bucket of each keyset. @default {{ burst: 1000, perSecond: 100 }} */
  keysetRate?: BucketRate | undefined;
  /** Token bucket of each peer. @default {{ burst: 50, perSecond: 5 }} */
  peerRate?: BucketRate | undefined;
}

/** What {@linkcode VoucherGate.accept} says. */
export type VoucherVerdict =
  | { readonly ok: true; readonly voucher: Voucher }
  | {
    readonly ok: false;
    readonly reason: "unknown-keyset" | "signature" | "spent" | "peer-rate" | "keyset-rate" | "store-full";
    /** Whether it was kept until its keyset is known. */
    readonly parked: boolean;
  };

/** A voucher that waited for its keyset. */
export interface ParkedVoucher {
  /** Who presented it. */
  readonly peer: string;
  /** What became of it. */
  readonly verdict: VoucherVerdict;
}

/**
 * Takes vouchers: "accepted only for known keysets; unknown ones may be parked for later validation (bounded); buckets
 * per keyset and per peer; a secret is spent once".
 *
 * Checking and spending are one step, without anything in between. A secret counts as spent whatever keyset it comes
 * with next. The memory of spent secrets is never shortened: what outlives the process is the caller's, through
 * `spent` and `markSpent`.
 *
 * Where no more can be parked, the peer with the most gives up its oldest for a peer that has fewer: nobody can close
 * parking for the others alone, nor for longer than `parkedMs` with many names.
 *
 * @example
 * ```ts
 * import { VoucherGate } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const gate = new VoucherGate();
 * assertEquals(gate.accept(new Uint8Array(128), "peer"), { ok: false, reason: "unknown-keyset", parked: true });
 * ```
 */
export class VoucherGate {
  readonly #keysets = new Map<string, Keyset>();
  readonly #spent = new Set<string>();
  /** By their bytes, the oldest first. */
  readonly #parked = new Map<string, Parked>();
  readonly #now: () => number;
  readonly #maxSpent: number;
  readonly #maxParked: number;
  readonly #parkedMs: number;
  readonly #ofKeyset: Buckets;
  readonly #ofPeer: Buckets;

  /**
   * Makes a gate.
   *
   * @throws {RangeError} when an option is out of its range
   */
  constructor(options: VoucherGateOptions = {}) {
    const {
      keysets = [],
      now = Date.now,
      maxSpent = MAX_SPENT,
      maxParked = MAX_PARKED,
      parkedMs = PARKED_MS,
      keysetRate = KEYSET_RATE,
      peerRate = PEER_RATE,
    } = options;
    for (const [name, value] of Object.entries({ maxSpent, maxParked })) {
      if (!(value >= 0)) throw new RangeError(`Cannot make voucher gate: ${name} is ${value}`);
    }
    if (!(parkedMs > 0)) throw new RangeError(`Cannot make voucher gate: parkedMs is ${parkedMs}`);
    this.#now = now;
    this.#maxSpent = maxSpent;
    this.#maxParked = maxParked;
    this.#parkedMs = parkedMs;
    this.#ofKeyset = new Buckets(checkRate(keysetRate, "keyset rate"), MAX_BUCKETS);
    this.#ofPeer = new Buckets(checkRate(peerRate, "peer rate"), MAX_BUCKETS);
    for (const keyset of keysets) this.#keysets.set(toHex(keyset.id), keyset);
  }

  /** Vouchers that wait for their keyset. */
  get parked(): number {
    this.#expire(this.#now());
    return this.#parked.size;
  }

  /** Secrets spent, in lower-case hexadecimal, in the order they were. */
  spent(): IterableIterator<string> {
    return this.#spent.values();
  }

  /** Notes a secret as spent: what an earlier process remembered. */
  markSpent(secret: string): void {
    if (!/^[0-9a-f]{64}$/.test(secret)) {
      throw new TypeError("Cannot mark spent: not 64 lower-case hexadecimal digits");
    }
    this.#spent.add(secret);
  }

  /**
   * Judges a voucher, and spends it if it is good.
   *
   * @param peer who presents it: any name, for its bucket
   * @throws {HtxError} `MALFORMED`, field `voucher`, when it is not 128 bytes; `INTERNAL_ERROR` when the clock gives no number
   */
  accept(bytes: Uint8Array, peer: string): VoucherVerdict {
    const voucher = parseVoucher(bytes);
    const now = this.#now();
    // Cheap checks before the signature.
    if (!this.#ofPeer.take(peer, now)) return refusal("peer-rate");
    if (this.#spent.has(toHex(voucher.secret))) return refusal("spent");
    const id = toHex(voucher.keysetId);
    const keyset = this.#keysets.get(id);
    if (keyset) return this.#ofKeyset.take(id, now) ? this.#spend(voucher, keyset) : refusal("keyset-rate");
    return {
      ok: false,
      reason: "unknown-keyset",
      parked: this.#park(toHex(bytes), { voucher, peer, at: now }),
    };
  }

  /** Accepts a keyset from now on, and judges what waited for it, in the order it came. */
  addKeyset(keyset: Keyset): ParkedVoucher[] {
    this.#keysets.set(toHex(keyset.id), keyset);
    this.#expire(this.#now());
    const judged: ParkedVoucher[] = [];
    for (const [key, { voucher, peer }] of this.#parked) {
      if (!timingSafeEqual(voucher.keysetId, keyset.id)) continue;
      this.#parked.delete(key);
      judged.push({ peer, verdict: this.#spend(voucher, keyset) });
    }
    return judged;
  }

  /** Accepts a keyset no longer. What was spent stays spent. */
  removeKeyset(id: Uint8Array): void {
    this.#keysets.delete(toHex(id));
  }

  /** Whether it is kept, or was already. */
  #park(key: string, parked: Parked): boolean {
    this.#expire(parked.at);
    if (this.#parked.has(key)) return true;
    if (this.#parked.size >= this.#maxParked && !this.#makeRoom(parked.peer)) return false;
    this.#parked.set(key, parked);
    return true;
  }

  /** What was parked as far ahead goes too: the clock was set back. */
  #expire(now: number): void {
    if (!Number.isFinite(now)) return; // a clock that fails is no reason to lose them
    for (const [key, { at }] of this.#parked) {
      if (Math.abs(now - at) < this.#parkedMs) break;
      this.#parked.delete(key);
    }
  }

  /** Drops the oldest of the peer that has most, if `peer` with one more still has fewer than that. */
  #makeRoom(peer: string): boolean {
    const ofPeer = groupBy(this.#parked, ([, { peer }]) => peer);
    const most = [...ofPeer.values()].reduce((most, own) => own.length > most.length ? own : most, []);
    const oldest = most[0];
    if (!oldest || (ofPeer.get(peer)?.length ?? 0) + 1 >= most.length) return false;
    this.#parked.delete(oldest[0]);
    return true;
  }

  #spend(voucher: Voucher, keyset: Keyset): VoucherVerdict {
    const secret = toHex(voucher.secret);
    if (this.#spent.has(secret)) return refusal("spent");
    if (!verifyVoucher(voucher, keyset).ok) return refusal("signature");
    if (this.#spent.size >= this.#maxSpent) return refusal("store-full");
    this.#spent.add(secret);
    return { ok: true, voucher };
  }
}

interface Parked {
  readonly voucher: Voucher;
  readonly peer: string;
  /** When it was, in ms. */
  readonly at: number;
}

function refusal(reason: Extract<VoucherVerdict, { ok: false }>["reason"]): VoucherVerdict {
  return { ok: false, reason, parked: false };
}

/** What {@linkcode settlementDue} says. */
export interface SettlementVerdict {
  /** Whether settlement is due. */
  readonly due: boolean;
  /** What is owed, in sat. */
  readonly owed: bigint;
  /** From what on it is due, in sat. */
  readonly bound: bigint;
}

/**
 * "Settlement is due from 10 000 sat."
 *
 * @throws {RangeError} when the sum is negative
 */
export function settlementDue(owedSat: bigint): SettlementVerdict {
  if (owedSat < 0n) throw new RangeError("Cannot settle: the sum is negative");
  return { due: owedSat >= SETTLEMENT_SAT, owed: owedSat, bound: SETTLEMENT_SAT };
}

/**
 * Checks the work in a mint's advert: "mint adverts carry at least 22 bits of proof of work".
 *
 * @param advert the bytes advertised, without the nonce
 */
export function verifyMintAdvert(advert: Uint8Array, nonce: Uint8Array): ProofOfWorkVerdict {
  return verifyProofOfWork(advert, nonce, MINT_ADVERT_BITS);
}

function sorted(keys: readonly Uint8Array[]): Bytes[] {
  return keys.map(copyOf).sort((a, b) => toHex(a) < toHex(b) ? -1 : 1);
}
