/**
 * {@linkcode Duplex} values out of direct reads and writes.
 *
 * @module
 */

import type { ByteIo, Duplex, DuplexAddr, SessionLimits } from "../core/mod.ts";

/** Bytes read at once into a web stream. */
const READ_SIZE = 65_536;

/** Addresses and the like of an {@linkcode ioDuplex}. */
export interface IoDuplexOptions {
  /** Where this side stands. */
  localAddr?: DuplexAddr | undefined;
  /** Where the peer stands. */
  remoteAddr?: DuplexAddr | undefined;
  /** Leaves `io` out, so that only the streams can be used. @default {false} */
  streamsOnly?: boolean | undefined;
  /** Whether connections over it keep the traffic shape of HTX 1.1 §4 by default. @default {false} */
  covert?: boolean | undefined;
}

/** A duplex over `io`; its web streams are made when first asked for. Ending one direction leaves the other open. */
export function ioDuplex(io: ByteIo, options: IoDuplexOptions = {}): Duplex {
  return new IoDuplex(io, options);
}

class IoDuplex implements Duplex {
  readonly localAddr?: DuplexAddr;
  readonly remoteAddr?: DuplexAddr;
  readonly io?: ByteIo;
  readonly covert: boolean;
  readonly #io: ByteIo;
  #readable: ReadableStream<Uint8Array> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;

  constructor(io: ByteIo, options: IoDuplexOptions) {
    this.#io = io;
    this.covert = options.covert ?? false;
    if (!options.streamsOnly) this.io = io;
    if (options.localAddr !== undefined) this.localAddr = options.localAddr;
    if (options.remoteAddr !== undefined) this.remoteAddr = options.remoteAddr;
  }

  get readable(): ReadableStream<Uint8Array> {
    return this.#readable ??= new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const into = new Uint8Array(READ_SIZE);
        const length = await this.#io.read(into);
        if (length === null) controller.close();
        else controller.enqueue(length < READ_SIZE / 4 ? into.slice(0, length) : into.subarray(0, length));
      },
      cancel: () => this.#io.close(),
    }, { highWaterMark: 0 });
  }

  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= new WritableStream<Uint8Array>({
      write: (chunk) => this.#io.write(chunk),
      close: () => this.#io.closeWrite(),
      abort: () => this.#io.close(),
    });
  }

  close(): void {
    this.#io.close();
  }
}

/** The traffic shape of a connection over `duplex` (HTX 1.1 §4): on by default on carriers that pass for other traffic. */
export function trafficShape(
  duplex: Duplex,
  options: SessionLimits,
): Required<Pick<SessionLimits, "keepalive" | "padding">> {
  const { covert = false } = duplex;
  return { keepalive: options.keepalive ?? covert, padding: options.padding ?? covert };
}
