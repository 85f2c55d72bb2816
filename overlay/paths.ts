/**
 * Several paths to one destination: which are usable, which is best, when to probe, when to switch.
 *
 * A {@linkcode PathSet} does no I/O and has no timer: it is told what happened and what time it is, and answers what
 * to do. A path is an opaque id; what it stands for (an upstream, a local address, a SCION path) is the caller's.
 *
 *     add ──> unvalidated ──succeeded──> validated ──failed, stalled──> failed
 *                  ^  `──failed──> failed ──succeeded──> validated        |
 *                  '── probe due at once          probe due after 1, 2, 4 … 60 s
 *
 * "At most 3 disjoint validated paths to a peer; on failure switch to a validated alternative within 300 ms; probe
 * with exponential back-off from 1 s to 60 s, and under lasting loss never more than one probe per destination in
 * 10 s." (Betanet 1.1, overlay rules)
 *
 * This module is browser compatible.
 *
 * @module
 */

import { areDisjoint } from "./_collections.ts";

/** "At most 3 disjoint validated paths to a peer." */
export const MAX_PATHS = 3;
/** "On failure switch to a validated alternative within 300 ms." */
export const FAILOVER_MS = 300;
/** "Probe with exponential back-off from 1 s …" */
export const PROBE_MIN_MS = 1_000;
/** "… to 60 s." */
export const PROBE_MAX_MS = 60_000;
/** "Under lasting loss never more than one probe per destination in 10 s." */
export const LASTING_LOSS_PROBE_INTERVAL_MS = 10_000;
/** Loss on a path is lasting once the path has been silent this long since it failed (our choice of length). */
export const LASTING_LOSS_AFTER_MS = 10_000;
/** Results per path that its loss is computed from (our choice). */
export const LOSS_WINDOW = 32;

/** Least time without the awaited answer after which a path counts as stalled: leaves 50 ms of the 300 for the switch. */
const STALL_MS = 250;
const PROBE_TIMEOUT_MS = 3_000;
/** Weight of a new round-trip sample, as in RFC 6298 §2: SRTT <- 7/8 SRTT + 1/8 R'. */
const RTT_GAIN = 1 / 8;

/** How far a path can be relied on. */
export type PathState = "unvalidated" | "validated" | "failed";

/** A path to add. */
export interface PathInit {
  /** Any name, unique in the set. */
  id: string;
  /**
   * What the path runs over (links, AS numbers, hosts), for the test of disjointness: two paths that name one
   * element in common are not disjoint. Without elements the caller vouches for it.
   *
   * @default {[]}
   */
  elements?: Iterable<string> | undefined;
  /** Whether the caller has just seen the path work. @default {false} */
  validated?: boolean | undefined;
}

/** The answer to {@linkcode PathSet.add}. */
export type PathVerdict =
  | { readonly ok: true }
  | {
    readonly ok: false;
    readonly reason: "full" | "duplicate" | "not-disjoint";
    readonly conflict?: string;
  };

/** That traffic has to move. */
export interface PathSwitch {
  /** The path used so far. */
  readonly from: string | undefined;
  /** The path to use now; `undefined` when none is validated. */
  readonly to: string | undefined;
  /** Why. */
  readonly reason: "first" | "failed" | "stalled" | "better" | "removed";
  /** When the reason was noticed, in ms. */
  readonly at: number;
  /** By when traffic must flow on `to`, in ms: after that, report `to` as failed. */
  readonly deadline: number;
}

/** What is known of a path. */
export interface PathInfo {
  /** Its name. */
  readonly id: string;
  /** How far it can be relied on. */
  readonly state: PathState;
  /** Results in the window. */
  readonly results: number;
  /** Losses among them. */
  readonly losses: number;
  /** `losses / results`, 0 without results. */
  readonly loss: number;
  /** Smoothed round-trip time in ms, if one was measured. */
  readonly rtt: number | undefined;
  /** Failures in a row since it last worked. */
  readonly failures: number;
  /** When it stopped working, in ms. */
  readonly failedSince: number | undefined;
  /** When its next probe is due by its own back-off, in ms; `Infinity` when none is planned. */
  readonly nextProbeAt: number;
  /** Whether a probe is under way. */
  readonly probing: boolean;
}

/** Settings of a {@linkcode PathSet}. */
export interface PathSetOptions {
  /** Most paths kept, 1 to 3. @default {3} */
  maxPaths?: number | undefined;
  /** Time without an expected answer that counts as a stall (twice the round-trip time if longer), in ms, at most 300. @default {250} */
  stallMs?: number | undefined;
  /** Time after which a probe without an answer is lost, in ms. @default {3000} */
  probeTimeoutMs?: number | undefined;
  /** Idle time after which a validated path is probed again, in ms; 0 never. @default {60000} */
  revalidateMs?: number | undefined;
  /** How much faster another path of equal loss must be before traffic moves to it, in ms. @default {0} */
  rttMarginMs?: number | undefined;
}

interface Path {
  readonly id: string;
  readonly elements: ReadonlySet<string>;
  state: PathState;
  /** Ring of the last results, true = lost. */
  readonly window: boolean[];
  rtt: number | undefined;
  failures: number;
  failedSince: number | undefined;
  nextProbeAt: number;
  probeSentAt: number | undefined;
  /** Time of the oldest thing that still waits for its answer. */
  expectedSince: number | undefined;
}

/**
 * Orders two paths, better first: lower loss, then lower round-trip time; one that was never measured comes last.
 * Loss is compared as a fraction of counts, without rounding.
 */
export function comparePaths(
  a: Pick<PathInfo, "results" | "losses" | "rtt">,
  b: Pick<PathInfo, "results" | "losses" | "rtt">,
): number {
  // a.losses / a.results against b.losses / b.results, cross-multiplied; no results mean no loss.
  const loss = a.losses * Math.max(b.results, 1) - b.losses * Math.max(a.results, 1);
  if (loss !== 0) return loss;
  if (a.rtt === b.rtt) return 0;
  return (a.rtt ?? Infinity) - (b.rtt ?? Infinity);
}

/**
 * The paths to one destination.
 *
 * Report results with {@linkcode PathSet.succeeded}, {@linkcode PathSet.lost} and {@linkcode PathSet.failed}; ask
 * {@linkcode PathSet.active} where to send; call {@linkcode PathSet.settle} and {@linkcode PathSet.probe} when
 * {@linkcode PathSet.nextWakeAt} has come. Times are in ms on any clock that does not go back (if it does, the
 * latest time seen counts).
 *
 * @example Fail-over between two upstreams
 * ```ts
 * import { PathSet } from "@betanet/htx/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const paths = new PathSet();
 * paths.add({ id: "a", validated: true }, 0);
 * paths.add({ id: "b", validated: true }, 0);
 * assertEquals(paths.active, "a");
 *
 * const moved = paths.failed("a", 5_000);
 * assertEquals(moved, { from: "a", to: "b", reason: "failed", at: 5_000, deadline: 5_300 });
 * assertEquals(paths.probe(5_999), undefined);
 * assertEquals(paths.probe(6_000), "a"); // 1 s later; the answer makes it usable again
 * paths.succeeded("a", 6_020, { rtt: 20 });
 * assertEquals(paths.candidates().length, 2);
 * ```
 */
export class PathSet {
  readonly #paths = new Map<string, Path>();
  readonly #maxPaths: number;
  readonly #stallMs: number;
  readonly #probeTimeoutMs: number;
  readonly #revalidateMs: number;
  readonly #rttMarginMs: number;
  #active: string | undefined;
  #now = -Infinity;
  #lastProbeAt = -Infinity;

  /**
   * Makes an empty set.
   *
   * @throws {RangeError} when an option is out of its range
   */
  constructor(options: PathSetOptions = {}) {
    const {
      maxPaths = MAX_PATHS,
      stallMs = STALL_MS,
      probeTimeoutMs = PROBE_TIMEOUT_MS,
      revalidateMs = PROBE_MAX_MS,
      rttMarginMs = 0,
    } = options;
    if (!Number.isInteger(maxPaths) || maxPaths < 1 || maxPaths > MAX_PATHS) {
      throw new RangeError(`Cannot make path set: maxPaths is ${maxPaths}, not 1 to ${MAX_PATHS}`);
    }
    if (!(stallMs > 0 && stallMs <= FAILOVER_MS)) {
      throw new RangeError(
        `Cannot make path set: stallMs is ${stallMs}, not above 0 and at most ${FAILOVER_MS}`,
      );
    }
    if (!(probeTimeoutMs > 0)) {
      throw new RangeError(`Cannot make path set: probeTimeoutMs is ${probeTimeoutMs}`);
    }
    if (!(revalidateMs === 0 || revalidateMs >= PROBE_MIN_MS)) {
      throw new RangeError(
        `Cannot make path set: revalidateMs is ${revalidateMs}, not 0 or at least ${PROBE_MIN_MS}`,
      );
    }
    if (!(rttMarginMs >= 0)) throw new RangeError(`Cannot make path set: rttMarginMs is ${rttMarginMs}`);
    this.#maxPaths = maxPaths;
    this.#stallMs = stallMs;
    this.#probeTimeoutMs = probeTimeoutMs;
    this.#revalidateMs = revalidateMs;
    this.#rttMarginMs = rttMarginMs;
  }

  /** Number of paths. */
  get size(): number {
    return this.#paths.size;
  }

  /** The path to send on; `undefined` when none is validated. */
  get active(): string | undefined {
    return this.#active;
  }

  /** The validated paths, best first. */
  candidates(): string[] {
    return [...this.#paths.values()].filter((path) => path.state === "validated").map(describe).sort(
      comparePaths,
    )
      .map((path) => path.id);
  }

  /** What is known of each path, in the order they were added. */
  snapshot(): PathInfo[] {
    return [...this.#paths.values()].map(describe);
  }

  /** Adds a path. The first probe of one not yet validated is due at once. */
  add(init: PathInit, now: number): PathVerdict {
    this.#tick(now);
    const { id, validated = false } = init;
    const elements = new Set(init.elements);
    if (this.#paths.has(id)) return { ok: false, reason: "duplicate", conflict: id };
    for (const other of this.#paths.values()) {
      if (!areDisjoint(elements, other.elements)) {
        return { ok: false, reason: "not-disjoint", conflict: other.id };
      }
    }
    if (this.#paths.size >= this.#maxPaths) return { ok: false, reason: "full" };
    this.#paths.set(id, {
      id,
      elements,
      state: validated ? "validated" : "unvalidated",
      window: [],
      rtt: undefined,
      failures: 0,
      failedSince: undefined,
      nextProbeAt: validated ? this.#revalidateAt() : this.#now,
      probeSentAt: undefined,
      expectedSince: undefined,
    });
    this.#choose("first");
    return { ok: true };
  }

  /** Forgets a path. */
  remove(id: string, now: number): PathSwitch | undefined {
    this.#tick(now);
    this.#paths.delete(id);
    return this.#choose("removed");
  }

  /** Reports that the path carried something and it was answered: it is validated. `rtt` in ms, if measured. */
  succeeded(id: string, now: number, options: { rtt?: number | undefined } = {}): PathSwitch | undefined {
    this.#tick(now);
    const path = this.#get(id);
    const { rtt } = options;
    if (rtt !== undefined && !(rtt >= 0 && rtt < Infinity)) {
      throw new RangeError(`Cannot report success: rtt is ${rtt}`);
    }
    note(path, false);
    if (rtt !== undefined) path.rtt = path.rtt === undefined ? rtt : path.rtt + RTT_GAIN * (rtt - path.rtt);
    path.state = "validated";
    path.failures = 0;
    path.failedSince = undefined;
    path.expectedSince = undefined;
    path.probeSentAt = undefined;
    path.nextProbeAt = this.#revalidateAt();
    return this.#choose("better");
  }

  /** Reports one lost message on a path that is otherwise still believed to work. */
  lost(id: string, now: number): PathSwitch | undefined {
    this.#tick(now);
    note(this.#get(id), true);
    return this.#choose("better");
  }

  /**
   * Reports that the path does not work: refused, reset, gone, or a probe without an answer. Many reports of one
   * failure (all the requests that were on it) lengthen the back-off only once.
   */
  failed(id: string, now: number): PathSwitch | undefined {
    this.#tick(now);
    this.#fail(this.#get(id));
    return this.#choose("failed");
  }

  /** Notes that something was sent which the path must answer soon; any success on the path ends the wait. */
  expect(id: string, now: number): void {
    this.#tick(now);
    const path = this.#get(id);
    path.expectedSince ??= this.#now;
  }

  /** Settles what time alone decides: answers that did not come, probes that were lost. */
  settle(now: number): PathSwitch | undefined {
    this.#tick(now);
    let stalled = false;
    for (const path of this.#paths.values()) {
      if (this.#stallsAt(path) <= this.#now) {
        stalled ||= path.id === this.#active;
        this.#fail(path);
      } else if (path.probeSentAt !== undefined && path.probeSentAt + this.#probeTimeoutMs <= this.#now) {
        this.#fail(path);
      }
    }
    return this.#choose(stalled ? "stalled" : "failed");
  }

  /**
   * The path to probe now, if one is due: the caller sends the probe and reports `succeeded` or `failed`. Call again
   * until it answers `undefined`.
   */
  probe(now: number): string | undefined {
    this.#tick(now);
    let due: Path | undefined;
    for (const path of this.#paths.values()) {
      if (path.probeSentAt !== undefined || this.#probeAt(path) > this.#now) continue;
      // The one due longest goes first, so that none starves where only one may be probed.
      if (!due || path.nextProbeAt < due.nextProbeAt) due = path;
    }
    if (!due) return undefined;
    due.probeSentAt = this.#now;
    this.#lastProbeAt = this.#now;
    return due.id;
  }

  /** When to call `settle` and `probe` next, in ms; `Infinity` when nothing is planned. */
  nextWakeAt(): number {
    let next = Infinity;
    for (const path of this.#paths.values()) {
      next = Math.min(
        next,
        this.#stallsAt(path),
        path.probeSentAt === undefined ? this.#probeAt(path) : path.probeSentAt + this.#probeTimeoutMs,
      );
    }
    return next;
  }

  #tick(now: number): void {
    if (!Number.isFinite(now)) throw new RangeError(`Cannot use path set: the time is ${now}`);
    this.#now = Math.max(this.#now, now);
  }

  #get(id: string): Path {
    const path = this.#paths.get(id);
    if (!path) throw new RangeError(`Cannot use path: the set has none named ${JSON.stringify(id)}`);
    return path;
  }

  #fail(path: Path): void {
    note(path, true);
    const news = path.state !== "failed" || path.probeSentAt !== undefined;
    path.expectedSince = undefined;
    path.probeSentAt = undefined;
    if (!news) return;
    path.state = "failed";
    path.failedSince ??= this.#now;
    path.failures++;
    // "exponential back-off from 1 s to 60 s": 1, 2, 4, 8, 16, 32, 60, 60 …
    path.nextProbeAt = this.#now +
      Math.min(PROBE_MAX_MS, PROBE_MIN_MS * 2 ** Math.min(path.failures - 1, 16));
  }

  /** When the path's probe may go out: by its own back-off and by the limit of the destination. */
  #probeAt(path: Path): number {
    // Every probe to the destination counts, whichever path it takes, from the moment one path is lost lastingly.
    let lastingFrom = Infinity;
    for (const { failedSince } of this.#paths.values()) {
      if (failedSince !== undefined) lastingFrom = Math.min(lastingFrom, failedSince + LASTING_LOSS_AFTER_MS);
    }
    const at = path.nextProbeAt;
    const apart = this.#lastProbeAt + LASTING_LOSS_PROBE_INTERVAL_MS;
    return Math.max(at, this.#now) >= lastingFrom ? Math.max(at, apart) : at;
  }

  #stallsAt(path: Path): number {
    if (path.expectedSince === undefined) return Infinity;
    return path.expectedSince + Math.max(this.#stallMs, 2 * (path.rtt ?? 0));
  }

  #revalidateAt(): number {
    return this.#revalidateMs === 0 ? Infinity : this.#now + this.#revalidateMs;
  }

  /** Makes the best validated path the active one; says so if that is a change. */
  #choose(reason: PathSwitch["reason"]): PathSwitch | undefined {
    const from = this.#active;
    const current = from === undefined ? undefined : this.#paths.get(from);
    let [to] = this.candidates();
    if (current?.state === "validated" && to !== undefined && !this.#isBetter(this.#get(to), current)) {
      to = from;
    }
    if (to === from) return undefined;
    this.#active = to;
    return {
      from,
      to,
      reason: from === undefined ? "first" : current?.state === "validated" ? "better" : reason,
      at: this.#now,
      deadline: this.#now + FAILOVER_MS,
    };
  }

  /** Whether `a` is so much better than `b` that traffic moves. */
  #isBetter(path: Path, other: Path): boolean {
    const [a, b] = [describe(path), describe(other)];
    if (comparePaths(a, b) >= 0) return false;
    const sameLoss = comparePaths({ ...a, rtt: 0 }, { ...b, rtt: 0 }) === 0;
    return !sameLoss || b.rtt === undefined || (a.rtt ?? Infinity) + this.#rttMarginMs < b.rtt;
  }
}

function note(path: Path, lost: boolean): void {
  path.window.push(lost);
  if (path.window.length > LOSS_WINDOW) path.window.shift();
}

function describe(path: Path): PathInfo {
  const results = path.window.length;
  const losses = path.window.reduce((sum, lost) => sum + Number(lost), 0);
  return {
    id: path.id,
    state: path.state,
    results,
    losses,
    loss: results === 0 ? 0 : losses / results,
    rtt: path.rtt,
    failures: path.failures,
    failedSince: path.failedSince,
    nextProbeAt: path.nextProbeAt,
    probing: path.probeSentAt !== undefined,
  };
}
