/**
 * What Bitswap needs of whatever carries it: streams, and a way to open them.
 *
 * The interfaces are the smallest that an `HtxStream` and an `HtxConnection` fulfil as they are; anything else with
 * ordered bytes both ways does too, through {@linkcode streamOf}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { concat, HtxError, utf8 } from "./_core.ts";

/** Protocol id that each stream begins with, after its length in one byte (HTX 1.1 §7). */
export const BITSWAP_PROTOCOL = "/betanet/bitswap/2.2.0";

/** Why a stream is reset: those codes of HTX 1.1 §3 that the exchange uses. */
export type BitswapResetCode =
  | "CANCELLED"
  | "EXCESSIVE_LOAD"
  | "INTERNAL_ERROR"
  | "PROTOCOL_ERROR"
  | "REFUSED"
  | "TIMEOUT";

/** One stream between a requester and a server. */
export interface BitswapStream {
  /** The next bytes as they came, owned by the caller; `null` at the clean end. Rejects when the stream broke. */
  read(): Promise<Uint8Array | null>;
  /** Resolves when there is room for more. The bytes stay the caller's: they are neither changed nor transferred. */
  write(data: Uint8Array): Promise<void>;
  /** Ends this side's direction. */
  closeWrite(): Promise<void>;
  /** Ends both directions at once. */
  reset(code?: BitswapResetCode): void;
}

/** Someone to get blocks from. Opening a stream may dial, and dial again after a break. */
export interface BitswapPeer {
  /** Names the peer in ledgers and progress reports; one peer per id. */
  readonly id: string;
  /** Opens one more stream. Rejects when that cannot be done now: it is then tried again later. */
  openStream(signal: AbortSignal): Promise<BitswapStream>;
}

/** A connection that gives streams, as `HtxConnection` does. */
export interface BitswapConnection {
  /** Opens a stream. */
  createBidirectionalStream(options?: { signal?: AbortSignal | undefined }): Promise<BitswapStream>;
  /** Settles when the connection has ended. */
  readonly closed: Promise<unknown>;
}

/** A pair of byte streams, such as a WebTransport stream. */
export interface BitswapDuplex {
  /** Bytes from the peer. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Bytes to the peer. */
  readonly writable: WritableStream<Uint8Array>;
}

/** The bytes that open a stream: the protocol id with its length before it. */
export function protocolHeader(): Uint8Array {
  const id = utf8(BITSWAP_PROTOCOL);
  return concat(new Uint8Array([id.length]), id);
}

/**
 * Reads the protocol id of a stream.
 *
 * @returns the id, and what came after it; `undefined` when the stream ended before
 */
export async function readProtocol(
  stream: Pick<BitswapStream, "read">,
): Promise<{ id: string; rest: Uint8Array } | undefined> {
  let bytes: Uint8Array = new Uint8Array();
  while (bytes.length === 0 || bytes.length <= bytes[0]!) {
    const chunk = await stream.read();
    if (chunk === null) return undefined;
    bytes = bytes.length === 0 ? chunk : concat(bytes, chunk);
  }
  const end = 1 + bytes[0]!;
  // What is no UTF-8, or begins with a mark of byte order, is some other protocol's like any unknown id.
  const id = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(1, end));
  return { id, rest: bytes.subarray(end) };
}

/** Makes a {@linkcode BitswapStream} of a pair of web streams. */
export function streamOf(duplex: BitswapDuplex): BitswapStream {
  const reader = duplex.readable.getReader();
  const writer = duplex.writable.getWriter();
  // Whoever reads or writes next hears of it.
  reader.closed.catch(() => {});
  writer.closed.catch(() => {});
  return {
    async read(): Promise<Uint8Array | null> {
      const { done, value } = await reader.read();
      return done ? null : value;
    },
    async write(data: Uint8Array): Promise<void> {
      await writer.ready;
      // What writables do with a chunk is theirs: those of byte streams transfer its buffer, and `data` may lie in a
      // store (e-35).
      await writer.write(new Uint8Array(data));
    },
    async closeWrite(): Promise<void> {
      await writer.close();
    },
    reset(code: BitswapResetCode = "CANCELLED"): void {
      const error = new HtxError(code, "Stream was reset");
      reader.cancel(error).catch(() => {});
      writer.abort(error).catch(() => {});
    },
  };
}

/** Something that opens streams and looks after its connections itself, as `HtxClient` does. */
export interface BitswapStreamOpener {
  /** Opens a stream, dialling if need be. */
  createBidirectionalStream(options: { signal: AbortSignal }): Promise<BitswapStream>;
}

/**
 * A peer behind something that dials by itself, such as the `HtxClient` that `connect()` gives.
 *
 * @example
 * ```ts
 * import { BitswapClient, BitswapServer, peerOf } from "@betanet/htx/bitswap";
 * import { connect, serveStreams } from "@betanet/htx/transport";
 * import { assertEquals } from "@std/assert";
 *
 * const blocks = new BitswapServer();
 * const cid = await blocks.put(new TextEncoder().encode("hello"));
 * await using server = serveStreams(blocks.onStream);
 *
 * await using tunnel = await connect(server.addr, { remoteStatic: server.publicKey });
 * await using client = new BitswapClient({ peers: [peerOf("server", tunnel)] });
 * assertEquals(new TextDecoder().decode(await client.get(cid)), "hello");
 * ```
 */
export function peerOf(id: string, opener: BitswapStreamOpener): BitswapPeer {
  return { id, openStream: (signal) => opener.createBidirectionalStream({ signal }) };
}

/**
 * A peer behind a function that dials. The connection is made when a stream is first needed, shared by all streams,
 * and made anew after it has ended.
 * An `HtxClient` dials again by itself: {@linkcode peerOf} is enough for it.
 */
export function connectionPeer(
  id: string,
  dial: (signal: AbortSignal) => Promise<BitswapConnection>,
): BitswapPeer {
  let current: Promise<BitswapConnection> | undefined;

  function connection(signal: AbortSignal): Promise<BitswapConnection> {
    if (current !== undefined) return current;
    const mine = dial(signal);
    current = mine;
    const forget = (): void => {
      if (current === mine) current = undefined;
    };
    // A dialler that does not look at the signal may never settle: whoever comes next dials anew, unless it has by then.
    signal.addEventListener("abort", forget, { once: true });
    const settled = (): void => signal.removeEventListener("abort", forget);
    mine.then((made) => {
      settled();
      current ??= mine;
      made.closed.then(forget, forget);
    }, () => {
      settled();
      forget();
    });
    return mine;
  }

  return {
    id,
    async openStream(signal: AbortSignal): Promise<BitswapStream> {
      signal.throwIfAborted();
      const mine = connection(signal);
      const made = await mine;
      try {
        return await made.createBidirectionalStream({ signal });
      } catch (error) {
        // It may be ending without saying so yet: the next try dials.
        if (current === mine && !signal.aborted && !isStreamRefusal(error)) current = undefined;
        throw error;
      }
    },
  };
}

/** Errors that concern one stream and leave the connection usable. */
function isStreamRefusal(error: unknown): boolean {
  return error instanceof HtxError && (error.code === "STREAM_LIMIT" || error.code === "REFUSED");
}
