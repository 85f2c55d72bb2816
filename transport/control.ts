/**
 * Stream 2, the transition control stream (HTX 1.1 §8), as hooks: what is said on it is the overlay's business.
 *
 * @module
 */

import type { Bytes, HtxConnection, HtxStream } from "../core/mod.ts";
import { tell } from "../core/_tell.ts";

/** What a server's hook is given. */
export interface ControlStreamServerContext {
  /** The handshake hash, which binds what is said to this session. */
  readonly handshakeHash: Bytes;
  /** The client's static public key. */
  readonly remoteStatic: Bytes;
  /** Aborts when the session or the stream ends. */
  readonly signal: AbortSignal;
  /** Sends bytes on stream 2, which the first call opens; rejects when the client reset it. */
  send(bytes: Uint8Array): Promise<void>;
  /** Calls back after every KEY_UPDATE of the server's direction. */
  onRekey(callback: () => void): void;
}

/** What a client's hook is given, once the server opened stream 2. */
export interface ControlStreamClientContext {
  /** The handshake hash, which binds what is said to this session. */
  readonly handshakeHash: Bytes;
  /** The server's static public key. */
  readonly remoteStatic: Bytes;
  /** Aborts when the session or the stream ends. */
  readonly signal: AbortSignal;
  /** The bytes of stream 2 as they arrive. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /**
   * Calls back after every KEY_UPDATE of the server's direction, with how many bytes of stream 2 came before it; at once
   * for the latest of those that came since the stream opened.
   */
  onRekey(callback: (atByte?: number) => void): void;
}

/** A server's hook: called once for each connection. A rejection resets stream 2 with INTERNAL_ERROR. */
export type ControlStreamHook = (context: ControlStreamServerContext) => void | Promise<void>;

/** A client's hook: a rejection resets stream 2 with PROTOCOL_ERROR. */
export type ControlStreamReceiver = (context: ControlStreamClientContext) => void | Promise<void>;

/** Gives a server's hook its connection. */
export function sendControl(connection: HtxConnection, hook: ControlStreamHook): void {
  const ended = new AbortController();
  let stream: HtxStream | undefined;
  const callbacks: (() => void)[] = [];
  connection.onKeyUpdate((sending) => {
    if (sending) { for (const callback of callbacks) tell(callback, undefined); }
  });
  connection.closed.then((info) => ended.abort(info), (error) => ended.abort(error));
  const running = hook({
    handshakeHash: connection.handshake.hash,
    remoteStatic: connection.remoteStatic,
    signal: ended.signal,
    send: (bytes) => {
      try {
        if (stream === undefined) {
          stream = connection.openControlStream();
          stream.signal.addEventListener("abort", () => ended.abort(stream?.error), { once: true });
        }
        return stream.write(bytes);
      } catch (error) {
        return Promise.reject(error);
      }
    },
    onRekey: (callback) => callbacks.push(callback),
  });
  Promise.resolve(running).catch((error) => {
    stream?.reset("INTERNAL_ERROR"); // the hook has told whom it concerns
    ended.abort(error);
  });
}

/** Gives a client's hook the stream that the server opened. */
export async function receiveControl(
  connection: HtxConnection,
  stream: HtxStream,
  hook: ControlStreamReceiver,
): Promise<void> {
  const stops: (() => void)[] = [];
  try {
    await hook({
      handshakeHash: connection.handshake.hash,
      remoteStatic: connection.remoteStatic,
      signal: stream.signal,
      chunks: chunksOf(stream),
      onRekey: (callback) => {
        // One that came in one read with the opening came before there was a hook to call.
        const missed = stream.bytesBeforeKeyUpdate;
        if (missed !== undefined) tell(callback, missed);
        stops.push(connection.onKeyUpdate((sending) => {
          if (!sending) tell(callback, stream.bytesReceived);
        }));
      },
    });
  } catch {
    stream.reset("PROTOCOL_ERROR"); // the hook has told whom it concerns
  } finally {
    for (const stop of stops) stop();
  }
}

async function* chunksOf(stream: HtxStream): AsyncGenerator<Uint8Array> {
  for (;;) {
    const chunk = await stream.read();
    if (chunk === null) return;
    yield chunk;
  }
}
