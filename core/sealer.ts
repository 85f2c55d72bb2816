/**
 * Sealing frames for one direction, and replacing its keys in time (HTX 1.1 §2).
 *
 * @module
 */

import { FrameType, MAX_HEADER_LENGTH, MAX_PLAINTEXT_LENGTH, TAG_LENGTH, writeHeader } from "./frame.ts";
import type { TrafficKeys } from "./keys.ts";
import type { ResolvedLimits } from "./limits.ts";
import type { SessionStats } from "./session_types.ts";

/** Bytes of a frame without plaintext or stream id, such as a KEY_UPDATE. */
const EMPTY_FRAME_LENGTH = 4 + TAG_LENGTH;

/** A receiver puts up with this many KEY_UPDATEs in any run of so many frames (HTX 1.1 §3: one per 16 over 1024). */
const PACE_FRAMES = 1024;
const PACE_UPDATES = PACE_FRAMES / 16;
/** From this limit on full frames fill a key slowly enough. */
const UNPACED_BYTES = 16 * MAX_PLAINTEXT_LENGTH;
/** Frames that fill a key under a lower one, where that is not slow enough. */
const SLOW_FRAMES = 32;
/** The most that a frame takes beside its plaintext, with a KEY_UPDATE before it and the empty frames that slow that down. */
export const FRAME_OVERHEAD: number = (SLOW_FRAMES - 1) * EMPTY_FRAME_LENGTH + MAX_HEADER_LENGTH + TAG_LENGTH;

const EMPTY = /* @__PURE__ */ new Uint8Array(0);

/** Writes sealed frames into a buffer; a KEY_UPDATE goes before the frame that would pass a limit. */
export class FrameSealer {
  /** Whether a KEY_UPDATE was asked for, due or not. */
  updateAsked = false;
  readonly #keys: TrafficKeys;
  readonly #limits: ResolvedLimits;
  readonly #stats: SessionStats;
  readonly #onUpdate: () => void;
  #since: number;
  /** Numbers of the frames that were the last KEY_UPDATEs, as a ring. */
  readonly #updates: number[] = [];
  /** Frames under one key, at the least, where a limit on bytes calls for KEY_UPDATEs all the time. */
  readonly #period: number;
  /** KEY_UPDATEs in a run of frames that may come early: those that the limits call for need the others. */
  readonly #rush: number;

  /** `now`: when the keys were made, on the session's clock. */
  constructor(
    keys: TrafficKeys,
    limits: ResolvedLimits,
    stats: SessionStats,
    now: number,
    onUpdate: () => void,
  ) {
    this.#keys = keys;
    this.#limits = limits;
    this.#stats = stats;
    this.#since = now;
    this.#onUpdate = onUpdate;
    const { rekeyBytes, rekeyFrames } = limits;
    this.#period = Math.min(
      rekeyFrames,
      rekeyBytes >= UNPACED_BYTES ? Math.floor(rekeyBytes / MAX_PLAINTEXT_LENGTH) : SLOW_FRAMES,
    );
    this.#rush = PACE_UPDATES - Math.ceil(PACE_FRAMES / this.#period);
  }

  /** Whether a KEY_UPDATE was asked for and the peer puts up with it now: else it waits until it does. */
  get updateDue(): boolean {
    return this.updateAsked && this.mayRush;
  }

  /** Whether the peer puts up with a KEY_UPDATE now that no count of frames or bytes calls for. */
  get mayRush(): boolean {
    const { rekeysSent, framesSent } = this.#stats;
    if (rekeysSent < this.#rush) return true;
    return this.#rush > 0 &&
      framesSent + 1 - this.#updates[(rekeysSent - this.#rush) % PACE_UPDATES]! >= PACE_FRAMES;
  }

  /** Whether the keys have served their time at `now`, and the next frame but for fillers is to be a KEY_UPDATE. */
  aged(now: number): boolean {
    return now - this.#since >= this.#limits.rekeyMs;
  }

  /**
   * Plaintext bytes of the largest data frame to seal now. Smaller than `rekeyBytes` where that is so low that full
   * frames would take more KEY_UPDATEs than a receiver puts up with (HTX 1.1 §3: one per 16 frames over 1024).
   */
  get frameLimit(): number {
    const { rekeyBytes } = this.#limits;
    if (rekeyBytes >= UNPACED_BYTES) return MAX_PLAINTEXT_LENGTH;
    return Math.min(MAX_PLAINTEXT_LENGTH, this.mayRush ? rekeyBytes : Math.ceil(rekeyBytes / SLOW_FRAMES));
  }

  /** How often the keys were replaced. */
  get generation(): number {
    return this.#keys.generation;
  }

  /**
   * Seals a frame at `start` of `into`, which has room for {@linkcode FRAME_OVERHEAD} beside it; the index past it.
   */
  seal(
    type: number,
    streamId: number | undefined,
    plaintext: Uint8Array,
    into: Uint8Array,
    start: number,
    now: number,
  ): number {
    const { counter, bytes } = this.#keys;
    const { rekeyFrames, rekeyBytes } = this.#limits;
    // HTX 1.1 §2: before any of the limits is passed, and itself at the latest the last frame under its key. The age
    // is looked at once a batch, by who fills it.
    let at = start;
    const full = counter > 0 && bytes + plaintext.length > rekeyBytes;
    if (full) at = this.#stretch(into, at);
    if (full || this.updateDue || counter >= rekeyFrames - 1) at = this.update(into, at, now);
    return this.#write(type, streamId, plaintext, into, at);
  }

  /** Seals a KEY_UPDATE at `start` of `into` and goes on to the next keys; the index past it. */
  update(into: Uint8Array, start: number, now: number): number {
    const at = this.#write(FrameType.KEY_UPDATE, undefined, EMPTY, into, start);
    this.#keys.update();
    this.#since = now;
    this.updateAsked = false;
    this.#updates[this.#stats.rekeysSent++ % PACE_UPDATES] = this.#stats.framesSent;
    this.#onUpdate();
    return at;
  }

  /**
   * Frames without a byte, until the peer puts up with a KEY_UPDATE: under a limit of a few bytes control frames, which
   * cannot be made smaller, fill keys too fast, and so does the last frame that was made large while there was time.
   */
  #stretch(into: Uint8Array, start: number): number {
    let at = start;
    while (this.#keys.counter < this.#period - 1 && !this.mayRush) {
      at = this.#write(FrameType.PING, undefined, EMPTY, into, at);
    }
    return at;
  }

  /** Overwrites the keys; the object is of no use afterwards. */
  wipe(): void {
    this.#keys.wipe();
  }

  #write(
    type: number,
    streamId: number | undefined,
    plaintext: Uint8Array,
    into: Uint8Array,
    start: number,
  ): number {
    const bodyAt = start + writeHeader(type, streamId, plaintext.length, into, start);
    this.#keys.seal(into.subarray(start, bodyAt), plaintext, into, bodyAt);
    this.#stats.framesSent++;
    return bodyAt + plaintext.length + TAG_LENGTH;
  }
}
