/**
 * Whether a ticket is good (HTX 1.1 §6).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { tell } from "../core/_tell.ts";
import {
  type Bytes,
  type CryptoBackend,
  type DhPrivateKey,
  HtxError,
  isCanonicalX25519,
  selectCrypto,
  timingSafeEqual,
  toHex,
} from "../core/mod.ts";
import { rateBucketOf } from "./address.ts";
import { encodeBase64Url } from "./_base64url.ts";
import type { TicketKey } from "./client.ts";
import type { FoundTicket } from "./extract.ts";
import {
  deriveAccessTicket,
  deriveTicketSalt,
  readTicket,
  TICKET_KEY_ID_LENGTH,
  ticketHour,
  type TicketPayload,
} from "./payload.ts";
import { TICKET_CARRIERS, type TicketCarrier } from "./policy.ts";
import { MemoryRateLimiter, type RateLimiter } from "./rate_limiter.ts";
import { MemoryReplayStore, type ReplayStore } from "./replay_store.ts";

/** Most milliseconds that a refusal waits with `equalize: "delay"`. */
export const MAX_REFUSAL_DELAY_MS = 2;

const PRIVATE_KEY_LENGTH = 32;
const CLAIM_ID_LENGTH = 16;

/**
 * Why a request is refused. For logs and counters only: from outside every refusal looks the same.
 *
 * - `missing`, `repeated`: there is no ticket, or more than one
 * - `carrier-refused`: it stood in a carrier that this verifier does not take
 * - `malformed`: not canonical Base64URL of an allowed length
 * - `wrong-version`, `unknown-key`: of another version; made for a key that is not live
 * - `non-canonical-key`: the ephemeral key has a spelling that its owner never sent
 * - `rate-limited`: the sender's network, or all gateways' bucket for it, has no token left
 * - `low-order-key`: the key exchange gave zero
 * - `proof-failed`: forged, or made for none of the three hours
 * - `replayed`: spent before
 * - `expired`: of an hour that was forgotten; only after a clock that ran ahead was set back
 * - `store-full`, `store-failed`: whether it was spent cannot be known; without a time, neither can anything else
 */
export type TicketRefusal =
  | "missing"
  | "repeated"
  | "carrier-refused"
  | "malformed"
  | "wrong-version"
  | "unknown-key"
  | "non-canonical-key"
  | "rate-limited"
  | "low-order-key"
  | "proof-failed"
  | "replayed"
  | "expired"
  | "store-full"
  | "store-failed";

/** Every {@linkcode TicketRefusal}, for counters that start at zero. */
export const TICKET_REFUSALS: readonly TicketRefusal[] = [
  "missing",
  "repeated",
  "carrier-refused",
  "malformed",
  "wrong-version",
  "unknown-key",
  "non-canonical-key",
  "rate-limited",
  "low-order-key",
  "proof-failed",
  "replayed",
  "expired",
  "store-full",
  "store-failed",
];

/** What {@linkcode TicketVerifier.verify} finds. */
export type TicketResult =
  | {
    /** The ticket is good, and spent now. */
    readonly ok: true;
    /** Id of the ticket key it was made for, in hexadecimal. */
    readonly keyId: string;
    /** The hour it was made for. */
    readonly hour: number;
  }
  | {
    /** The request is refused. */
    readonly ok: false;
    /** Why; not for the one who asks. */
    readonly reason: TicketRefusal;
  };

/** The expensive steps of a verification, in the order in which they happen. */
export type TicketStep = "key-exchange" | "derive" | "hash" | "store";

/** Options of {@linkcode TicketVerifier}. */
export interface TicketVerifierOptions {
  /** The live ticket keys, one at least; several during rotation. Copied. */
  readonly keys: readonly TicketKey[];
  /** Remembers spent tickets. @default {new MemoryReplayStore()} */
  readonly replay?: ReplayStore | undefined;
  /**
   * Bounds the tickets that one network may show. Asked before the key exchange, so it should answer without a trip; a
   * store with shared buckets charges those later, with the replay check.
   *
   * @default {new MemoryRateLimiter()}
   */
  readonly limiter?: RateLimiter | undefined;
  /** Looks at tickets all the same when the limiter fails. @default {false} */
  readonly failOpenRateLimits?: boolean | undefined;
  /** The carriers whose tickets are taken; those in others count as occurrences and are refused. @default {all} */
  readonly carriers?: readonly TicketCarrier[] | undefined;
  /**
   * How refusals come to take equally long:
   *
   * - `"work"`: whatever is refused before the key exchange does one all the same, and the hashes and the store's trip
   *   after it. The same counted steps for every refusal
   * - `"delay"`: every refusal waits for 0 to 2 ms, uniformly. Cheaper under load, and told apart by whoever measures
   *   thousands
   * - `"off"`: for verifiers that nobody can time
   *
   * @default {"work"}
   */
  readonly equalize?: "work" | "delay" | "off" | undefined;
  /** Milliseconds since 1970. @default {Date.now} */
  readonly now?: (() => number) | undefined;
  /** Cryptographic random bytes, for delays. @default {the backend's} */
  readonly random?: ((length: number) => Uint8Array) | undefined;
  /** Waits. @default {setTimeout} */
  readonly sleep?: ((milliseconds: number) => Promise<void>) | undefined;
  /** The primitives. @default {selectCrypto()} */
  readonly crypto?: CryptoBackend | undefined;
  /**
   * Sees every expensive step as it begins; `dummy` ones are for time alone. For tests and measurements.
   *
   * @default {undefined}
   */
  readonly onStep?: ((step: TicketStep, dummy: boolean) => void) | undefined;
  /**
   * Told when the replay store, the limiter or the clock fails. For the log; what it throws is lost.
   *
   * @default {undefined}
   */
  readonly onStoreError?: ((error: unknown) => void) | undefined;
}

/** About the request that a ticket came in. */
export interface VerifyTicketOptions {
  /** IP address of the client; a missing or unreadable one shares a bucket with all such. @default {undefined} */
  readonly address?: string | undefined;
}

/**
 * Verifies tickets, each good once, in its hour and the hours beside it. Costs one X25519, three HKDFs and one hash.
 *
 * @example Every occurrence of a request goes in
 * ```ts
 * import { extractTickets, generateTicketKey, makeTicketQuery, TicketVerifier } from "@betanet/htx/tickets";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const key = generateTicketKey();
 * const verifier = new TicketVerifier({ keys: [key] });
 *
 * const found = extractTickets({ target: `/page?${makeTicketQuery(key)}` });
 * const result = await verifier.verify(found.tickets, { address: "192.0.2.1" });
 * assert(result.ok);
 * assertEquals(found.target, "/page");
 * assertEquals(await verifier.verify([]), { ok: false, reason: "missing" });
 * ```
 */
export class TicketVerifier {
  readonly #crypto: CryptoBackend;
  readonly #replay: ReplayStore;
  readonly #limiter: RateLimiter;
  readonly #options: TicketVerifierOptions;
  readonly #carriers: ReadonlySet<TicketCarrier>;
  #keys: ReadonlyMap<string, LiveKey>;
  /** Stands in for a ticket's key where there is none. */
  #anyKey: LiveKey;

  /**
   * Makes a verifier of its own stores, or of those given.
   *
   * @throws {TypeError} when there is no key, or two have one id
   * @throws {RangeError} when a part of a key has a wrong length
   */
  constructor(options: TicketVerifierOptions) {
    const { crypto = selectCrypto(), replay, limiter, carriers = TICKET_CARRIERS } = options;
    this.#crypto = crypto;
    this.#options = options;
    this.#carriers = new Set(carriers);
    this.#keys = liveKeys(options.keys, crypto);
    this.#anyKey = firstOf(this.#keys);
    this.#replay = replay ?? new MemoryReplayStore();
    this.#limiter = limiter ?? new MemoryRateLimiter();
  }

  /** Ids of the live keys, in hexadecimal. */
  get keyIds(): string[] {
    return [...this.#keys.keys()];
  }

  /**
   * Replaces the live keys: add the new one, tell the clients, drop the old one later. What was spent stays spent.
   *
   * @throws {TypeError} when there is no key, or two have one id; the old ones stay then
   * @throws {RangeError} when a part of a key has a wrong length; the old ones stay then
   */
  setKeys(keys: readonly TicketKey[]): void {
    const old = this.#keys;
    this.#keys = liveKeys(keys, this.#crypto);
    this.#anyKey = firstOf(this.#keys);
    for (const key of old.values()) key.wipe();
  }

  /**
   * Verifies the ticket of a request, and spends it.
   *
   * @param presented a ticket's text, or every occurrence that {@linkcode extractTickets} found
   * @returns never rejects: what goes wrong is a refusal
   */
  async verify(
    presented: string | readonly FoundTicket[],
    options: VerifyTicketOptions = {},
  ): Promise<TicketResult> {
    const { now: clock = Date.now, equalize = "work", onStoreError } = this.#options;
    const now = clock();
    if (!Number.isFinite(now)) {
      tell(onStoreError, new HtxError("INTERNAL_ERROR", "Cannot tell the time: the clock gave no number"));
      return { ok: false, reason: "store-failed" };
    }
    const bucket = rateBucketOf(options.address);
    const cheap = await this.#checkCheaply(presented, bucket, now);
    let result: TicketResult;
    if (typeof cheap !== "string") result = await this.#prove(cheap, undefined, bucket, now);
    else if (equalize === "work") result = await this.#prove(this.#dummy(), cheap, bucket, now);
    else result = { ok: false, reason: cheap };
    if (!result.ok && equalize === "delay") await this.#delay();
    return result;
  }

  /** All that costs little, in the order of §6: a ticket that may be worth a key exchange, or a refusal. */
  async #checkCheaply(
    presented: string | readonly FoundTicket[],
    bucket: string,
    now: number,
  ): Promise<TicketPayload | TicketRefusal> {
    let text = presented;
    if (typeof text !== "string") {
      if (text.length > 1) return "repeated";
      const [only] = text;
      if (only === undefined) return "missing";
      if (!this.#carriers.has(only.carrier)) return "carrier-refused";
      text = only.text;
    }
    const ticket = readTicket(text);
    if (typeof ticket === "string") return ticket === "version" ? "wrong-version" : "malformed";
    const keyId = toHex(ticket.ticketKeyId);
    if (!this.#keys.has(keyId)) return "unknown-key";
    // X25519 ignores the top bit and reduces the value: one ticket would have several spellings.
    if (!isCanonicalX25519(ticket.clientPub)) return "non-canonical-key";
    try {
      if (!await this.#limiter.take(bucket, now)) return "rate-limited";
    } catch (error) {
      tell(this.#options.onStoreError, error);
      if (!this.#options.failOpenRateLimits) return "store-failed";
    }
    return this.#keys.has(keyId) ? ticket : "unknown-key"; // keys may have been replaced meanwhile
  }

  /**
   * The key exchange and what follows. One path for every ticket: with a refusal it takes the same steps, and changes
   * nothing.
   */
  async #prove(
    ticket: TicketPayload,
    refusal: TicketRefusal | undefined,
    bucket: string,
    now: number,
  ): Promise<TicketResult> {
    const dummy = refusal !== undefined;
    const { onStep } = this.#options;
    const begin = (step: TicketStep) => {
      if (onStep !== undefined) tell((step) => onStep(step, dummy), step);
    };
    const key = this.#keys.get(toHex(ticket.ticketKeyId)) ?? this.#anyKey;

    begin("key-exchange");
    const agreed = key.privateKey.dh(ticket.clientPub);
    const shared = agreed ?? new Uint8Array(PRIVATE_KEY_LENGTH);

    const hour = ticketHour(now);
    let verified = -1;
    let proof: Bytes = shared;
    for (const candidate of [Math.max(0, hour - 1), hour, hour + 1]) { // all three, whichever fits
      begin("derive");
      const expected = deriveAccessTicket(this.#crypto, shared, key.salt(candidate, hour));
      const fits = timingSafeEqual(expected, ticket.accessTicket);
      verified = fits ? candidate : verified;
      proof = fits ? expected : proof;
    }
    begin("hash");
    // Adding a point of low order to a client's key gives another canonical key with the same shared value, thus
    // another spelling of the same ticket. What they have in common is the proof, so that is what is remembered:
    // it stands for (clientPub, hour). Hashed, since a store need not know it.
    const id = encodeBase64Url(this.#crypto.sha256(proof).subarray(0, CLAIM_ID_LENGTH));
    shared.fill(0);

    let reason = refusal;
    if (reason === undefined && agreed === undefined) reason = "low-order-key";
    if (reason === undefined && verified < 0) reason = "proof-failed";

    begin("store");
    // A limiter that is the replay store has charged the bucket already; a refusal before it charges none.
    const charged = this.#replay === (this.#limiter as unknown) || dummy ? undefined : bucket;
    try {
      if (reason !== undefined) {
        await this.#replay.touch?.(now, charged);
        return { ok: false, reason };
      }
      const answer = await this.#replay.checkAndRecord({ id, hour: verified, now, bucket: charged });
      switch (answer) {
        case "fresh":
          return { ok: true, keyId: toHex(ticket.ticketKeyId), hour: verified };
        case "replayed":
          return { ok: false, reason: "replayed" };
        case "limited":
          return { ok: false, reason: "rate-limited" };
        case "full":
          return { ok: false, reason: "store-full" };
        case "stale":
          return { ok: false, reason: "expired" };
        default:
          answer satisfies never;
          return { ok: false, reason: "store-failed" };
      }
    } catch (error) {
      tell(this.#options.onStoreError, error);
      return { ok: false, reason: reason ?? "store-failed" };
    }
  }

  /** A ticket of the right shape that proves nothing. */
  #dummy(): TicketPayload {
    const key = this.#anyKey;
    return {
      clientPub: key.privateKey.publicKey,
      ticketKeyId: key.keyId,
      nonce: NOTHING,
      accessTicket: NOTHING,
      pad: NOTHING,
    };
  }

  async #delay(): Promise<void> {
    const { random = (length: number) => this.#crypto.randomBytes(length) } = this.#options;
    const { sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)) } = this.#options;
    const bytes = random(4);
    const drawn = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0);
    await sleep(drawn / 2 ** 32 * MAX_REFUSAL_DELAY_MS);
  }
}

const NOTHING = /* @__PURE__ */ new Uint8Array(32);

/** A ticket key ready for use; its salts are the same for all tickets of an hour. */
class LiveKey {
  readonly keyId: Bytes;
  readonly privateKey: DhPrivateKey;
  readonly #crypto: CryptoBackend;
  readonly #salts = new Map<number, Bytes>();

  constructor(key: TicketKey, crypto: CryptoBackend) {
    requireLength("keyId", key.keyId, TICKET_KEY_ID_LENGTH);
    requireLength("privateKey", key.privateKey, PRIVATE_KEY_LENGTH);
    this.keyId = new Uint8Array(key.keyId);
    this.privateKey = crypto.x25519(key.privateKey);
    this.#crypto = crypto;
  }

  salt(hour: number, nowHour: number): Bytes {
    let salt = this.#salts.get(hour);
    if (salt === undefined) {
      for (const old of this.#salts.keys()) if (Math.abs(old - nowHour) > 1) this.#salts.delete(old);
      salt = deriveTicketSalt(this.#crypto, this.keyId, hour);
      this.#salts.set(hour, salt);
    }
    return salt;
  }

  wipe(): void {
    this.privateKey.wipe();
  }
}

function liveKeys(keys: readonly TicketKey[], crypto: CryptoBackend): ReadonlyMap<string, LiveKey> {
  const live = new Map<string, LiveKey>();
  for (const key of keys) {
    const made = new LiveKey(key, crypto);
    const id = toHex(made.keyId);
    if (live.has(id)) throw new TypeError(`Cannot use ticket keys: two of them have the id ${id}`);
    live.set(id, made);
  }
  if (live.size === 0) throw new TypeError("Cannot use ticket keys: there is none");
  return live;
}

function firstOf(keys: ReadonlyMap<string, LiveKey>): LiveKey {
  for (const key of keys.values()) return key;
  throw new TypeError("Cannot use ticket keys: there is none");
}

function requireLength(name: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new RangeError(`Cannot use ticket key: ${name} has ${bytes.length} bytes, not ${length}`);
  }
}
