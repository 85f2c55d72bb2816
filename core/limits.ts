/**
 * The bounds of a session, each an option with its default (HTX 1.1 §2 to §4).
 *
 * @module
 */

/** Frames under one key, of all types, the KEY_UPDATE included (HTX 1.1 §2). */
export const MAX_FRAMES_PER_KEY = 65_536;
/** Plaintext bytes under one key: 8 GiB (HTX 1.1 §2). */
export const MAX_BYTES_PER_KEY: number = 8 * 1024 ** 3;
/** How long a key serves: 1 h, in ms (HTX 1.1 §2). */
export const MAX_KEY_AGE_MS = 3_600_000;
/** The window that each direction of a stream begins with, in bytes (HTX 1.1 §4). */
export const INITIAL_WINDOW = 65_535;
/** The largest window, in bytes (HTX 1.1 §4). */
export const MAX_WINDOW: number = 2 ** 31 - 1;

/** A range to draw from uniformly, in ms or bytes. */
export interface UniformRange {
  /** The least value. */
  readonly min: number;
  /** The greatest value. */
  readonly max: number;
}

/** When the keys of the outgoing direction are replaced. All three can only be lowered. */
export interface RekeyLimits {
  /** Frames under one key, 16 to 65 536. @default {65536} */
  afterFrames?: number | undefined;
  /**
   * Plaintext bytes under one key. Below 1 MiB frames are smaller, and some of them empty PINGs, since HTX 1.1 §3 wants
   * 16 for each KEY_UPDATE.
   *
   * @default {8589934592}
   */
  afterBytes?: number | undefined;
  /** Age of a key in ms. @default {3600000} */
  afterMs?: number | undefined;
}

/** The bounds and habits of a session; every field has a default. */
export interface SessionLimits {
  /** When the sending keys are replaced (HTX 1.1 §2). */
  rekey?: RekeyLimits | undefined;
  /** Streams that the peer may have open at once. @default {256} */
  maxPeerStreams?: number | undefined;
  /** Streams that this side opens at once; more wait. @default {256} */
  maxLocalStreams?: number | undefined;
  /** The largest receive window that a stream may grow to, in bytes, 65 535 or more. @default {1048576} */
  maxStreamWindow?: number | undefined;
  /** What all receive windows of a session together may grow by, in bytes. @default {16777216} */
  receiveBudget?: number | undefined;
  /**
   * What a stream holds of data that is not sealed yet, in bytes: a write within it is copied and done at once; one
   * past it is held by reference and waits.
   *
   * @default {262144}
   */
  sendBuffer?: number | undefined;
  /** Whether this side ends streams with STREAM_END; off, with an empty STREAM, for peers that know only types 0 to 4. @default {true} */
  streamEnd?: boolean | undefined;
  /** How long a begun frame may take to arrive, in ms; 0 turns it off. @default {30000} */
  frameTimeoutMs?: number | undefined;
  /**
   * How long one write to the carrier may take, in ms: at most 320 KiB, and a carrier does not tell how far it has come with
   * them, so a link has to be faster than that. 0 turns it off.
   *
   * @default {60000}
   */
  writeTimeoutMs?: number | undefined;
  /** How long a keepalive may stay unanswered, in ms; 0 turns it off. @default {30000} */
  keepaliveTimeoutMs?: number | undefined;
  /** How long a session may be without streams, in ms; 0 turns it off. @default {300000} */
  idleTimeoutMs?: number | undefined;
  /** How long an ending session waits for a write, then for the peer's CLOSE, then for its end, in ms. @default {1000} */
  closeTimeoutMs?: number | undefined;
  /** Keepalive PINGs at a fresh random point of this range, in ms; `true` is 10 000 to 60 000. @default {false} */
  keepalive?: boolean | UniformRange | undefined;
  /** Padding PINGs of 0 to 3072 bytes when no data went out for a random time of this range, in ms; `true` is 200 to 1200. @default {false} */
  padding?: boolean | UniformRange | undefined;
}

/** {@linkcode SessionLimits} with nothing left open. */
export interface ResolvedLimits {
  /** Frames under one key. */
  readonly rekeyFrames: number;
  /** Plaintext bytes under one key. */
  readonly rekeyBytes: number;
  /** Age of a key in ms. */
  readonly rekeyMs: number;
  /** Streams of the peer at once. */
  readonly maxPeerStreams: number;
  /** Streams of this side's at once. */
  readonly maxLocalStreams: number;
  /** Largest receive window of a stream, in bytes. */
  readonly maxStreamWindow: number;
  /** What all windows may grow by together, in bytes. */
  readonly receiveBudget: number;
  /** Small writes held by a stream, in bytes. */
  readonly sendBuffer: number;
  /** Whether STREAM_END is sent. */
  readonly streamEnd: boolean;
  /** In ms; 0 is off. */
  readonly frameTimeoutMs: number;
  /** In ms; 0 is off. */
  readonly writeTimeoutMs: number;
  /** In ms; 0 is off. */
  readonly keepaliveTimeoutMs: number;
  /** In ms; 0 is off. */
  readonly idleTimeoutMs: number;
  /** In ms. */
  readonly closeTimeoutMs: number;
  /** In ms; `undefined` is off. */
  readonly keepalive: UniformRange | undefined;
  /** In ms; `undefined` is off. */
  readonly padding: UniformRange | undefined;
}

/**
 * Fills in the defaults: what a session does with its bounds, for who wants to know before there is one.
 *
 * @throws {RangeError} where a bound is out of its range
 */
export function resolveLimits(limits: SessionLimits = {}): ResolvedLimits {
  const { afterFrames = MAX_FRAMES_PER_KEY, afterBytes = MAX_BYTES_PER_KEY, afterMs = MAX_KEY_AGE_MS } =
    limits.rekey ??
      {};
  return {
    rekeyFrames: within("rekey.afterFrames", afterFrames, 16, MAX_FRAMES_PER_KEY),
    rekeyBytes: within("rekey.afterBytes", afterBytes, 1, MAX_BYTES_PER_KEY),
    rekeyMs: within("rekey.afterMs", afterMs, 1, MAX_KEY_AGE_MS),
    maxPeerStreams: within("maxPeerStreams", limits.maxPeerStreams ?? 256, 0, 2 ** 20),
    maxLocalStreams: within("maxLocalStreams", limits.maxLocalStreams ?? 256, 1, 2 ** 20),
    maxStreamWindow: within(
      "maxStreamWindow",
      limits.maxStreamWindow ?? 1024 ** 2,
      INITIAL_WINDOW,
      MAX_WINDOW,
    ),
    receiveBudget: within(
      "receiveBudget",
      limits.receiveBudget ?? 16 * 1024 ** 2,
      0,
      Number.MAX_SAFE_INTEGER,
    ),
    sendBuffer: within("sendBuffer", limits.sendBuffer ?? 262_144, 0, 2 ** 30),
    streamEnd: limits.streamEnd ?? true,
    frameTimeoutMs: within("frameTimeoutMs", limits.frameTimeoutMs ?? 30_000, 0, 2 ** 31 - 1),
    writeTimeoutMs: within("writeTimeoutMs", limits.writeTimeoutMs ?? 60_000, 0, 2 ** 31 - 1),
    keepaliveTimeoutMs: within("keepaliveTimeoutMs", limits.keepaliveTimeoutMs ?? 30_000, 0, 2 ** 31 - 1),
    idleTimeoutMs: within("idleTimeoutMs", limits.idleTimeoutMs ?? 300_000, 0, 2 ** 31 - 1),
    closeTimeoutMs: within("closeTimeoutMs", limits.closeTimeoutMs ?? 1000, 0, 2 ** 31 - 1),
    keepalive: range("keepalive", limits.keepalive, { min: 10_000, max: 60_000 }),
    padding: range("padding", limits.padding, { min: 200, max: 1200 }),
  };
}

function within(name: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`Cannot use ${name}: ${value} is not an integer from ${min} to ${max}`);
  }
  return value;
}

function range(
  name: string,
  value: boolean | UniformRange | undefined,
  standard: UniformRange,
): UniformRange | undefined {
  if (value === undefined || value === false) return undefined;
  if (value === true) return standard;
  within(`${name}.min`, value.min, 1, 2 ** 31 - 1);
  within(`${name}.max`, value.max, value.min, 2 ** 31 - 1);
  return { min: value.min, max: value.max };
}

/** A whole number of `range`, both ends included, each as likely; `random` gives that many random bytes. */
export function drawUniform(range: UniformRange, random: (length: number) => Uint8Array): number {
  const span = range.max - range.min + 1;
  const limit = 2 ** 32 - 2 ** 32 % span; // words at or above it would favour the low values
  for (;;) {
    const bytes = random(4);
    const word = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
    if (word < limit) return range.min + word % span;
  }
}
