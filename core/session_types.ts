/**
 * What goes into a session engine and what comes out of it beside bytes.
 *
 * @module
 */

import type { CryptoBackend } from "./crypto.ts";
import type { CloseCodeName, HtxError } from "./errors.ts";
import type { SessionKeys } from "./keys.ts";
import type { SessionLimits } from "./limits.ts";
import type { HtxSession } from "./session.ts";
import type { SessionStream } from "./session_stream.ts";

/** How a session ended. */
export interface CloseInfo {
  /** Name of the code; `UNKNOWN` for a number that this version does not name. */
  readonly code: CloseCodeName | "UNKNOWN";
  /** The number. */
  readonly closeCode: number;
  /** The reason given, at most 256 bytes of UTF-8; may be empty. */
  readonly reason: string;
  /** Whether the peer ended it. */
  readonly remote: boolean;
}

/** What the session tells its owner; every one is optional and is called synchronously. */
export interface SessionEvents {
  /** Something is due to be sent: call {@linkcode HtxSession.fill} soon. */
  output?(): void;
  /** The peer opened a stream. */
  stream?(stream: SessionStream): void;
  /** A place for another stream of this side's came free. */
  slot?(): void;
  /** An answer to {@linkcode HtxSession.ping} arrived. */
  pong?(data: Uint8Array): void;
  /** The keys of a direction were replaced; `sending` says which. */
  keyUpdate?(sending: boolean): void;
  /** No more streams or data from now on: `error` is `undefined` where the session ends well. */
  closing?(info: CloseInfo, error: HtxError | undefined): void;
}

/** Options of an {@linkcode HtxSession}. */
export interface SessionOptions {
  /** Which side this is: `client` made the handshake's first message. */
  readonly role: "client" | "server";
  /** What the handshake gave; taken over. */
  readonly keys: SessionKeys;
  /** Bounds and habits. */
  readonly limits?: SessionLimits | undefined;
  /** The primitives. @default {selectCrypto()} */
  readonly crypto?: CryptoBackend | undefined;
  /** A clock that never goes back, in ms. @default {performance.now} */
  readonly now?: (() => number) | undefined;
  /** Random bytes, for keepalives and padding. @default {the backend's} */
  readonly random?: ((length: number) => Uint8Array) | undefined;
  /** Who is told. */
  readonly events?: SessionEvents | undefined;
  /** Makes the stream objects. @default {new SessionStream} */
  readonly createStream?: ((session: HtxSession, id: number) => SessionStream) | undefined;
  /** Whether a client takes stream 2; without it the stream is reset once with REFUSED (HTX 1.1 §8). @default {false} */
  readonly acceptControlStream?: boolean | undefined;
}

/** Counters of a session; they only grow, save for `streams`. */
export interface SessionStats {
  /** Frames sealed, of all types. */
  framesSent: number;
  /** Frames opened, of all types. */
  framesReceived: number;
  /** Bytes of frames handed over to be sent. */
  bytesSent: number;
  /** Bytes of frames opened, with headers and tags. */
  bytesReceived: number;
  /** Plaintext bytes of STREAM and STREAM_END sent. */
  dataSent: number;
  /** Plaintext bytes of STREAM and STREAM_END received. */
  dataReceived: number;
  /** Batches handed over: each is one write below. */
  batches: number;
  /** Bytes copied to gather small pieces into a frame. */
  bytesGathered: number;
  /** Frames dropped after authentication: for streams finished or skipped, or of unknown types. */
  framesDropped: number;
  /** KEY_UPDATEs sent. */
  rekeysSent: number;
  /** KEY_UPDATEs received. */
  rekeysReceived: number;
  /** WINDOW_UPDATEs sent. */
  windowUpdatesSent: number;
  /** Streams opened, by either side. */
  streamsOpened: number;
  /** Streams open now. */
  streams: number;
}
