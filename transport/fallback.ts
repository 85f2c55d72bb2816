/**
 * From UDP to TCP without a pattern: QUIC first; where it fails, TCP after delays that nobody can foresee, and, if the
 * operator named origins for it, behind connections to unrelated sites (Betanet 1.1, UDP to TCP fallback and cover).
 *
 *     primary fails      retry            covers begin              HTX over TCP begins
 *     |--- backoffMs ---|--- offsetMs ---|   |   |--- htxDelayMs ---|
 *                       [0, 1000] each           [100, 700] after the last cover
 *
 * Nothing is contacted that the operator did not name, nothing is printed, and certificates are verified here as
 * everywhere.
 *
 * @module
 */

import { type Clock, type Duplex, HtxError, selectCrypto } from "../core/mod.ts";
import { isPublicAddress } from "./_public_address.ts";
import { racedDial } from "./_raced_dial.ts";
import { tell } from "../core/_tell.ts";
import type { Dialer } from "./client.ts";
import { dialTls } from "./tls.ts";

/** What each value is drawn from, in ms, both ends included. */
const BACKOFF: Range = { min: 200, max: 1200 };
const COVER_OFFSET: Range = { min: 0, max: 1000 };
const HTX_DELAY: Range = { min: 100, max: 700 };
const COVER_LIFE: Range = { min: 3_000, max: 15_000 };
/** Covers for one fallback, at the least. */
const MIN_COVERS = 2;
/** Covers a minute, for the whole process. */
const MAX_COVERS_PER_MINUTE = 2;
const MINUTE_MS = 60_000;
/** Bytes of a cover's answer that are read. */
const MAX_COVER_BYTES = 262_144;

interface Range {
  readonly min: number;
  readonly max: number;
}

/** One cover connection of a plan. */
export interface PlannedCover {
  /** Where it goes: `https://host[:port]`. */
  readonly origin: string;
  /** When it begins, in ms after the retry. */
  readonly offsetMs: number;
  /** How long it stays, in ms. */
  readonly lifeMs: number;
}

/** Every value that was drawn for one fallback. */
export interface FallbackPlan {
  /** From the failure to the retry, in ms: 200 to 1200. */
  readonly backoffMs: number;
  /** The covers, each to an origin of its own; none where the operator named none. */
  readonly covers: readonly PlannedCover[];
  /** From the beginning of the last cover (or the retry, without covers) to HTX, in ms: 100 to 700. */
  readonly htxDelayMs: number;
  /** When HTX begins, in ms after the retry: the sum. */
  readonly htxOffsetMs: number;
}

/** Options of {@linkcode planFallback}. */
export interface FallbackPlanOptions {
  /** Origins that covers may go to: none, or at least two. @default {none} */
  covers?: readonly string[] | undefined;
  /** How many covers, 2 or more. @default {2} */
  coverCount?: number | undefined;
  /** Random bytes. @default {the system's} */
  random?: ((length: number) => Uint8Array) | undefined;
}

/**
 * Draws the values of one fallback, each uniformly and on its own.
 *
 * @example
 * ```ts
 * import { planFallback } from "@betanet/htx/transport";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const plan = planFallback({ covers: ["https://a.example", "https://b.example", "https://c.example"] });
 * assert(plan.backoffMs >= 200 && plan.backoffMs <= 1200);
 * assertEquals(plan.covers.length, 2);
 * ```
 *
 * @throws {TypeError} when an origin is not `https://host[:port]`, or there is but one
 * @throws {RangeError} when `coverCount` is below 2
 */
export function planFallback(options: FallbackPlanOptions = {}): FallbackPlan {
  const random = options.random ?? ((length) => selectCrypto().randomBytes(length));
  const { coverCount = MIN_COVERS } = options;
  if (!Number.isInteger(coverCount) || coverCount < MIN_COVERS) {
    throw new RangeError(`Cannot plan fallback: coverCount is ${coverCount}, not ${MIN_COVERS} or more`);
  }
  const origins = [...new Set((options.covers ?? []).map(originOf))];
  if (origins.length > 0 && origins.length < MIN_COVERS) {
    throw new TypeError("Cannot plan fallback: covers need no origin or at least two different ones");
  }
  const backoffMs = draw(BACKOFF, random);
  const covers: PlannedCover[] = [];
  while (covers.length < coverCount && origins.length > 0) {
    const [origin] = origins.splice(draw({ min: 0, max: origins.length - 1 }, random), 1);
    covers.push({ origin: origin!, offsetMs: draw(COVER_OFFSET, random), lifeMs: draw(COVER_LIFE, random) });
  }
  const htxDelayMs = draw(HTX_DELAY, random);
  const htxOffsetMs = Math.max(0, ...covers.map(({ offsetMs }) => offsetMs)) + htxDelayMs;
  return { backoffMs, covers, htxDelayMs, htxOffsetMs };
}

/** Keeps covers rare: at most `perMinute` in any 60 s. Share one for the whole process, as the default is. */
export class CoverLimiter {
  readonly #perMinute: number;
  #taken: number[] = [];

  /** Makes one that has seen no cover yet. @param perMinute covers in any 60 s */
  constructor(perMinute: number = MAX_COVERS_PER_MINUTE) {
    this.#perMinute = perMinute;
  }

  /**
   * Whether `count` covers may begin, all or none; they then count.
   *
   * @param now a clock that never goes back, in ms
   * @param latest when the last of them begins, by the same clock
   */
  take(count: number, now: number, latest: number = now): boolean {
    this.#taken = this.#taken.filter((at) => now - at < MINUTE_MS);
    if (this.#taken.length + count > this.#perMinute) return false;
    for (let i = 0; i < count; i++) this.#taken.push(latest);
    return true;
  }
}

let processLimiter: CoverLimiter | undefined;

/** One thing that was tried. */
export interface FallbackAttempt {
  /** What. */
  readonly kind: "primary" | "cover" | "fallback";
  /** When it began, in ms after dialing began. */
  readonly startedMs: number;
  /** When it ended, in ms after dialing began. */
  readonly endedMs: number;
  /** How it ended: `refused` is a cover that was not allowed to begin. */
  readonly outcome: "connected" | "failed" | "refused";
  /** The origin of a cover. */
  readonly origin?: string | undefined;
  /** Why it failed or was refused. */
  readonly error?: unknown;
}

/** Opens a cover connection: resolves when it stands, to what ends it. */
export type CoverDialer = (
  origin: URL,
  options: { address: string; signal: AbortSignal },
) => Promise<{ close(): void }>;

/** Options of {@linkcode dialWithFallback}. */
export interface FallbackOptions extends FallbackPlanOptions {
  /** What is tried first: QUIC, mostly. */
  primary: Dialer;
  /** What is tried when that fails: TCP, mostly with TLS. It must open a fresh connection. */
  fallback: Dialer;
  /** Opens covers. @default {TLS with the system's roots, and one GET request} */
  dialCover?: CoverDialer | undefined;
  /** The addresses of a host. @default {Deno.resolveDns} */
  resolve?: ((hostname: string) => Promise<readonly string[]>) | undefined;
  /** Whether an address may be contacted by a cover. @default {public ones alone} */
  isPublicAddress?: ((address: string) => boolean) | undefined;
  /** Keeps covers rare. @default {2 a minute, for the process} */
  limiter?: CoverLimiter | undefined;
  /** Time and timers. @default {the system's} */
  clock?: Clock | undefined;
  /** Told of the plan once the primary has failed. */
  onPlan?: ((plan: FallbackPlan) => void) | undefined;
  /** Told of each attempt when it has ended. */
  onAttempt?: ((attempt: FallbackAttempt) => void) | undefined;
  /** Gives up: the call rejects with the signal's reason. @default {none} */
  signal?: AbortSignal | undefined;
}

/** What {@linkcode dialWithFallback} gives. */
export interface FallbackResult {
  /** The duplex. */
  readonly duplex: Duplex;
  /** Which of the two it is. */
  readonly via: "primary" | "fallback";
  /** What was drawn; absent where the primary did. */
  readonly plan: FallbackPlan | undefined;
  /** What was tried; covers that end later are added when they do. */
  readonly attempts: readonly FallbackAttempt[];
}

/**
 * Dials the primary, and where that fails the fallback, by the delays of a fresh {@linkcode FallbackPlan}. Covers that
 * cannot begin (too many a minute, an address that is not public) are left out; they never keep HTX from going on.
 *
 * @example QUIC, else TLS
 * ```ts ignore
 * import { dialQuic, dialTls, dialWithFallback } from "@betanet/htx/transport";
 *
 * const address = { hostname: "front.example", port: 443 };
 * const { duplex, via, attempts } = await dialWithFallback({
 *   primary: ({ signal }) => dialQuic(address, { signal }),
 *   fallback: ({ signal }) => dialTls(address, { signal }),
 *   covers: ["https://one.example", "https://two.example"],
 * });
 * ```
 *
 * @throws {HtxError} `CONNECT_FAILED` when both fail; `cause` is an `AggregateError` of the two
 * @throws {TypeError} as {@linkcode planFallback}
 * @throws the signal's reason
 */
export async function dialWithFallback(options: FallbackOptions): Promise<FallbackResult> {
  planFallback(options); // the caller's mistakes show before anything is dialled
  return await new FallbackRun(options).run();
}

/** {@linkcode dialWithFallback} as a dialer: what `connect()` takes. */
export function fallbackDialer(options: Omit<FallbackOptions, "signal">): Dialer {
  return async ({ signal }) => (await dialWithFallback({ ...options, signal })).duplex;
}

const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  setTimer: (delay, callback) => {
    const id = setTimeout(callback, delay);
    return () => clearTimeout(id);
  },
};

type Dialled = { duplex: Duplex } | { error: unknown };

class FallbackRun {
  readonly #options: FallbackOptions;
  readonly #clock: Clock;
  readonly #attempts: FallbackAttempt[] = [];
  readonly #since: number;

  constructor(options: FallbackOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#since = this.#clock.now();
  }

  async run(): Promise<FallbackResult> {
    const { primary, fallback, signal, onPlan } = this.#options;
    signal?.throwIfAborted();
    const first = await this.#dial("primary", primary);
    if ("duplex" in first) {
      return { duplex: first.duplex, via: "primary", plan: undefined, attempts: this.#attempts };
    }

    const plan = planFallback(this.#options);
    tell(onPlan, plan);
    await this.#wait(plan.backoffMs, signal);
    const ended = new AbortController();
    this.#startCovers(plan, ended.signal);
    let second: Dialled;
    try {
      await this.#wait(plan.htxOffsetMs, signal);
      second = await this.#dial("fallback", fallback);
    } catch (error) {
      ended.abort(error); // covers without what they cover would be covers for nothing
      throw error;
    }
    if ("duplex" in second) {
      return { duplex: second.duplex, via: "fallback", plan, attempts: this.#attempts };
    }
    throw new HtxError("CONNECT_FAILED", "Cannot connect: both the first way and the fallback failed", {
      cause: new AggregateError([first.error, second.error]),
    });
  }

  async #dial(kind: "primary" | "fallback", dial: Dialer): Promise<Dialled> {
    const { signal } = this.#options;
    const startedMs = this.#elapsed();
    try {
      const duplex = await racedDial(dial({ signal }), signal);
      this.#record({ kind, startedMs, endedMs: this.#elapsed(), outcome: "connected" });
      return { duplex };
    } catch (error) {
      this.#record({ kind, startedMs, endedMs: this.#elapsed(), outcome: "failed", error });
      signal?.throwIfAborted();
      return { error };
    }
  }

  #startCovers(plan: FallbackPlan, signal: AbortSignal): void {
    const { covers, htxOffsetMs, htxDelayMs } = plan;
    if (covers.length === 0) return;
    const limiter = this.#options.limiter ?? (processLimiter ??= new CoverLimiter());
    const now = this.#clock.now();
    if (!limiter.take(covers.length, now, now + htxOffsetMs - htxDelayMs)) {
      const at = this.#elapsed();
      const error = new HtxError(
        "LIMIT_EXCEEDED",
        "Cannot open cover: there were as many as there may be in this minute",
      );
      for (const { origin } of covers) {
        this.#record({ kind: "cover", origin, startedMs: at, endedMs: at, outcome: "refused", error });
      }
      return;
    }
    for (const cover of covers) this.#cover(cover, signal);
  }

  /** One cover, from its offset to its end. Never rejects. */
  async #cover({ origin, offsetMs, lifeMs }: PlannedCover, signal: AbortSignal): Promise<void> {
    const life = new AbortController();
    const stop = () => life.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    let cancelTimer: (() => void) | undefined;
    let startedMs = this.#elapsed();
    try {
      await this.#wait(offsetMs, signal);
      startedMs = this.#elapsed();
      cancelTimer = this.#clock.setTimer(lifeMs, () => life.abort(new Error("the cover's time is over")));
      const url = new URL(origin);
      const address = await this.#publicAddressOf(url);
      life.signal.throwIfAborted();
      const open = this.#options.dialCover ?? dialTlsCover;
      const connection = await open(url, { address, signal: life.signal });
      this.#record({ kind: "cover", origin, startedMs, endedMs: this.#elapsed(), outcome: "connected" });
      const end = () => tell(() => connection.close(), undefined); // a cover that fails to end has had its time
      if (life.signal.aborted) end();
      else life.signal.addEventListener("abort", end, { once: true });
    } catch (error) {
      cancelTimer?.();
      const refused = error instanceof HtxError && error.code === "REFUSED";
      this.#record({
        kind: "cover",
        origin,
        startedMs,
        endedMs: this.#elapsed(),
        outcome: refused ? "refused" : "failed",
        error,
      });
    }
  }

  /** The host is looked up once, and the address that was judged is the one that is dialled. */
  async #publicAddressOf(url: URL): Promise<string> {
    const { resolve = resolveHost, isPublicAddress: allowed = isPublicAddress } = this.#options;
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    const literal = hostname.includes(":") || /^[\d.]+$/.test(hostname);
    const addresses = literal ? [hostname] : await resolve(hostname);
    const [address] = addresses;
    if (address === undefined) {
      throw new HtxError("CONNECT_FAILED", "Cannot open cover: its host has no address");
    }
    // A name with one private address among others may be one that was pointed inwards.
    if (!addresses.every((one) => allowed(one))) {
      throw new HtxError("REFUSED", "Cannot open cover: its address is not a public one");
    }
    return address;
  }

  #wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = this.#clock.setTimer(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  #elapsed(): number {
    return this.#clock.now() - this.#since;
  }

  #record(attempt: FallbackAttempt): void {
    this.#attempts.push(attempt);
    tell(this.#options.onAttempt, attempt);
  }
}

/** A cover as any web client would make it: TLS, verified, then one request whose answer nobody needs. */
async function dialTlsCover(
  origin: URL,
  options: { address: string; signal: AbortSignal },
): Promise<{ close(): void }> {
  const { address, signal } = options;
  const hostname = origin.hostname.replace(/^\[|\]$/g, "");
  const duplex = await dialTls(
    { hostname: address, port: Number(origin.port || 443) },
    { serverName: hostname, signal },
  );
  const io = duplex.io!;
  const request =
    `GET / HTTP/1.1\r\nhost: ${origin.host}\r\naccept: text/html,*/*;q=0.8\r\naccept-language: en\r\n\r\n`;
  (async () => {
    await io.write(new TextEncoder().encode(request));
    const into = new Uint8Array(16_384);
    for (let read = 0; read < MAX_COVER_BYTES;) {
      const length = await io.read(into);
      if (length === null) return;
      read += length;
    }
  })().catch(() => {}); // a cover has nothing to say to anybody
  return { close: () => io.close() };
}

async function resolveHost(hostname: string): Promise<string[]> {
  const answers = await Promise.allSettled([
    Deno.resolveDns(hostname, "A"),
    Deno.resolveDns(hostname, "AAAA"),
  ]);
  return answers.flatMap((answer) => answer.status === "fulfilled" ? answer.value : []);
}

/** The normal form of `https://host[:port]`; a bare `host[:port]` is taken for one. */
function originOf(text: string): string {
  let url: URL;
  try {
    url = new URL(text.includes("://") ? text : `https://${text}`);
  } catch {
    throw new TypeError("Cannot plan fallback: a cover is not https://host[:port]");
  }
  if (
    url.protocol !== "https:" || url.username !== "" || url.pathname !== "/" || url.search !== "" ||
    url.hash !== ""
  ) {
    throw new TypeError("Cannot plan fallback: a cover is not https://host[:port]");
  }
  return url.origin;
}

/** A whole number of `range`, each as likely. */
function draw(range: Range, random: (length: number) => Uint8Array): number {
  const span = range.max - range.min + 1;
  const limit = 2 ** 32 - 2 ** 32 % span; // words at or above it would favour the low values
  for (;;) {
    const bytes = random(4);
    const word = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
    if (word < limit) return range.min + word % span;
  }
}
