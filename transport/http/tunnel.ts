/**
 * {@linkcode TunnelStream}: what a stream is after a CONNECT was accepted, the bytes already read put back in front.
 *
 * @module
 */

import type { CloseCodeName } from "../../core/mod.ts";
import type { HttpStream } from "./stream.ts";

/** A stream whose HTTP heads have been exchanged: both directions now carry whatever the two ends agreed on. */
export class TunnelStream implements HttpStream {
  readonly #stream: HttpStream;
  #first: Uint8Array | undefined;

  /** `first` is what had arrived behind the head. */
  constructor(stream: HttpStream, first: Uint8Array) {
    this.#stream = stream;
    this.#first = first.length > 0 ? first : undefined;
  }

  /** The stream's number. */
  get id(): number {
    return this.#stream.id;
  }

  /** Aborts when the stream is reset by either side or its session ends with an error. */
  get signal(): AbortSignal {
    return this.#stream.signal;
  }

  /** @inheritdoc */
  read(): Promise<Uint8Array | null> {
    const first = this.#takeFirst();
    return first !== undefined ? Promise.resolve(first) : this.#stream.read();
  }

  /** @inheritdoc */
  tryRead(): Uint8Array | null | undefined {
    return this.#takeFirst() ?? this.#stream.tryRead();
  }

  /** @inheritdoc */
  write(data: Uint8Array, options?: { end?: boolean }): Promise<void> {
    return this.#stream.write(data, options);
  }

  /** @inheritdoc */
  closeWrite(): Promise<void> {
    return this.#stream.closeWrite();
  }

  /** @inheritdoc */
  stopSending(): void {
    this.#stream.stopSending();
  }

  /** @inheritdoc */
  reset(code?: CloseCodeName | number, reason?: string): void {
    this.#stream.reset(code, reason);
  }

  #takeFirst(): Uint8Array | undefined {
    const first = this.#first;
    this.#first = undefined;
    return first;
  }
}
