/**
 * How a node finds its first peers, and how those who answer protect themselves.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { networkOf } from "./_address.ts";
import { selectCrypto, tell, timerDelay, utf8 } from "./_core.ts";
import type { Bytes } from "./_core.ts";
import { checkBytes } from "./_malformed.ts";
import { POW_MIN_BITS } from "./pow.ts";

/** "64 rendezvous ids per day." */
export const RENDEZVOUS_IDS_PER_DAY = 64;
/** "Adapted … over a sliding window of 10 minutes", in seconds. */
export const DIFFICULTY_WINDOW_SECONDS = 600;
/** "Adapted once a minute", in seconds. */
export const DIFFICULTY_STEP_SECONDS = 60;
/** "One bit more when accepted requests passed 95 % of the configured capacity …" */
export const DIFFICULTY_BUSY_PERCENT = 95;
/** "… in more than 5 % of the window's seconds." */
export const DIFFICULTY_BUSY_SECONDS_PERCENT = 5;
/** "One bit less (never below 22) when they stayed under 50 % throughout." */
export const DIFFICULTY_IDLE_PERCENT = 50;
/** "Buckets per IPv4 /24, IPv6 /56 and AS; none above 5 % of the responder's capacity." */
export const BUCKET_PERCENT = 5;
/** "Methods are tried in order until 5 peers answer." */
export const BOOTSTRAP_PEERS = 5;

const SECONDS_PER_DAY = 86_400;
const SEED_CONTEXT = /* @__PURE__ */ utf8("bn-seed");
const DIFFICULTY_MAX_BITS = 255;
const METHOD_TIMEOUT_MS = 10_000;
/** Peers that a method may find again before timers have their turn. */
const REPEATS_PER_TURN = 64;

/** "epochDay = floor(unix / 86400), UTC." */
export function epochDay(unixSeconds: number): number {
  return Math.floor(unixSeconds / SECONDS_PER_DAY);
}

/**
 * "64 rendezvous ids per day: `SHA-256("bn-seed" ‖ BeaconSet(epochDay) ‖ i)`, i as uint8 0..63."
 *
 * @param beaconSet the 32 bytes of the day's beacons
 * @throws {TypeError} when they are not 32 bytes
 */
export function rendezvousIds(beaconSet: Uint8Array): Bytes[] {
  checkBytes(beaconSet, 32, "beacon set");
  const crypto = selectCrypto();
  return Array.from(
    { length: RENDEZVOUS_IDS_PER_DAY },
    (_, i) => crypto.sha256(SEED_CONTEXT, beaconSet, Uint8Array.of(i)),
  );
}

/**
 * How much work a responder asks for. Told of each accepted request, it counts them by the second and looks back ten
 * minutes once a minute. Seconds before its start count as idle. Time that goes back counts as the latest seen; when it
 * goes back by more than the window, the clock was set: the bits stay and the window begins anew. A clock that gives no
 * number leaves the time where it is.
 */
export class DifficultyController {
  readonly #capacity: number;
  readonly #counts = new Uint32Array(DIFFICULTY_WINDOW_SECONDS);
  #second: number;
  #nextStep: number;
  #bits: number;

  /**
   * Makes a controller.
   *
   * @param capacity accepted requests per second that the responder is meant for
   * @param startSeconds the time, in Unix seconds
   * @throws {RangeError} when the capacity is not above 0, the bits are not 22 to 255, or the time is none
   */
  constructor(capacity: number, startSeconds: number, options: { bits?: number | undefined } = {}) {
    const { bits = POW_MIN_BITS } = options;
    if (!(capacity > 0 && Number.isFinite(capacity))) {
      throw new RangeError(`Cannot control difficulty: the capacity is ${capacity}`);
    }
    if (!Number.isInteger(bits) || bits < POW_MIN_BITS || bits > DIFFICULTY_MAX_BITS) {
      throw new RangeError(
        `Cannot control difficulty: ${bits} bits, not ${POW_MIN_BITS} to ${DIFFICULTY_MAX_BITS}`,
      );
    }
    if (!Number.isFinite(startSeconds)) {
      throw new RangeError(`Cannot control difficulty: the time is ${startSeconds}`);
    }
    this.#capacity = capacity;
    this.#second = Math.floor(startSeconds);
    this.#nextStep = this.#second + DIFFICULTY_STEP_SECONDS;
    this.#bits = bits;
  }

  /** Bits to ask for now. */
  bits(unixSeconds: number): number {
    this.#advance(unixSeconds);
    return this.#bits;
  }

  /** Counts one accepted request. */
  accepted(unixSeconds: number): void {
    this.#advance(unixSeconds);
    this.#counts[slot(this.#second)]!++;
  }

  #advance(unixSeconds: number): void {
    const to = Math.floor(unixSeconds);
    if (!Number.isFinite(to)) return; // past every window, it would be a reason to ask for less work
    // Else a clock that was ahead for a moment would hold the difficulty where it is until then.
    if (to < this.#second - DIFFICULTY_WINDOW_SECONDS) {
      this.#counts.fill(0);
      this.#second = to;
      this.#nextStep = to + DIFFICULTY_STEP_SECONDS;
    }
    while (this.#second < to) {
      // Past a whole window of silence there is nothing left to look back at but the steps down.
      const idleFor = to - this.#second;
      if (idleFor > 2 * DIFFICULTY_WINDOW_SECONDS && this.#counts.every((count) => count === 0)) {
        const steps = Math.floor((to - this.#nextStep) / DIFFICULTY_STEP_SECONDS) + 1;
        this.#bits = Math.max(POW_MIN_BITS, this.#bits - steps);
        this.#nextStep += steps * DIFFICULTY_STEP_SECONDS;
        this.#second = to;
        return;
      }
      this.#second++;
      // The step at second t looks at the seconds t - 600 .. t - 1, before the slot of t - 600 is used again.
      if (this.#second === this.#nextStep) {
        this.#step();
        this.#nextStep += DIFFICULTY_STEP_SECONDS;
      }
      this.#counts[slot(this.#second)] = 0;
    }
  }

  #step(): void {
    let busy = 0;
    let idle = true;
    for (const count of this.#counts) {
      if (count * 100 > this.#capacity * DIFFICULTY_BUSY_PERCENT) busy++;
      if (count * 100 >= this.#capacity * DIFFICULTY_IDLE_PERCENT) idle = false;
    }
    if (busy * 100 > DIFFICULTY_WINDOW_SECONDS * DIFFICULTY_BUSY_SECONDS_PERCENT) {
      this.#bits = Math.min(DIFFICULTY_MAX_BITS, this.#bits + 1);
    } else if (idle) this.#bits = Math.max(POW_MIN_BITS, this.#bits - 1);
  }
}

function slot(second: number): number {
  return ((second % DIFFICULTY_WINDOW_SECONDS) + DIFFICULTY_WINDOW_SECONDS) % DIFFICULTY_WINDOW_SECONDS;
}

/** What {@linkcode BootstrapLimiter.accept} says. */
export type BootstrapVerdict =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: "capacity" | "ipv4-prefix" | "ipv6-prefix" | "as" };

/**
 * Admits requests to a responder: its capacity in all, and a twentieth of it from one network or one AS.
 *
 * Counted by the second; where a twentieth of the capacity is below one request, by the smallest number of whole
 * seconds in which it is one. Only what is admitted is remembered, and only for that time, so that no flood of
 * addresses costs memory. A clock that was set back is followed, and one that gives no number leaves the time where it is.
 */
export class BootstrapLimiter {
  readonly #windowSeconds: number;
  readonly #most: number;
  readonly #mostPerBucket: number;
  readonly #buckets = new Map<string, number>();
  #window = -Infinity;
  #total = 0;

  /**
   * Makes a limiter.
   *
   * @param capacity requests per second that the responder takes
   * @throws {RangeError} when it is not above 0, or so small that no window is long enough for one request
   */
  constructor(capacity: number) {
    if (!(capacity > 0 && Number.isFinite(capacity))) {
      throw new RangeError(`Cannot limit bootstrap: the capacity is ${capacity}`);
    }
    const share = (seconds: number) => Math.floor(capacity * seconds * BUCKET_PERCENT / 100);
    this.#windowSeconds = Math.max(1, Math.ceil(100 / (BUCKET_PERCENT * capacity)));
    if (!Number.isFinite(this.#windowSeconds)) {
      throw new RangeError(`Cannot limit bootstrap: the capacity is ${capacity}, too small a number`);
    }
    if (share(this.#windowSeconds) < 1) this.#windowSeconds++; // the quotient was rounded down
    this.#most = Math.floor(capacity * this.#windowSeconds);
    this.#mostPerBucket = share(this.#windowSeconds);
  }

  /** Buckets in use. */
  get size(): number {
    return this.#buckets.size;
  }

  /**
   * Admits a request or says whose share is used up.
   *
   * @param from text of the IP address, and the number of its AS where it is known
   * @throws {HtxError} `MALFORMED`, field `address`
   */
  accept(from: { address: string; as?: number | bigint | undefined }, unixSeconds: number): BootstrapVerdict {
    const network = networkOf(from.address);
    const window = Math.floor(unixSeconds / this.#windowSeconds);
    // One window back is a clock that is being adjusted, and no reason to admit twice. Further back, waiting for the old
    // time to come again would lock everybody out.
    if (Number.isFinite(window) && (window > this.#window || window < this.#window - 1)) {
      this.#window = window;
      this.#total = 0;
      this.#buckets.clear();
    }
    if (this.#total >= this.#most) return { ok: false, reason: "capacity" };
    const networkKey = `${network.kind} ${network.key}`;
    const asKey = from.as === undefined ? undefined : `as ${from.as}`;
    const inNetwork = this.#buckets.get(networkKey) ?? 0;
    if (inNetwork >= this.#mostPerBucket) return { ok: false, reason: `${network.kind}-prefix` };
    const inAs = asKey === undefined ? 0 : this.#buckets.get(asKey) ?? 0;
    if (inAs >= this.#mostPerBucket) return { ok: false, reason: "as" };
    this.#total++;
    this.#buckets.set(networkKey, inNetwork + 1);
    if (asKey !== undefined) this.#buckets.set(asKey, inAs + 1);
    return { ok: true };
  }
}

/** The ways to find peers, in the order in which they are tried. */
export const BOOTSTRAP_METHODS = [
  "rendezvous-dht",
  "mdns",
  "bluetooth-le",
  "onion-list",
  "dns-list",
] as const;
/** "mDNS `_betanet._udp`." */
export const MDNS_SERVICE = "_betanet._udp";

/** A way to find peers. */
export type BootstrapMethodName = typeof BOOTSTRAP_METHODS[number];

/** A peer that answered. */
export interface BootstrapPeer {
  /** Its peer id or other unique name: the same peer found twice counts once. */
  readonly id: string;
  /** Where it answered. */
  readonly addresses: readonly string[];
}

/** A way to find peers, as the caller supplies it. */
export interface BootstrapMethod {
  /** Which of them it is. */
  readonly name: BootstrapMethodName;
  /** Peers as they answer; ends when there are no more. Stops when the signal aborts. */
  discover(options: { signal: AbortSignal; want: number }): AsyncIterable<BootstrapPeer>;
}

/** What one method gave. */
export interface BootstrapAttempt {
  /** Which. */
  readonly method: BootstrapMethodName;
  /** New peers that it found. */
  readonly found: number;
  /** How it ended: with enough peers, with no more to give, by an error, or by the time limit. */
  readonly end: "enough" | "exhausted" | "failed" | "timeout";
  /** The error, if it failed. */
  readonly error?: unknown;
}

/** What {@linkcode bootstrap} says. */
export type BootstrapResult =
  & { readonly peers: readonly BootstrapPeer[]; readonly attempts: readonly BootstrapAttempt[] }
  & ({ readonly ok: true } | { readonly ok: false; readonly reason: "too-few-peers" });

/** Settings of {@linkcode bootstrap}. */
export interface BootstrapOptions {
  /** Peers that are enough. @default {5} */
  want?: number | undefined;
  /** Most time for one method, in ms, below 2^31. @default {10000} */
  methodTimeoutMs?: number | undefined;
  /** Ends the search. */
  signal?: AbortSignal | undefined;
}

/**
 * "Methods are tried in order (rendezvous DHT, mDNS `_betanet._udp`, Bluetooth LE, onion list, DNS list) until 5 peers
 * answer; each method is an interface that the caller supplies." Methods that are not supplied are left out; several
 * of one kind keep their order. A method that fails or hangs is reported and the next one tried.
 *
 * @throws the signal's reason when it aborts
 * @throws {RangeError} when an option is out of its range
 * @throws {TypeError} when a method has a name that is none
 */
export async function bootstrap(
  methods: readonly BootstrapMethod[],
  options: BootstrapOptions = {},
): Promise<BootstrapResult> {
  const { want = BOOTSTRAP_PEERS, methodTimeoutMs = METHOD_TIMEOUT_MS, signal } = options;
  if (!Number.isInteger(want) || want < 1) throw new RangeError(`Cannot bootstrap: want is ${want}`);
  if (!(methodTimeoutMs > 0 && methodTimeoutMs < 2 ** 31)) { // a timer with any other fires at once
    throw new RangeError(
      `Cannot bootstrap: methodTimeoutMs is ${methodTimeoutMs}, not above 0 and below 2^31`,
    );
  }
  for (const { name } of methods) {
    if (!BOOTSTRAP_METHODS.includes(name)) {
      throw new TypeError(`Cannot bootstrap: no method is named ${name}`);
    }
  }
  const peers = new Map<string, BootstrapPeer>();
  const attempts: BootstrapAttempt[] = [];
  const ordered = methods.toSorted((a, b) =>
    BOOTSTRAP_METHODS.indexOf(a.name) - BOOTSTRAP_METHODS.indexOf(b.name)
  );
  for (const method of ordered) {
    signal?.throwIfAborted();
    const before = peers.size;
    const attempt = await tryMethod(method, peers, want, methodTimeoutMs, signal);
    signal?.throwIfAborted();
    attempts.push({ method: method.name, found: peers.size - before, ...attempt });
    if (peers.size >= want) return { ok: true, peers: [...peers.values()], attempts };
  }
  return { ok: false, reason: "too-few-peers", peers: [...peers.values()], attempts };
}

async function tryMethod(
  method: BootstrapMethod,
  peers: Map<string, BootstrapPeer>,
  want: number,
  timeoutMs: number,
  outer: AbortSignal | undefined,
): Promise<Pick<BootstrapAttempt, "end" | "error">> {
  const stop = new AbortController();
  const stopped = new Promise<"stopped">((resolve) => {
    stop.signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  const onOuter = () => stop.abort(outer?.reason);
  outer?.addEventListener("abort", onOuter, { once: true });
  const timer = setTimeout(
    () => stop.abort(new DOMException("The method took too long", "TimeoutError")),
    timerDelay(timeoutMs),
  );
  try {
    const found = method.discover({ signal: stop.signal, want: want - peers.size })[Symbol.asyncIterator]();
    // It is told to end by its signal and as a loop would tell it, and not waited for.
    const leave = () => {
      stop.abort();
      tell(() => found.return?.(), undefined);
    };
    for (let repeats = 0; peers.size < want;) {
      const pending = found.next();
      const next = await Promise.race([pending, stopped]);
      if (next === "stopped") {
        pending.catch(() => {});
        leave();
        return { end: "timeout" };
      }
      if (next.done) return { end: "exhausted" };
      if (!peers.has(next.value.id)) peers.set(next.value.id, next.value);
      // One that need not wait for what it finds would keep the timer from ending it.
      else if (++repeats % REPEATS_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    leave();
    return { end: "enough" };
  } catch (error) {
    return { end: "failed", error };
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", onOuter);
  }
}
