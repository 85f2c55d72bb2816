/**
 * A peer that seals whatever a test wants, right or wrong. For tests only.
 *
 * @module
 */

import { concat, utf8 } from "./bytes.ts";
import { type Bytes, selectCrypto } from "./crypto.ts";
import { FrameScanner, FrameType, hasStreamId, MAX_HEADER_LENGTH, TAG_LENGTH, writeHeader } from "./frame.ts";
import { type SessionKeys, TrafficKeys } from "./keys.ts";
import { encodeVarint } from "./varint.ts";

/** Keys that no handshake made. */
export function testKeys(): SessionKeys {
  return {
    client: new Uint8Array(32).fill(0x0c),
    server: new Uint8Array(32).fill(0x05),
    handshakeHash: new Uint8Array(32).fill(0x44),
  };
}

/** An opened frame. */
export interface OpenedFrame {
  type: number;
  streamId: number | undefined;
  plaintext: Bytes;
}

/** The other end of a session, by hand. */
export class RawPeer {
  readonly sending: TrafficKeys;
  readonly receiving: TrafficKeys;

  /** The peer of a session with this role. */
  constructor(sessionRole: "client" | "server") {
    const crypto = selectCrypto();
    const { client, server, handshakeHash } = testKeys();
    const toServer = new TrafficKeys(crypto, "client-to-server", client, handshakeHash);
    const toClient = new TrafficKeys(crypto, "server-to-client", server, handshakeHash);
    this.sending = sessionRole === "server" ? toServer : toClient;
    this.receiving = sessionRole === "server" ? toClient : toServer;
  }

  /** One sealed frame. */
  frame(type: number, streamId: number | undefined, plaintext: Uint8Array = new Uint8Array(0)): Bytes {
    const header = new Uint8Array(MAX_HEADER_LENGTH);
    const length = writeHeader(type, streamId, plaintext.length, header, 0);
    return this.frameUnder(header.slice(0, length), plaintext);
  }

  /** One sealed frame with the header given. */
  frameUnder(header: Bytes, plaintext: Uint8Array): Bytes {
    const out = new Uint8Array(header.length + plaintext.length + TAG_LENGTH);
    out.set(header);
    this.sending.seal(header, plaintext, out, header.length);
    return out;
  }

  stream(id: number, data: string | Uint8Array): Bytes {
    return this.frame(FrameType.STREAM, id, typeof data === "string" ? utf8(data) : data);
  }

  streamEnd(id: number, data: string | Uint8Array = ""): Bytes {
    return this.frame(FrameType.STREAM_END, id, typeof data === "string" ? utf8(data) : data);
  }

  window(id: number, increment: number): Bytes {
    return this.frame(FrameType.WINDOW_UPDATE, id, encodeVarint(increment));
  }

  ping(kind: number, data: Uint8Array = new Uint8Array(0)): Bytes {
    return this.frame(FrameType.PING, undefined, concat(new Uint8Array([kind]), data));
  }

  close(code?: number, streamId = 0, reason = ""): Bytes {
    const plaintext = code === undefined
      ? new Uint8Array(0)
      : concat(encodeVarint(code), encodeVarint(streamId), utf8(reason));
    return this.frame(FrameType.CLOSE, undefined, plaintext);
  }

  keyUpdate(): Bytes {
    const frame = this.frame(FrameType.KEY_UPDATE, undefined);
    this.sending.update();
    return frame;
  }

  /** Opens whole frames, following their KEY_UPDATEs. */
  open(bytes: Uint8Array): OpenedFrame[] {
    const frames: OpenedFrame[] = [];
    const scan = new FrameScanner();
    for (let at = 0; at < bytes.length; at = scan.end) {
      if (!scan.parse(bytes, at, bytes.length)) throw new Error("a frame is cut off");
      const plaintext = this.receiving.open(
        bytes.subarray(scan.start, scan.bodyStart),
        bytes.subarray(scan.bodyStart, scan.end),
      );
      if (plaintext === undefined) throw new Error("a frame does not open");
      frames.push({
        type: scan.type,
        streamId: hasStreamId(scan.type) ? scan.streamId : undefined,
        plaintext,
      });
      if (scan.type === FrameType.KEY_UPDATE) this.receiving.update();
    }
    return frames;
  }
}
