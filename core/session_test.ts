import { assert, assertEquals, assertFalse, assertThrows } from "@std/assert";
import fc from "fast-check";
import { RawPeer, testKeys } from "./_raw_peer.ts";
import { concat, fromUtf8, utf8 } from "./bytes.ts";
import { CloseCode, HtxError } from "./errors.ts";
import { FrameType } from "./frame.ts";
import { INITIAL_WINDOW } from "./limits.ts";
import { HtxSession, MAX_FILL_LENGTH } from "./session.ts";
import type { SessionEvents, SessionOptions } from "./session_types.ts";
import type { SessionStream } from "./session_stream.ts";
import { decodeVarint } from "./varint.ts";

/** A session whose clock stands still, the streams that its peer opened, and that peer. */
function setUp(role: "client" | "server", options: Partial<SessionOptions> = {}) {
  const clock = { now: 1000 };
  const accepted: SessionStream[] = [];
  const events: SessionEvents = { ...options.events, stream: (stream) => accepted.push(stream) };
  const session = new HtxSession({ role, keys: testKeys(), now: () => clock.now, ...options, events });
  const peer = new RawPeer(role);
  const sent = () => peer.open(output(session));
  return { session, peer, clock, accepted, sent };
}

/** All that is due, in one piece. */
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

/** What a stream holds, as text, without its end. */
function text(stream: SessionStream): string {
  let out = "";
  for (let chunk = stream.take(); chunk; chunk = stream.take()) out += fromUtf8(chunk);
  return out;
}

/** The code of the session CLOSE among `frames`; 0 for an empty one. */
function closeCode(frames: { type: number; plaintext: Uint8Array }[]): number | undefined {
  const close = frames.find((frame) => frame.type === FrameType.CLOSE);
  if (close === undefined) return undefined;
  return close.plaintext.length === 0 ? 0 : decodeVarint(close.plaintext)!.value;
}

/** Stream id and code of the stream CLOSEs among `frames`. */
function resets(frames: { type: number; plaintext: Uint8Array }[]): [id: number, code: number][] {
  return frames.filter((frame) => frame.type === FrameType.CLOSE && frame.plaintext.length > 0).map(
    (frame) => {
      const code = decodeVarint(frame.plaintext)!;
      return [decodeVarint(frame.plaintext, code.length)!.value, code.value] as [number, number];
    },
  ).filter(([id]) => id !== 0);
}

Deno.test("a session gives the bytes of a stream in order, then its end", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.stream(1, "hel"), peer.stream(1, "lo"), peer.streamEnd(1)));
  assertEquals(accepted.length, 1);
  assertEquals(text(accepted[0]!), "hello");
  assertEquals(accepted[0]!.take(), null);
});

Deno.test("an empty STREAM frame ends a direction as STREAM_END does", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.stream(1, "x"), peer.stream(1, "")));
  assertEquals(text(accepted[0]!), "x");
  assertEquals(accepted[0]!.take(), null);
});

Deno.test("an end rides on the last data, or on an empty STREAM with streamEnd off", () => {
  for (const streamEnd of [true, false]) {
    const { session, sent } = setUp("client", { limits: { streamEnd } });
    session.openStream()!.put(utf8("hello"), true);
    assertEquals(
      sent().map(({ type, streamId, plaintext }) => [type, streamId, fromUtf8(plaintext)]),
      streamEnd
        ? [[FrameType.STREAM_END, 1, "hello"]]
        : [[FrameType.STREAM, 1, "hello"], [FrameType.STREAM, 1, ""]],
    );
  }
});

Deno.test("frames arrive whole however the wire cuts them: a byte at a time and in every split (e-26)", () => {
  const wire = (peer: RawPeer) =>
    concat(peer.stream(1, "abc"), peer.ping(0, utf8("x")), peer.streamEnd(1, "def"));
  const length = wire(new RawPeer("server")).length;
  for (let cut = 0; cut <= length; cut++) {
    const { session, peer, accepted } = setUp("server");
    const bytes = wire(peer);
    session.receive(bytes.slice(0, cut));
    session.receive(bytes.slice(cut));
    assertEquals(text(accepted[0]!), "abcdef");
  }
  const { session, peer, accepted } = setUp("server");
  for (const byte of wire(peer)) session.receive(new Uint8Array([byte]));
  assertEquals(text(accepted[0]!), "abcdef");
});

Deno.test("a stream id in a longer form than need be is the same stream (e-26)", () => {
  const { session, peer, accepted } = setUp("server");
  for (const id of ["01", "4001", "80000001", "c000000000000001"]) {
    const header = new Uint8Array([
      0,
      0,
      1,
      FrameType.STREAM,
      ...id.match(/../g)!.map((hex) => parseInt(hex, 16)),
    ]);
    session.receive(peer.frameUnder(header, utf8("x")));
  }
  assertEquals(accepted.length, 1);
  assertEquals(text(accepted[0]!), "xxxx");
});

Deno.test("a stream id above 2^53-1 ends the session once its frame opened", () => {
  const { session, peer, sent } = setUp("server");
  const header = new Uint8Array([0, 0, 1, FrameType.STREAM, 0xc0, 0x20, 0, 0, 0, 0, 0, 1]);
  session.receive(peer.frameUnder(header, utf8("x")));
  assertEquals(session.error?.code, "PROTOCOL_ERROR");
  assertEquals(closeCode(sent()), CloseCode.PROTOCOL_ERROR);
});

Deno.test("a flipped bit anywhere in a frame ends the session, and nothing of it reaches a stream (e-20, e-25)", () => {
  const length = new RawPeer("server").stream(1, "secret").length;
  for (let bit = 0; bit < length * 8; bit++) {
    const { session, peer, accepted } = setUp("server");
    const frame = peer.stream(1, "secret");
    frame[bit >> 3]! ^= 1 << (bit & 7);
    // Frames that a longer length or id swallows follow, so that none is left waiting.
    session.receive(concat(frame, new Uint8Array(70_000)));
    assert(session.error?.code === "AUTH_FAILED" || session.error?.code === "FRAME_TOO_LARGE", `bit ${bit}`);
    assertEquals(accepted, []);
  }
});

Deno.test("dropping, doubling or swapping a frame ends the session (e-19)", () => {
  const orders: number[][] = [[1], [0, 0], [1, 0], [0, 2]];
  for (const order of orders) {
    const { session, peer, accepted } = setUp("server");
    const frames = [peer.stream(1, "a"), peer.stream(1, "b"), peer.stream(1, "c")];
    session.receive(concat(...order.map((i) => frames[i]!)));
    assertEquals(session.error?.code, "AUTH_FAILED");
    for (const stream of accepted) assertThrows(() => stream.put(utf8("x")), HtxError);
  }
});

Deno.test("after a frame that does not open the session sends one CLOSE and hears nothing more (e-20)", () => {
  const { session, peer, accepted, sent } = setUp("server");
  const bad = peer.stream(1, "a");
  bad[bad.length - 1]! ^= 1;
  const good = new RawPeer("server").stream(1, "b");
  session.receive(bad);
  session.receive(good);
  assertEquals(accepted, []);
  assertEquals(closeCode(sent()), CloseCode.AUTH_FAILED);
  assertFalse(session.outputDue);
});

Deno.test("a length above 65 535 is refused at its three bytes, with nothing held for it", () => {
  const { session, sent } = setUp("server");
  session.receive(new Uint8Array([0x01, 0x00]));
  assertEquals(session.error, undefined);
  session.receive(new Uint8Array([0x00]));
  assertEquals(session.error?.code, "FRAME_TOO_LARGE");
  assertEquals(closeCode(sent()), CloseCode.FRAME_TOO_LARGE);
});

Deno.test("no more than one unfinished frame is held before it is authenticated (e-20)", () => {
  const { session } = setUp("server");
  session.receive(new Uint8Array([0x00, 0xff, 0xff, FrameType.STREAM, 0x01]));
  for (let i = 0; i < 60; i++) session.receive(new Uint8Array(1000));
  assertEquals(session.error, undefined);
  assert(session.receiveBuffer.capacity <= 2 * 65_563, `${session.receiveBuffer.capacity}`);
});

Deno.test("both directions have keys of their own (e-02)", () => {
  const client = new HtxSession({ role: "client", keys: testKeys() });
  client.openStream()!.put(utf8("hello"));
  const echoed = new HtxSession({ role: "client", keys: testKeys() });
  echoed.receive(output(client));
  assertEquals(echoed.error?.code, "AUTH_FAILED");
});

// ---------------------------------------------------------------------------- windows

Deno.test("data past the window ends the session; data up to it does not (e-23)", () => {
  for (const over of [0, 1]) {
    const { session, peer, sent } = setUp("server");
    session.receive(
      concat(peer.stream(1, new Uint8Array(65_535 - 10)), peer.stream(1, new Uint8Array(10 + over))),
    );
    assertEquals(session.error?.code, over === 0 ? undefined : "FLOW_CONTROL_ERROR");
    assertEquals(closeCode(sent()), over === 0 ? undefined : CloseCode.FLOW_CONTROL_ERROR);
  }
});

Deno.test("an end takes no window", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.stream(1, new Uint8Array(65_535)), peer.streamEnd(1)));
  assertEquals(session.error, undefined);
  assert(accepted[0]!.receiveEnded);
});

Deno.test("credit comes back once half the window was read, not when it arrived (e-24)", () => {
  const { session, peer, accepted, sent } = setUp("server");
  session.receive(concat(peer.stream(1, new Uint8Array(32_767)), peer.stream(1, new Uint8Array(1))));
  assertEquals(sent(), []);
  accepted[0]!.take();
  assertEquals(sent(), []);
  accepted[0]!.take();
  const [update] = sent();
  assertEquals([update?.type, update?.streamId], [FrameType.WINDOW_UPDATE, 1]);
  assertEquals(decodeVarint(update!.plaintext)?.value, 32_768);
});

Deno.test("a sender stops at the window and goes on with credit (e-23)", () => {
  const { session, peer, sent } = setUp("client");
  const stream = session.openStream()!;
  stream.put(new Uint8Array(200_000), true);
  const size = (frames: { plaintext: Uint8Array }[]) =>
    frames.reduce((sum, frame) => sum + frame.plaintext.length, 0);
  assertEquals(size(sent()), INITIAL_WINDOW);
  assertEquals(sent(), []);
  session.receive(peer.window(1, 100));
  assertEquals(size(sent()), 100);
  session.receive(peer.window(1, 2 ** 30));
  const rest = sent();
  assertEquals(size(rest), 200_000 - INITIAL_WINDOW - 100);
  assertEquals(rest.at(-1)?.type, FrameType.STREAM_END);
});

Deno.test("random schedules never pass the credit and lose no byte (e-23, e-24)", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(3), fc.nat(90_000)), { maxLength: 40 }), (steps) => {
      const client = new HtxSession({ role: "client", keys: testKeys(), now: () => 0 });
      const accepted: SessionStream[] = [];
      const server = new HtxSession({
        role: "server",
        keys: testKeys(),
        now: () => 0,
        events: { stream: (stream) => accepted.push(stream) },
      });
      const stream = client.openStream()!;
      let put = 0;
      let taken = 0;
      const takeAll = () => {
        for (let chunk = accepted[0]?.take(); chunk; chunk = accepted[0]!.take()) taken += chunk.length;
      };
      for (const [what, size] of steps) {
        if (what === 0) put += size, stream.put(new Uint8Array(size));
        else if (what === 1) server.receive(output(client));
        else if (what === 2) client.receive(output(server));
        else takeAll();
        assertEquals(server.error, undefined);
        assertEquals(client.error, undefined);
        assert((accepted[0]?.receivedBytes ?? 0) <= 2 ** 20);
      }
      for (let turn = 0; turn < 400 && taken < put; turn++) {
        server.receive(output(client));
        takeAll();
        client.receive(output(server));
      }
      assertEquals(taken, put);
    }),
    { numRuns: 60 },
  );
});

Deno.test("a window grows where a round trip outlasts its reading, within the budget", () => {
  const { session, peer, accepted, clock, sent } = setUp("server", {
    limits: { maxStreamWindow: 200_000, receiveBudget: 100_000 },
  });
  const fill = () => {
    session.receive(peer.stream(1, new Uint8Array(40_000)));
    while (accepted[0]!.take());
    return sent();
  };
  const first = fill();
  const probe = first.find((frame) => frame.type === FrameType.PING)!;
  clock.now += 50;
  session.receive(peer.ping(1, probe.plaintext.subarray(1)));
  assertEquals(session.roundTrip, 50);
  let granted = decodeVarint(first.find((frame) => frame.type === FrameType.WINDOW_UPDATE)!.plaintext)!.value;
  clock.now += 1;
  for (let i = 0; i < 8; i++) {
    for (const frame of fill()) {
      if (frame.type === FrameType.WINDOW_UPDATE) granted += decodeVarint(frame.plaintext)!.value;
    }
    clock.now += 1;
  }
  // 9 × 40 000 read in all; what is granted beyond is growth, and ends with the budget.
  assert(granted > 9 * 40_000 - 100_000);
  assert(granted <= 9 * 40_000 + 100_000, `${granted}`);
  assert(granted >= 6 * 40_000 + 100_000, `${granted}`);
});

Deno.test("bad WINDOW_UPDATEs end the session; late ones are dropped", () => {
  const cases: [(peer: RawPeer) => Uint8Array, string][] = [
    [(peer) => peer.frame(FrameType.WINDOW_UPDATE, 1, new Uint8Array([0])), "nothing added"],
    [(peer) => peer.frame(FrameType.WINDOW_UPDATE, 1, new Uint8Array([5, 5])), "bytes behind"],
    [(peer) => peer.frame(FrameType.WINDOW_UPDATE, 1), "empty"],
    [(peer) => peer.frame(FrameType.WINDOW_UPDATE, 1, new Uint8Array([0x40])), "cut off"],
    [(peer) => peer.window(0, 5), "stream 0"],
    [(peer) => peer.window(3, 5), "a peer id not yet opened"],
    [(peer) => peer.window(4, 5), "an id of ours never opened"],
    [(peer) => peer.window(1, 2 ** 31 - 1 - 65_535 + 1), "a window above 2^31-1"],
    [(peer) => peer.window(1, 2 ** 53 - 1), "far above"],
  ];
  for (const [make, what] of cases) {
    const { session, peer, sent } = setUp("server");
    session.receive(peer.stream(1, "x"));
    session.receive(make(peer));
    assertEquals(session.error?.code, "PROTOCOL_ERROR", what);
    assertEquals(closeCode(sent()), CloseCode.PROTOCOL_ERROR, what);
  }
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.stream(1, "x"), peer.window(1, 2 ** 31 - 1 - 65_535)));
  assertEquals(session.error, undefined, "exactly 2^31-1");
  accepted[0]!.put(utf8("y"), true);
  peer.open(output(session));
  session.receive(peer.window(1, 7));
  assertEquals(session.error, undefined, "after the end of the direction");
  session.receive(concat(peer.streamEnd(1), peer.window(1, 7)));
  assertEquals(session.error, undefined, "for a finished stream");
});

// ---------------------------------------------------------------------------- streams

Deno.test("frames for ids that nobody opened end the session", () => {
  for (
    const [role, id] of [["server", 0], ["server", 2], ["server", 4], ["client", 0], ["client", 1]] as const
  ) {
    for (const type of [FrameType.STREAM, FrameType.STREAM_END]) {
      const { session, peer } = setUp(role);
      session.receive(peer.frame(type, id, utf8("x")));
      assertEquals(session.error?.code, "PROTOCOL_ERROR", `${role} ${id} ${type}`);
    }
  }
});

Deno.test("an answer to a stream whose opening frame has not gone out ends the session", () => {
  const frames: [name: string, make: (peer: RawPeer) => Uint8Array][] = [
    ["STREAM", (peer) => peer.stream(1, "x")],
    ["STREAM_END", (peer) => peer.streamEnd(1, "x")],
    ["WINDOW_UPDATE", (peer) => peer.window(1, 1)],
  ];
  for (const [name, make] of frames) {
    for (const out of [false, true]) {
      const { session, peer, sent } = setUp("client");
      session.openStream()!.put(utf8("x"));
      if (out) sent();
      session.receive(make(peer));
      assertEquals(session.error?.code, out ? undefined : "PROTOCOL_ERROR", name);
    }
  }
});

Deno.test("frames for skipped and finished streams are dropped and counted", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.streamEnd(5, "x"), peer.stream(3, "skipped")));
  assertEquals(accepted.map((stream) => stream.id), [5]);
  accepted[0]!.put(utf8("y"), true);
  peer.open(output(session));
  session.receive(peer.stream(5, "late"));
  assertEquals(session.error, undefined);
  assertEquals(session.stats.framesDropped, 2);
  assertEquals(text(accepted[0]!), "x");
});

Deno.test("data after the end of its direction resets the stream alone", () => {
  const { session, peer, accepted, sent } = setUp("server");
  session.receive(concat(peer.streamEnd(1, "x"), peer.stream(1, "y")));
  assertEquals(session.error, undefined);
  assertEquals(accepted[0]!.error?.code, "PROTOCOL_ERROR");
  assertEquals(resets(sent()), [[1, CloseCode.PROTOCOL_ERROR]]);
});

Deno.test("the 257th stream of a peer is reset with STREAM_LIMIT; a place comes free when one is finished and read", () => {
  const { session, peer, accepted, sent } = setUp("server");
  for (let i = 0; i < 257; i++) session.receive(peer.streamEnd(1 + 2 * i, "x"));
  assertEquals(accepted.length, 256);
  assertEquals(resets(sent()), [[513, CloseCode.STREAM_LIMIT]]);
  accepted[0]!.put(utf8(""), true);
  peer.open(output(session));
  session.receive(peer.stream(515, "x"));
  assertEquals(accepted.length, 256, "what was received is not read yet");
  accepted[0]!.take();
  session.receive(peer.stream(517, "x"));
  assertEquals(accepted.length, 257);
});

Deno.test("a held stream counts until it is released", () => {
  const { session, peer, accepted, sent } = setUp("server", { limits: { maxPeerStreams: 1 } });
  session.receive(peer.stream(1, ""));
  accepted[0]!.hold();
  accepted[0]!.put(utf8("y"), true);
  peer.open(output(session));
  session.receive(peer.stream(3, ""));
  assertEquals(resets(sent()), [[3, CloseCode.STREAM_LIMIT]]);
  accepted[0]!.release();
  session.receive(peer.stream(5, ""));
  assertEquals(accepted.length, 2);
});

Deno.test("ids go out in growing order, whoever speaks first", () => {
  const { session, sent } = setUp("client");
  const [a, b, c] = [session.openStream()!, session.openStream()!, session.openStream()!];
  assertEquals([a.id, b.id, c.id], [1, 3, 5]);
  c.put(utf8("c"));
  a.put(utf8("a"));
  assertEquals([c.id, a.id, b.id], [1, 3, 5]);
  assertEquals(sent().map((frame) => [frame.streamId, fromUtf8(frame.plaintext)]), [[1, "c"], [3, "a"]]);
});

Deno.test("a stream reset before its first frame is never heard of", () => {
  const { session, sent } = setUp("client");
  const stream = session.openStream()!;
  stream.put(utf8("x"));
  stream.reset();
  assertEquals(sent(), []);
  session.openStream()!.put(utf8("y"));
  assertEquals(sent().map((frame) => frame.streamId), [3], "its id is skipped");
});

Deno.test("a client keeps to its limit of streams and is told of a free place", () => {
  let slots = 0;
  const { session, peer } = setUp("client", {
    limits: { maxLocalStreams: 1 },
    events: { slot: () => slots++ },
  });
  const stream = session.openStream()!;
  assertEquals(session.openStream(), undefined);
  stream.put(utf8("x"), true);
  peer.open(output(session));
  assertEquals(slots, 0);
  session.receive(peer.streamEnd(1));
  assertEquals(slots, 1);
  assert(session.openStream() !== undefined);
});

Deno.test("a reset ends both directions, discards what is unread and is not answered", () => {
  const { session, peer, accepted, sent } = setUp("server");
  session.receive(concat(peer.stream(1, "unread"), peer.close(CloseCode.CANCELLED, 1, "gone")));
  const stream = accepted[0]!;
  assertEquals(stream.take(), undefined);
  assertEquals([stream.error?.code, stream.error?.remote, stream.error?.streamId], ["CANCELLED", true, 1]);
  assertThrows(() => stream.put(utf8("x")), HtxError);
  assertEquals(sent(), []);
});

Deno.test("NO_ERROR after the end of its direction asks to stop sending and leaves what came", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.streamEnd(1, "kept"), peer.close(CloseCode.NO_ERROR, 1)));
  const stream = accepted[0]!;
  assertEquals(text(stream), "kept");
  assertEquals(stream.take(), null);
  assertEquals(assertThrows(() => stream.put(utf8("x")), HtxError).code, "NO_ERROR");
});

Deno.test("stopSending() goes out behind this side's end", () => {
  const { session, peer, accepted, sent } = setUp("server");
  session.receive(peer.stream(1, "x"));
  accepted[0]!.stopSending();
  assertEquals(sent(), []);
  accepted[0]!.put(utf8("y"), true);
  const frames = sent();
  assertEquals(frames.map((frame) => frame.type), [FrameType.STREAM_END, FrameType.CLOSE]);
  assertEquals(resets(frames), [[1, CloseCode.NO_ERROR]]);
  session.receive(peer.stream(1, "late"));
  assertEquals(session.error, undefined);
});

Deno.test("an unknown code of a peer's is kept as a number", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.stream(1, "x"), peer.close(4711, 1)));
  assertEquals([accepted[0]!.error?.code, accepted[0]!.error?.closeCode], ["UNKNOWN", 4711]);
});

Deno.test("more than 1000 resets by the peer of its own streams in 10 s are too many", () => {
  for (const [gap, expected] of [[0, "EXCESSIVE_LOAD"], [10_000, undefined]] as const) {
    const { session, peer, clock } = setUp("server");
    for (let i = 0; i < 1000; i++) {
      session.receive(concat(peer.stream(1 + 2 * i, "x"), peer.close(CloseCode.CANCELLED, 1 + 2 * i)));
    }
    assertEquals(session.error, undefined);
    clock.now += gap;
    session.receive(concat(peer.stream(2001, "x"), peer.close(CloseCode.CANCELLED, 2001)));
    assertEquals(session.error?.code, expected);
  }
});

Deno.test("no more streams of this side's are reset than any peer puts up with; the others keep their places until then", () => {
  const slots: number[] = [];
  const { session, clock, sent } = setUp("client", {
    limits: { maxLocalStreams: 2 },
    events: { slot: () => slots.push(session.localStreams) },
  });
  const resetOne = () => {
    const stream = session.openStream()!;
    stream.put(utf8("x"));
    sent();
    stream.reset("CANCELLED");
  };
  for (let i = 0; i < 1000; i++) resetOne();
  assertEquals(resets(sent()), [[1999, CloseCode.CANCELLED]]);
  assertEquals(session.localStreams, 0);
  for (let i = 0; i < 2; i++) resetOne();
  assertEquals([resets(sent()), session.outputDue], [[], false]);
  assertEquals([session.localStreams, session.openStream()], [2, undefined]);
  // What is sent within 20 s arrives within 10 s only where the path stands still for 10 s.
  assertEquals(session.nextTimeout, clock.now + 20_000);
  clock.now += 19_999;
  session.tick();
  assertEquals(resets(sent()), []);
  slots.length = 0;
  clock.now += 1;
  session.tick();
  assertEquals(resets(sent()), [[2001, CloseCode.CANCELLED], [2003, CloseCode.CANCELLED]]);
  assertEquals([session.localStreams, slots], [0, [1, 0]]);
  // Those that the peer opened are none of these.
  const server = setUp("server");
  for (let i = 0; i < 1100; i++) {
    server.session.receive(server.peer.stream(1 + 2 * i, "x"));
    server.accepted[i]!.reset("CANCELLED");
  }
  assertEquals(resets(server.sent()).length, 1100);
});

Deno.test("resets that nothing has taken off the session's hands count as those that went out", () => {
  const { session, clock, sent } = setUp("client", { limits: { maxLocalStreams: 1100 } });
  const streams = Array.from({ length: 1100 }, () => session.openStream()!);
  for (const stream of streams) stream.put(utf8("x"));
  sent();
  for (const stream of streams) stream.reset("CANCELLED");
  clock.now += 60_000;
  session.tick();
  assertEquals([session.localStreams, resets(sent()).length], [100, 1000]);
  clock.now += 20_000;
  session.tick();
  assertEquals(resets(sent()).length, 100);
  // A session that ends takes them along.
  const late = setUp("client", { limits: { maxLocalStreams: 1001 } });
  const all = Array.from({ length: 1001 }, () => late.session.openStream()!);
  for (const stream of all) stream.put(utf8("x"));
  late.sent();
  for (const stream of all) stream.reset("CANCELLED");
  late.session.close();
  const frames = late.sent();
  assertEquals([resets(frames).length, closeCode(frames.slice(1000)), frames.length], [1000, 0, 1001]);
  assertEquals(late.session.nextTimeout, late.clock.now + 1000);
});

Deno.test("streams take turns, one frame each, and a small one waits for no more than that", () => {
  const { session, peer, sent } = setUp("client");
  const bulk = session.openStream()!;
  bulk.put(new Uint8Array(1));
  peer.open(output(session));
  session.receive(peer.window(1, 2 ** 30));
  bulk.put(new Uint8Array(2 ** 20));
  const buffer = new Uint8Array(MAX_FILL_LENGTH);
  peer.open(buffer.subarray(0, session.fill(buffer)));
  session.openStream()!.put(utf8("small"));
  const next = peer.open(buffer.subarray(0, session.fill(buffer)));
  assert(next.findIndex((frame) => frame.streamId === 3) <= 1);
  sent();
});

Deno.test("10 000 streams one after another leave nothing behind", () => {
  const { session, peer, accepted } = setUp("server");
  for (let i = 0; i < 10_000; i++) {
    session.receive(peer.streamEnd(1 + 2 * i, "x"));
    const stream = accepted.pop()!;
    assertEquals(text(stream), "x");
    stream.put(utf8("y"), true);
    peer.open(output(session));
  }
  assertEquals(session.stats.streams, 0);
  assertEquals(session.stats.streamsOpened, 10_000);
});

// ---------------------------------------------------------------------------- keys

Deno.test("KEY_UPDATE is at the latest the frame with counter 65 535 (e-21, e-46)", () => {
  for (const limit of [16, 65_536]) {
    const { session, sent } = setUp("client", { limits: { rekey: { afterFrames: limit } } });
    for (let i = 0; i < limit - 1; i++) session.ping(new Uint8Array(0)), i % 1000 === 0 && sent();
    assertFalse(sent().some((frame) => frame.type === FrameType.KEY_UPDATE));
    session.ping(new Uint8Array(0));
    assertEquals(sent().map((frame) => frame.type), [FrameType.KEY_UPDATE, FrameType.PING]);
    assertEquals(session.generations.sending, 1);
  }
});

Deno.test("KEY_UPDATE goes out before a direction passes its bytes (e-21)", () => {
  const { session, sent } = setUp("client", { limits: { rekey: { afterBytes: 1000 } } });
  const stream = session.openStream()!;
  stream.put(new Uint8Array(999));
  assertEquals(sent().map((frame) => frame.type), [FrameType.STREAM]);
  stream.put(new Uint8Array(1));
  assertEquals(sent().map((frame) => frame.type), [FrameType.STREAM], "exactly 1000");
  stream.put(new Uint8Array(1));
  assertEquals(sent().map((frame) => frame.type), [FrameType.KEY_UPDATE, FrameType.STREAM]);
});

Deno.test("KEY_UPDATE goes out with the first frame an hour after the key was made, and not by itself (e-21)", () => {
  const { session, clock, sent } = setUp("client");
  const stream = session.openStream()!;
  stream.put(utf8("x"));
  sent();
  clock.now += 3_599_999;
  stream.put(utf8("x"));
  assertEquals(sent().map((frame) => frame.type), [FrameType.STREAM]);
  clock.now += 1;
  assertEquals(sent(), []);
  stream.put(utf8("x"));
  assertEquals(sent().map((frame) => frame.type), [FrameType.KEY_UPDATE, FrameType.STREAM]);
});

Deno.test("a receiver ends the session at the frame with counter 65 536", () => {
  const { session, peer } = setUp("server");
  const ping = () => peer.ping(2);
  for (let i = 0; i < 65_536; i++) session.receive(ping());
  assertEquals(session.error, undefined);
  session.receive(ping());
  assertEquals(session.error?.code, "PROTOCOL_ERROR");
});

Deno.test("both sides rekey at any step with any interleaving (e-21)", () => {
  const step = fc.constantFrom(
    "client puts",
    "server puts",
    "client rekeys",
    "server rekeys",
    "to server",
    "to client",
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const clientStreams: SessionStream[] = [];
    const serverStreams: SessionStream[] = [];
    const client = new HtxSession({
      role: "client",
      keys: testKeys(),
      events: { stream: (s) => clientStreams.push(s) },
    });
    const server = new HtxSession({
      role: "server",
      keys: testKeys(),
      events: { stream: (s) => serverStreams.push(s) },
    });
    const [up, down] = [client.openStream()!, server.openStream()!];
    const wires = { up: [] as Uint8Array[], down: [] as Uint8Array[] };
    let sentUp = 0;
    let sentDown = 0;
    const toServer = () => {
      wires.up.push(output(client));
      for (const bytes of wires.up.splice(0)) server.receive(bytes);
    };
    const toClient = () => {
      wires.down.push(output(server));
      for (const bytes of wires.down.splice(0)) client.receive(bytes);
    };
    for (const what of steps) {
      if (what === "client puts") up.put(utf8(String(sentUp++ % 10)));
      else if (what === "server puts") down.put(utf8(String(sentDown++ % 10)));
      else if (what === "client rekeys") client.updateKey(), wires.up.push(output(client));
      else if (what === "server rekeys") server.updateKey(), wires.down.push(output(server));
      else if (what === "to server") toServer();
      else toClient();
    }
    toServer();
    toClient();
    assertEquals([client.error, server.error], [undefined, undefined]);
    const expected = (n: number) => Array.from({ length: n }, (_, i) => i % 10).join("");
    assertEquals(serverStreams.map(text).join(""), expected(sentUp));
    assertEquals(clientStreams.map(text).join(""), expected(sentDown));
    assertEquals(client.generations.sending, server.generations.receiving);
    assertEquals(server.generations.sending, client.generations.receiving);
  }));
});

Deno.test("one KEY_UPDATE per 16 frames over 1024 is put up with, more is EXCESSIVE_LOAD", () => {
  for (const [between, expected] of [[15, undefined], [14, "EXCESSIVE_LOAD"]] as const) {
    const { session, peer } = setUp("server");
    for (let i = 0; i < 80; i++) {
      for (let k = 0; k < between; k++) session.receive(peer.ping(2));
      session.receive(peer.keyUpdate());
    }
    assertEquals(session.error?.code, expected);
  }
});

Deno.test("two KEY_UPDATEs in a row are legal and call for none in return; one that is not empty is not", () => {
  const { session, peer, sent } = setUp("server");
  session.receive(concat(peer.keyUpdate(), peer.keyUpdate(), peer.stream(1, "x")));
  assertEquals(session.error, undefined);
  assertEquals(sent(), []);
  session.receive(peer.frame(FrameType.KEY_UPDATE, undefined, utf8("x")));
  assertEquals(session.error?.code, "PROTOCOL_ERROR");
});

// ---------------------------------------------------------------------------- PING

Deno.test("a PING that asks is answered with its data; others are not", () => {
  const { session, peer, sent } = setUp("server");
  const none = new Uint8Array(0);
  session.receive(
    concat(peer.ping(0, utf8("data")), peer.ping(1, utf8("stray")), peer.ping(2, none), peer.ping(9, none)),
  );
  assertEquals(sent().map((frame) => fromUtf8(frame.plaintext)), ["\u0001data"]);
});

Deno.test("at most 16 answers wait; questions past them are dropped", () => {
  const { session, peer, sent } = setUp("server");
  for (let i = 0; i < 20; i++) session.receive(peer.ping(0, new Uint8Array([i])));
  assertEquals(sent().length, 16);
  session.receive(peer.ping(0));
  assertEquals(sent().length, 1);
});

Deno.test("33 bytes of PING data are too many, 32 are not", () => {
  for (const [length, code] of [[32, undefined], [33, "PROTOCOL_ERROR"]] as const) {
    const { session, peer } = setUp("server");
    session.receive(peer.ping(0, new Uint8Array(length)));
    assertEquals(session.error?.code, code);
  }
});

Deno.test("unknown types are ignored, but not more than 1000 in a row; empty PINGs likewise", () => {
  for (const type of [77, FrameType.PING]) {
    const { session, peer } = setUp("server");
    for (let i = 0; i < 1000; i++) session.receive(peer.frame(type, undefined));
    session.receive(peer.ping(2));
    for (let i = 0; i < 1000; i++) session.receive(peer.frame(type, undefined));
    assertEquals(session.error, undefined);
    session.receive(peer.frame(type, undefined));
    assertEquals(session.error?.code, "EXCESSIVE_LOAD");
  }
});

// ---------------------------------------------------------------------------- the end

Deno.test("an empty CLOSE is answered with one, and both sides end well", () => {
  const { session, peer, sent } = setUp("server");
  session.receive(peer.close());
  assertEquals([session.error, session.closeInfo?.code, session.closeInfo?.remote], [
    undefined,
    "NO_ERROR",
    true,
  ]);
  assertEquals(sent().map((frame) => [frame.type, frame.plaintext.length]), [[FrameType.CLOSE, 0]]);
  assert(session.done);
});

Deno.test("streams finished in both directions end well and stay readable; the others error with CANCELLED", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.streamEnd(1, "kept"), peer.stream(3, "lost"), peer.streamEnd(5, "lost too")));
  accepted[0]!.put(utf8(""), true);
  peer.open(output(session));
  session.receive(peer.close());
  assertEquals(text(accepted[0]!), "kept");
  assertEquals(accepted[0]!.take(), null);
  assertEquals(accepted.slice(1).map((stream) => [stream.take(), stream.error?.code]), [[
    undefined,
    "CANCELLED",
  ], [undefined, "CANCELLED"]]);
});

Deno.test("a CLOSE with a code errors every unfinished stream with that code", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.stream(1, "x"), peer.close(CloseCode.INTERNAL_ERROR, 0, "why")));
  assertEquals([session.error?.code, session.error?.remote], ["INTERNAL_ERROR", true]);
  assertEquals(session.closeInfo?.reason, "why");
  assertEquals(accepted[0]!.error?.code, "INTERNAL_ERROR");
});

Deno.test("a CLOSE that cannot be parsed is a PROTOCOL_ERROR", () => {
  for (const plaintext of [[5], [0x40], [0, 0x40], [0, 0, 0xff], [0, 0, ...new Uint8Array(257)]]) {
    const { session, peer } = setUp("server");
    session.receive(peer.frame(FrameType.CLOSE, undefined, new Uint8Array(plaintext)));
    assertEquals(session.error?.code, "PROTOCOL_ERROR", String(plaintext.length));
  }
  const { session, peer } = setUp("server");
  session.receive(peer.close(CloseCode.TIMEOUT, 0, "r".repeat(256)));
  assertEquals(session.error?.code, "TIMEOUT");
});

Deno.test("frames after a CLOSE are not opened", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(concat(peer.close(), peer.stream(1, "x"), new Uint8Array(100)));
  assertEquals([session.error, accepted.length], [undefined, 0]);
});

Deno.test("EOF without CLOSE is truncation, even with no stream open (e-19)", () => {
  const { session, peer, accepted } = setUp("server");
  session.receive(peer.stream(1, "x"));
  session.receiveEnd();
  assertEquals(session.error?.code, "TRUNCATED");
  assertEquals([accepted[0]!.take(), accepted[0]!.error?.code], [undefined, "TRUNCATED"]);
  const idle = setUp("server");
  idle.session.receiveEnd();
  assertEquals(idle.session.error?.code, "TRUNCATED");
});

Deno.test("an end before the server's first frame is a failed handshake to the client, and truncation afterwards", () => {
  const { session } = setUp("client");
  session.receiveEnd();
  assertEquals(session.error?.code, "HANDSHAKE_FAILED");
  const heard = setUp("client");
  heard.session.receive(heard.peer.ping(2));
  heard.session.receiveEnd();
  assertEquals(heard.session.error?.code, "TRUNCATED");
});

Deno.test("close() sends what fits the windows, then CLOSE, and waits a second for the peer's", () => {
  const { session, clock, sent } = setUp("client");
  const stream = session.openStream()!;
  stream.put(utf8("last words"), true);
  session.close("INTERNAL_ERROR", "why");
  const frames = sent();
  assertEquals(frames.map((frame) => frame.type), [FrameType.STREAM_END, FrameType.CLOSE]);
  assertEquals(closeCode(frames), CloseCode.INTERNAL_ERROR);
  assertFalse(session.done);
  assertEquals(session.nextTimeout, clock.now + 1000);
  clock.now += 1000;
  session.tick();
  assert(session.done);
});

Deno.test("a reason is cut to 256 bytes of UTF-8, at a character", () => {
  const { session, sent } = setUp("client");
  session.close("NO_ERROR", "é".repeat(200));
  const { plaintext } = sent()[0]!;
  assertEquals(fromUtf8(plaintext.subarray(2)), "é".repeat(128));
});

Deno.test("draining refuses new streams with GOING_AWAY, lets the others finish, then closes", () => {
  const { session, peer, accepted, sent } = setUp("server");
  session.receive(peer.streamEnd(1, "x"));
  session.drain();
  session.receive(peer.stream(3, "x"));
  assertEquals(resets(sent()), [[3, CloseCode.GOING_AWAY]]);
  assertFalse(session.closing);
  accepted[0]!.put(utf8("y"), true);
  const frames = sent();
  assertEquals(frames.map((frame) => frame.type), [FrameType.STREAM_END, FrameType.CLOSE]);
  assertEquals(frames[1]!.plaintext.length, 0);
});

// ---------------------------------------------------------------------------- time

Deno.test("a begun frame that does not arrive in 30 s ends the session", () => {
  const { session, peer, clock, sent } = setUp("server");
  const frame = peer.stream(1, "x");
  session.receive(frame.subarray(0, 5));
  clock.now += 29_999;
  session.tick();
  assertEquals(session.error, undefined);
  clock.now += 1;
  session.tick();
  assertEquals(session.error?.code, "TIMEOUT");
  assertEquals(closeCode(sent()), CloseCode.TIMEOUT);
});

Deno.test("five minutes without streams end the session with GOING_AWAY; a stream keeps it", () => {
  const { session, peer, clock, accepted, sent } = setUp("server");
  clock.now += 299_999;
  session.tick();
  assertFalse(session.closing);
  session.receive(peer.streamEnd(1, ""));
  clock.now += 10 ** 6;
  session.tick();
  assertFalse(session.closing);
  accepted[0]!.put(utf8(""), true);
  peer.open(output(session));
  clock.now += 300_000;
  session.tick();
  assertEquals([session.closeInfo?.code, session.error], ["GOING_AWAY", undefined]);
  assertEquals(closeCode(sent()), CloseCode.GOING_AWAY);
});

Deno.test("keepalives come at fresh random points of 10 to 60 s; one without an answer for 30 s ends the session", () => {
  const { session, peer, clock, sent } = setUp("client", { limits: { keepalive: true, idleTimeoutMs: 0 } });
  const gaps = new Set<number>();
  for (let i = 0; i < 20; i++) {
    const at = session.nextTimeout!;
    gaps.add(at - clock.now);
    assert(at - clock.now >= 10_000 && at - clock.now <= 60_000);
    clock.now = at;
    session.tick();
    const [ping] = sent();
    assertEquals(ping!.plaintext[0], 0);
    session.receive(peer.ping(1, ping!.plaintext.subarray(1)));
  }
  assert(gaps.size > 15, "never periodic");
  clock.now = session.nextTimeout!;
  session.tick();
  sent();
  clock.now += 30_000;
  session.tick();
  assertEquals(session.error?.code, "TIMEOUT");
});

Deno.test("padding of 0 to 3072 bytes goes out 200 to 1200 ms after the last data", () => {
  const { session, clock, sent } = setUp("client", { limits: { padding: true, idleTimeoutMs: 0 } });
  const sizes = new Set<number>();
  for (let i = 0; i < 50; i++) {
    const at = session.nextTimeout!;
    assert(at - clock.now >= 200 && at - clock.now <= 1200);
    clock.now = at;
    session.tick();
    const [padding] = sent();
    assertEquals(padding!.plaintext[0], 2);
    assert(padding!.plaintext.length <= 3073);
    sizes.add(padding!.plaintext.length);
  }
  assert(sizes.size > 30);
});

// ---------------------------------------------------------------------------- stream 2

Deno.test("stream 2 without the feature is refused once", () => {
  const { session, peer, accepted, sent } = setUp("client");
  session.receive(concat(peer.stream(2, "map"), peer.stream(2, "map")));
  assertEquals(resets(sent()), [[2, CloseCode.REFUSED]]);
  assertEquals([accepted.length, session.error], [0, undefined]);
});

Deno.test("stream 2 stands outside order, limit and idle count; the client cannot write to it", () => {
  const { session, peer, accepted, clock } = setUp("client", {
    acceptControlStream: true,
    limits: { maxPeerStreams: 1 },
  });
  session.receive(concat(peer.stream(8, "x"), peer.stream(2, "map")));
  assertEquals(accepted.map((stream) => stream.id), [8, 2]);
  assertEquals(text(accepted[1]!), "map");
  assertThrows(() => accepted[1]!.put(utf8("x")));
  accepted[0]!.reset();
  clock.now += 300_000;
  session.tick();
  assertEquals(session.closeInfo?.code, "GOING_AWAY");
});

Deno.test("a server opens stream 2 once, and a client's data on it ends the session (e-31)", () => {
  const { session, peer, sent } = setUp("server");
  const control = session.openControlStream();
  control.put(utf8("map"));
  assertEquals(sent().map((frame) => frame.streamId), [2]);
  assertThrows(() => session.openControlStream(), TypeError);
  session.receive(peer.close(CloseCode.REFUSED, 2));
  assertEquals([control.error?.code, session.error], ["REFUSED", undefined]);
  session.receive(peer.stream(2, "x"));
  assertEquals(session.error?.code, "PROTOCOL_ERROR");
});
