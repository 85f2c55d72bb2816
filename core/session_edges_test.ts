/** What a review of the session found: each case once went wrong. */

import { assert, assertEquals } from "@std/assert";
import { RawPeer, testKeys } from "./_raw_peer.ts";
import { concat, fromUtf8, utf8 } from "./bytes.ts";
import { CloseCode } from "./errors.ts";
import { FrameType } from "./frame.ts";
import { HtxSession, MAX_FILL_LENGTH } from "./session.ts";
import type { SessionStream } from "./session_stream.ts";
import type { SessionOptions } from "./session_types.ts";
import { decodeVarint } from "./varint.ts";

function setUp(role: "client" | "server", options: Partial<SessionOptions> = {}) {
  const clock = { now: 1000 };
  const accepted: SessionStream[] = [];
  const session = new HtxSession({
    role,
    keys: testKeys(),
    now: () => clock.now,
    ...options,
    events: { ...options.events, stream: (stream) => accepted.push(stream) },
  });
  const peer = new RawPeer(role);
  return { session, peer, clock, accepted, sent: () => peer.open(output(session)) };
}

function output(session: HtxSession): Uint8Array {
  const parts: Uint8Array[] = [];
  const buffer = new Uint8Array(MAX_FILL_LENGTH);
  while (session.outputDue) {
    const length = session.fill(buffer);
    if (length === 0) break;
    parts.push(buffer.slice(0, length));
  }
  return concat(...parts);
}

/** What a CLOSE says: `[stream id, code]`, `[0, 0]` for an empty one. */
function close(plaintext: Uint8Array): [id: number, code: number] {
  if (plaintext.length === 0) return [0, 0];
  const code = decodeVarint(plaintext)!;
  return [decodeVarint(plaintext, code.length)!.value, code.value];
}

Deno.test("what a listener for KEY_UPDATE writes does not run into the frame behind it", () => {
  let session: HtxSession | undefined;
  let other: SessionStream | undefined;
  const made = setUp("client", { events: { keyUpdate: () => other!.put(utf8("NEW")) } });
  session = made.session;
  const stream = session.openStream()!;
  other = session.openStream()!;
  stream.put(utf8("open"));
  made.sent();
  made.clock.now += 3_600_000;
  stream.put(utf8("before"));
  const frames = made.sent();
  assertEquals(frames.map(({ type, plaintext }) => [type, fromUtf8(plaintext)]), [
    [FrameType.KEY_UPDATE, ""],
    [FrameType.STREAM, "before"],
    [FrameType.STREAM, "NEW"],
  ]);
});
