/**
 * What a session does because time has passed (HTX 1.1 §3, §4): what it waits for no longer, and the traffic that it
 * makes of itself. Nothing runs here: the session tells what happened, asks when to look again, and then what is due.
 *
 * @module
 */

import { sameBytes } from "./close.ts";
import { HtxError } from "./errors.ts";
import { drawUniform, type ResolvedLimits } from "./limits.ts";

/** Bytes of data in a keepalive. */
const KEEPALIVE_LENGTH = 8;
/** The longest padding, in bytes (HTX 1.1 §4). */
const MAX_PADDING = 3072;

/** The times of one session, on its clock. */
export class SessionTimers {
  /** Since when a begun frame waits for its rest. */
  frameSince: number | undefined;
  /** Since when there has been no stream. */
  idleSince: number | undefined;
  /** When this side's CLOSE was sealed. */
  closeSentAt: number | undefined;

  readonly #limits: ResolvedLimits;
  readonly #random: (length: number) => Uint8Array;
  #stopped = false;
  #keepaliveAt: number | undefined;
  /** The keepalive that waits for its answer. */
  #asked: { readonly data: Uint8Array; readonly at: number } | undefined;
  #paddingAt: number | undefined;

  /** `now`: when the session began. */
  constructor(limits: ResolvedLimits, random: (length: number) => Uint8Array, now: number) {
    this.#limits = limits;
    this.#random = random;
    this.idleSince = now;
    this.#scheduleKeepalive(now);
    this.dataSent(now);
  }

  /** When something is due next; `undefined` where nothing will be. */
  get next(): number | undefined {
    const { frameTimeoutMs, keepaliveTimeoutMs, idleTimeoutMs } = this.#limits;
    const next = Math.min(
      end(this.frameSince, frameTimeoutMs),
      end(this.#asked?.at, keepaliveTimeoutMs),
      end(this.idleSince, idleTimeoutMs),
      this.#keepaliveAt ?? Infinity,
      this.#paddingAt ?? Infinity,
    );
    return next === Infinity ? undefined : next;
  }

  /** When the peer's CLOSE is waited for no longer; `undefined` while this side's was not sent. */
  get closeEnd(): number | undefined {
    return this.closeSentAt === undefined ? undefined : this.closeSentAt + this.#limits.closeTimeoutMs;
  }

  /** Why the session has to fail by now; `undefined` where it has not. */
  failure(now: number): HtxError | undefined {
    const { frameTimeoutMs, keepaliveTimeoutMs } = this.#limits;
    if (now >= end(this.frameSince, frameTimeoutMs)) {
      return new HtxError(
        "TIMEOUT",
        `Session ended: a begun frame did not arrive within ${frameTimeoutMs} ms`,
      );
    }
    if (now >= end(this.#asked?.at, keepaliveTimeoutMs)) {
      return new HtxError(
        "TIMEOUT",
        `Session ended: no answer to a keepalive within ${keepaliveTimeoutMs} ms`,
      );
    }
    return undefined;
  }

  /** Whether the session has had no stream for too long. */
  idle(now: number): boolean {
    return now >= end(this.idleSince, this.#limits.idleTimeoutMs);
  }

  /** The data of the keepalive to ask now, if one is due; none is while another waits for its answer. */
  takeKeepalive(now: number): Uint8Array | undefined {
    if (this.#keepaliveAt === undefined || now < this.#keepaliveAt) return undefined;
    this.#scheduleKeepalive(now);
    if (this.#asked !== undefined) return undefined;
    this.#asked = { data: this.#random(KEEPALIVE_LENGTH).slice(), at: now };
    return this.#asked.data;
  }

  /** Whether `data` is the answer to the keepalive, which then waits no longer. */
  answers(data: Uint8Array): boolean {
    if (this.#asked === undefined || !sameBytes(data, this.#asked.data)) return false;
    this.#asked = undefined;
    return true;
  }

  /** The length of the padding to send now, if some is due. */
  takePadding(now: number): number | undefined {
    if (this.#paddingAt === undefined || now < this.#paddingAt) return undefined;
    const length = drawUniform({ min: 0, max: MAX_PADDING }, this.#random);
    this.dataSent(now);
    return length;
  }

  /** Data went out: padding is not due before a while without any. */
  dataSent(now: number): void {
    const { padding } = this.#limits;
    if (padding !== undefined && !this.#stopped) this.#paddingAt = now + drawUniform(padding, this.#random);
  }

  /** The session is ending: only the peer's CLOSE is waited for. */
  stop(): void {
    this.#stopped = true;
    this.frameSince =
      this.idleSince =
      this.#keepaliveAt =
      this.#paddingAt =
        undefined;
    this.#asked = undefined;
  }

  #scheduleKeepalive(now: number): void {
    const { keepalive } = this.#limits;
    if (keepalive !== undefined) this.#keepaliveAt = now + drawUniform(keepalive, this.#random);
  }
}

/** When what began at `since` has taken `limit` ms; 0 is no limit. */
function end(since: number | undefined, limit: number): number {
  return since === undefined || limit === 0 ? Infinity : since + limit;
}
