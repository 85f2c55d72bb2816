/**
 * Errors of the library: one class, one list of codes (HTX 1.1 §3 "Codes").
 *
 * A {@linkcode HtxError} answers three questions: what happened (`code`), how far it reaches (a stream when
 * `streamId` is set, else the session or the operation), and whose doing it was (`remote`).
 *
 * @module
 */

/** The codes of CLOSE frames as they stand on the wire (HTX 1.1 §3). */
export const CloseCode = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  AUTH_FAILED: 2,
  FLOW_CONTROL_ERROR: 3,
  FRAME_TOO_LARGE: 4,
  STREAM_LIMIT: 5,
  REFUSED: 6,
  CANCELLED: 7,
  TIMEOUT: 8,
  INTERNAL_ERROR: 9,
  GOING_AWAY: 10,
  EXCESSIVE_LOAD: 11,
} as const;

/** Name of a code that can travel in a CLOSE frame. */
export type CloseCodeName = keyof typeof CloseCode;

/**
 * Code of an {@linkcode HtxError}: a name of the wire, or one of the local conditions that never travel:
 *
 * - `UNKNOWN`: the peer closed with a number this version does not name (`closeCode` keeps it)
 * - `HANDSHAKE_FAILED`: no session came to be; deliberately without a reason
 * - `TRUNCATED`: the duplex ended without CLOSE
 * - `CLOSED`: the session, stream or pool had already ended when the call was made
 * - `CONNECT_FAILED`: the carrier below (TCP, TLS, WebSocket, QUIC) could not be opened
 * - `UNSUPPORTED`: this runtime lacks what the call needs; the message says what to do
 * - `MALFORMED`: bytes or text from outside do not parse; `field` names the offending part
 * - `LIMIT_EXCEEDED`: a local bound was reached (sizes, counts)
 * - `STORE_FAILED`: a store behind the call could not be reached or is full
 */
export type HtxErrorCode =
  | CloseCodeName
  | "UNKNOWN"
  | "HANDSHAKE_FAILED"
  | "TRUNCATED"
  | "CLOSED"
  | "CONNECT_FAILED"
  | "UNSUPPORTED"
  | "MALFORMED"
  | "LIMIT_EXCEEDED"
  | "STORE_FAILED";

/** Details of an {@linkcode HtxError}. */
export interface HtxErrorOptions extends ErrorOptions {
  /** The stream concerned; absent when the whole session (or no session) is. */
  streamId?: number | undefined;
  /** Whether the peer reported the error, rather than this side having found it. @default {false} */
  remote?: boolean | undefined;
  /** The number received, where it differs from the code's own (only with `UNKNOWN`). */
  closeCode?: number | undefined;
  /** Name of the offending part of a malformed input. */
  field?: string | undefined;
}

/**
 * The error that every part of this library throws or rejects with, save for mistakes of the caller
 * (`TypeError`, `RangeError`), aborts (the signal's own reason), and three with a class of their own: blocks that nobody
 * has, configurations, and ports that are taken.
 *
 * @example Telling a retryable refusal from the rest
 * ```ts
 * import { HtxError } from "@betanet/htx/core";
 * import { assert } from "@std/assert";
 *
 * const error = new HtxError("STREAM_LIMIT", "Cannot open stream: the peer allows no more", { streamId: 9 });
 * assert(error.retryable);
 * assert(error.closeCode === 5);
 * ```
 */
export class HtxError extends Error {
  /** Always `HtxError`. */
  override readonly name = "HtxError";
  /** What happened. */
  readonly code: HtxErrorCode;
  /** The number a CLOSE frame for this error carries, or carried (HTX 1.1 §3). */
  readonly closeCode: number;
  /** The stream concerned, if it is one alone. */
  readonly streamId: number | undefined;
  /** Whether the peer reported the error. */
  readonly remote: boolean;
  /** Name of the offending part of a malformed input. */
  readonly field: string | undefined;

  /** Makes an error. `message` reads "Cannot <verb> <what>: <why>" and never holds a secret. */
  constructor(code: HtxErrorCode, message: string, options: HtxErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.closeCode = options.closeCode ?? closeCodeOf(code);
    this.streamId = options.streamId;
    this.remote = options.remote ?? false;
    this.field = options.field;
  }

  /**
   * Whether the work was never given to the application, so that trying elsewhere is safe. The peer says so of a stream
   * (HTX 1.1 §3); a session that it ends with the same codes may have had its streams under way.
   */
  get retryable(): boolean {
    const refused = this.code === "STREAM_LIMIT" || this.code === "REFUSED" || this.code === "GOING_AWAY";
    return refused && (!this.remote || this.streamId !== undefined);
  }
}

/** The number that a CLOSE frame carries for `code`: local conditions map to the nearest of the wire. */
export function closeCodeOf(code: HtxErrorCode): number {
  switch (code) {
    case "CLOSED":
    case "TRUNCATED":
      return CloseCode.CANCELLED;
    case "MALFORMED":
      return CloseCode.PROTOCOL_ERROR;
    case "LIMIT_EXCEEDED":
      return CloseCode.EXCESSIVE_LOAD;
    case "UNKNOWN":
    case "HANDSHAKE_FAILED":
    case "CONNECT_FAILED":
    case "UNSUPPORTED":
    case "STORE_FAILED":
      return CloseCode.INTERNAL_ERROR;
    default:
      return CloseCode[code];
  }
}

const NAMES: readonly CloseCodeName[] = /* @__PURE__ */ Object.keys(CloseCode) as CloseCodeName[];

/** The name of a number received in a CLOSE frame; `UNKNOWN` where this version has none. */
export function closeCodeName(closeCode: number): CloseCodeName | "UNKNOWN" {
  return NAMES[closeCode] ?? "UNKNOWN";
}
