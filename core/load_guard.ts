/**
 * What a session puts up with from its peer (HTX 1.1 §3, §4), and how it keeps to that itself.
 *
 * @module
 */

import { HtxError } from "./errors.ts";

/** Unknown types or empty PINGs in a row (HTX 1.1 §3). */
const MAX_IDLE_FRAMES = 1000;
/** KEY_UPDATEs in a run of frames (HTX 1.1 §3: more than one per 16 frames over 1024). */
const KEY_UPDATE_SPAN = 1024;
const KEY_UPDATES_PER_SPAN = KEY_UPDATE_SPAN / 16;
/** Resets by the peer of its own streams in `RESET_SPAN_MS` (HTX 1.1 §4). */
const MAX_RESETS = 1000;
const RESET_SPAN_MS = 10_000;
/** As many resets of this side's go out in this time: what comes together after a path stood still is not too many, either. */
const OWN_RESET_SPAN_MS = 2 * RESET_SPAN_MS;

/** Counts what costs the peer little and this side something. Each method throws `EXCESSIVE_LOAD` past its bound. */
export class LoadGuard {
  #idleFrames = 0;
  readonly #keyUpdates: Ring = new Ring(KEY_UPDATES_PER_SPAN);
  readonly #resets: Ring = new Ring(MAX_RESETS);

  /** A frame came; `idle` when it was of an unknown type or an empty PING. */
  frame(idle: boolean): void {
    if (!idle) this.#idleFrames = 0;
    else if (++this.#idleFrames > MAX_IDLE_FRAMES) {
      throw new HtxError(
        "EXCESSIVE_LOAD",
        `Session ended: more than ${MAX_IDLE_FRAMES} idle frames in a row`,
      );
    }
  }

  /** A KEY_UPDATE came as the `frame`th frame. */
  keyUpdate(frame: number): void {
    if (frame - this.#keyUpdates.exchange(frame) < KEY_UPDATE_SPAN) {
      throw new HtxError("EXCESSIVE_LOAD", "Session ended: more than one KEY_UPDATE per 16 frames");
    }
  }

  /** The peer reset a stream of its own, at `now` in ms. */
  reset(now: number): void {
    if (now - this.#resets.exchange(now) < RESET_SPAN_MS) {
      throw new HtxError(
        "EXCESSIVE_LOAD",
        `Session ended: more than ${MAX_RESETS} streams were reset in 10 s`,
      );
    }
  }
}

/** Keeps the resets of this side's own streams to what every peer puts up with. */
export class ResetPace {
  readonly #sent: Ring = new Ring(MAX_RESETS);

  /** One goes out, at `now` in ms. */
  sent(now: number): void {
    this.#sent.exchange(now);
  }

  /** When another may go out behind `waiting` that are about to; `Infinity` before one of those has gone. */
  next(waiting: number): number {
    return waiting < MAX_RESETS ? this.#sent.peek(waiting) + OWN_RESET_SPAN_MS : Infinity;
  }
}

/** The last so many values; made when first used, since most sessions never need it. */
class Ring {
  readonly #size: number;
  #values: Float64Array | undefined;
  #next = 0;

  constructor(size: number) {
    this.#size = size;
  }

  /** Puts `value` in and takes out the one from `size` exchanges ago, `-Infinity` where there was none. */
  exchange(value: number): number {
    const values = this.#values ??= new Float64Array(this.#size).fill(-Infinity);
    const at = this.#next++ % this.#size;
    const old = values[at]!;
    values[at] = value;
    return old;
  }

  /** What the exchange after `others` more will take out. */
  peek(others: number): number {
    return this.#values?.[(this.#next + others) % this.#size] ?? -Infinity;
  }
}
