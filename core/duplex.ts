/**
 * What a session travels on: any ordered, reliable byte stream with two independent directions.
 *
 * @module
 */

/** An address as a carrier reports it; carriers add their own fields. */
export interface DuplexAddr {
  /** The carrier's name: `tcp`, `tls`, `websocket`, `quic`, `memory` … */
  readonly transport: string;
  /** Host name or IP address, without brackets. */
  readonly hostname?: string;
  /** Port number. */
  readonly port?: number;
}

/**
 * A pair of byte streams, shaped like a WebTransport stream. Ending `writable` ends that direction only; the
 * other one stays usable until it ends too.
 */
export interface Duplex {
  /** Bytes from the peer; chunk boundaries mean nothing. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Bytes to the peer. */
  readonly writable: WritableStream<Uint8Array>;
  /**
   * The same bytes by direct reads and writes, where the carrier has them: about a third of the cost of the
   * streams. Whoever touches `io` leaves the streams alone, and the other way round.
   */
  readonly io?: ByteIo;
  /** Ends the whole duplex at once, whatever is under way. Idempotent. */
  close?(): void;
  /**
   * Whether the carrier passes for other traffic (TLS, WebSocket, QUIC): connections over it keep the traffic shape
   * of HTX 1.1 §4 unless their options say otherwise. @default {false}
   */
  readonly covert?: boolean;
  /**
   * For carriers that cannot make the peer wait, such as a WebSocket: `credit` tells how many bytes the peer may have
   * under way, and more than that waiting here, with 64 KiB on top, ends the duplex. Called again where that changes.
   */
  limitReceive?(credit: () => number): void;
  /** Where this side stands. */
  readonly localAddr?: DuplexAddr;
  /** Where the peer stands. */
  readonly remoteAddr?: DuplexAddr;
}

/** Direct reads and writes. One read and one write may be under way at a time. */
export interface ByteIo {
  /** Reads at least one byte into `into`, whose bytes are the caller's again when it settles; `null` at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes all of `data`; the bytes must stay as they are until it settles. */
  write(data: Uint8Array): Promise<void>;
  /** Ends the outgoing direction (a FIN); the incoming one stays open. */
  closeWrite(): Promise<void>;
  /** Ends both directions at once. Idempotent, never throws; a pending read or write rejects or ends. */
  close(): void;
}
