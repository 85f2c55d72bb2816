/**
 * Sealing frames for one direction, and replacing its keys in time (HTX 1.1 §2).
 *
 * @module
 */

import { FrameType, MAX_HEADER_LENGTH, TAG_LENGTH, writeHeader } from "./frame.ts";
import type { TrafficKeys } from "./keys.ts";
import type { ResolvedLimits } from "./limits.ts";
import type { SessionStats } from "./session_types.ts";

/** Bytes of a KEY_UPDATE frame. */
const KEY_UPDATE_LENGTH = 4 + TAG_LENGTH;
/** The most that a frame takes beside its plaintext, with a KEY_UPDATE before it. */
export const FRAME_OVERHEAD: number = KEY_UPDATE_LENGTH + MAX_HEADER_LENGTH + TAG_LENGTH;

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
  }

  /** How often the keys were replaced. */
  get generation(): number {
    return this.#keys.generation;
  }

  /** Seals a frame at `start` of `into`, which has room for {@linkcode FRAME_OVERHEAD} beside it; the index past it. */
  seal(
    type: number,
    streamId: number | undefined,
    plaintext: Uint8Array,
    into: Uint8Array,
    start: number,
    now: number,
  ): number {
    const { counter, bytes } = this.#keys;
    const { rekeyFrames, rekeyBytes, rekeyMs } = this.#limits;
    // HTX 1.1 §2: before any of the limits is passed, and itself at the latest the last frame under its key.
    const due = counter >= rekeyFrames - 1 || now - this.#since >= rekeyMs ||
      counter > 0 && bytes + plaintext.length > rekeyBytes;
    return this.#write(type, streamId, plaintext, into, due ? this.update(into, start, now) : start);
  }

  /** Seals a KEY_UPDATE at `start` of `into` and goes on to the next keys; the index past it. */
  update(into: Uint8Array, start: number, now: number): number {
    const at = this.#write(FrameType.KEY_UPDATE, undefined, EMPTY, into, start);
    this.#keys.update();
    this.#since = now;
    this.updateAsked = false;
    this.#stats.rekeysSent++;
    this.#onUpdate();
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
