/**
 * {@linkcode HttpStream}: what an HTTP exchange needs of a stream. An `HtxStream` is one.
 *
 * @module
 */

import type { CloseCodeName } from "../../core/mod.ts";

/** One bidirectional stream, read and written directly. */
export interface HttpStream {
  /** The stream's number. */
  readonly id: number;
  /**
   * The next bytes as they arrived, `null` at a clean end; rejects when the stream was reset or cut off. Their memory is
   * the reader's from then on.
   */
  read(): Promise<Uint8Array | null>;
  /** The same without waiting: `undefined` when there is nothing yet. */
  tryRead(): Uint8Array | null | undefined;
  /**
   * Sends bytes, with `end` as the last ones. Resolves when there is room for more, and the bytes are the caller's
   * again then. Calls may overlap; the bytes go out in the order of the calls.
   */
  write(data: Uint8Array, options?: {
    /** Whether this direction ends with these bytes. @default {false} */
    end?: boolean;
  }): Promise<void>;
  /** Ends this direction. */
  closeWrite(): Promise<void>;
  /** After the end of this direction: asks the peer to send no more. */
  stopSending(): void;
  /** Ends both directions with an error. */
  reset(code?: CloseCodeName | number, reason?: string): void;
  /** Aborts when the stream is reset by either side or its session ends with an error. */
  readonly signal: AbortSignal;
}
