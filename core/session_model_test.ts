/**
 * Two session engines joined by a wire that cuts as it likes, driven by random commands on a virtual clock and
 * compared with what a stream promises; and one engine against frames that were changed at random before sealing.
 * Runs briefly; `HTX_LONG=1` runs more.
 */

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { RawPeer, testKeys } from "./_raw_peer.ts";
import { concat } from "./bytes.ts";
import { HtxError } from "./errors.ts";
import { FrameType } from "./frame.ts";
import type { SessionLimits } from "./limits.ts";
import { HtxSession, MAX_FILL_LENGTH, MIN_FILL_LENGTH } from "./session.ts";
import { SessionStream } from "./session_stream.ts";
import { encodeVarint } from "./varint.ts";

const LONG = Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
  Deno.env.get("HTX_LONG") === "1";

/** A stream that counts its events and writes down how it ended. */
class Watched extends SessionStream {
  finishes = 0;
  finishedWith: HtxError | undefined;
  /** Bytes taken, and bytes given to `put`: byte i of a direction follows from i, its sender and the stream. */
  taken = 0;
  given = 0;
  ended = false;
  sawEnd = false;
  resetHere = false;
  stopped = false;

  protected override onFinished(error: HtxError | undefined): void {
    this.finishes++;
    this.finishedWith = error;
  }
}

function byteAt(key: number, i: number): number {
  return (i * 31 + (i >> 8) * 17 + key) & 0xff;
}

/** Small deterministic random numbers. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }

  next(below: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    this.#state >>>= 0;
    return this.#state % below;
  }
}

class Side {
  readonly session: HtxSession;
  /** Streams opened here, by id once known; and those the peer opened. */
  readonly own: Watched[] = [];
  readonly accepted: Watched[] = [];
  readonly wire: Uint8Array[] = [];
  closings = 0;
  pongs = 0;
  drained = false;
  readonly #fillBuffer: Uint8Array;

  constructor(role: "client" | "server", clock: { now: number }, limits: SessionLimits, fill: number) {
    this.#fillBuffer = new Uint8Array(fill);
    this.session = new HtxSession({
      role,
      keys: testKeys(),
      now: () => clock.now,
      limits,
      createStream: (session, id) => new Watched(session, id),
      events: {
        stream: (stream) => this.accepted.push(stream as Watched),
        closing: () => this.closings++,
        pong: () => this.pongs++,
      },
    });
  }

  /** Seals one batch onto the wire. */
  flush(): void {
    if (!this.session.outputDue) return;
    const length = this.session.fill(this.#fillBuffer);
    assert(length > 0 || !this.session.outputDue, "what is due comes out");
    if (length > 0) this.wire.push(this.#fillBuffer.slice(0, length));
  }

  get streams(): Watched[] {
    return [...this.own, ...this.accepted];
  }
}

/** One life of a session: random commands, then everything is read and ended, then the session is. */
function run(seed: number, steps: number): void {
  const dice = new Dice(seed);
  const clock = { now: 0 };
  const limits = (): SessionLimits => ({
    rekey: {
      afterFrames: [16, 64, 65_536][dice.next(3)]!,
      afterBytes: [3000, 200_000, 2 ** 33][dice.next(3)]!,
    },
    maxLocalStreams: [1, 3, 256][dice.next(3)]!,
    streamEnd: dice.next(3) > 0,
    sendBuffer: [0, 1000, 65_536][dice.next(3)]!,
    keepalive: dice.next(2) > 0,
    padding: dice.next(2) > 0,
    maxStreamWindow: [65_535, 300_000][dice.next(2)]!,
    idleTimeoutMs: 0,
    closeTimeoutMs: 1000,
    frameTimeoutMs: 0, // the wire of the test stands still as long as it likes
    keepaliveTimeoutMs: 0,
  });
  const fill = [MIN_FILL_LENGTH, 2000, 8192, MAX_FILL_LENGTH][dice.next(4)]!;
  const sides = [new Side("client", clock, limits(), fill), new Side("server", clock, limits(), fill)];

  const deliver = (from: Side, to: Side, cut: boolean) => {
    const chunk = from.wire.shift();
    if (chunk === undefined) return;
    const at = cut ? dice.next(chunk.length + 1) : chunk.length;
    to.session.receive(chunk.slice(0, at));
    if (at < chunk.length) from.wire.unshift(chunk.subarray(at));
  };
  const take = (stream: Watched, peerKey: number) => {
    const chunk = stream.take();
    if (chunk === null) stream.sawEnd = true;
    if (!chunk) return false;
    for (let i = 0; i < chunk.length; i++) {
      if (chunk[i] !== byteAt(peerKey + stream.id, stream.taken + i)) {
        throw new Error(`byte ${stream.taken + i} of stream ${stream.id} is wrong`);
      }
    }
    stream.taken += chunk.length;
    return true;
  };
  const put = (stream: Watched, key: number, length: number, end: boolean) => {
    if (stream.finished || stream.ended || stream.session.closing) return;
    // The id is known once the stream speaks: byte values depend on it, so it speaks first with no data at all.
    const id = stream._id !== 0 ? stream._id : stream.session._provisionalId(first(stream));
    const data = new Uint8Array(length);
    for (let i = 0; i < length; i++) data[i] = byteAt(key + id, stream.given + i);
    stream.given += length;
    stream.ended = end;
    const copied = stream.put(data, end);
    if (copied) data.fill(0xee); // the buffer is the caller's again
  };
  /** A stream that speaks now gets the next id, whoever was opened before it. */
  const first = (stream: Watched) => {
    const older = sides.flatMap((side) => side.own).find((other) =>
      other.session === stream.session && other._id === 0 && !other.finished
    );
    return older ?? stream;
  };

  for (let step = 0; step < steps; step++) {
    const at = dice.next(2);
    const side = sides[at]!;
    const other = sides[1 - at]!;
    const streams = side.streams.filter((stream) => !stream.finished);
    const stream = streams[dice.next(Math.max(1, streams.length))];
    switch (dice.next(14)) {
      case 0:
        if (!side.session.closing && side.own.length < 40) {
          const opened = side.session.openStream();
          if (opened !== undefined) side.own.push(opened as Watched);
        }
        break;
      case 1:
      case 2:
      case 3:
        if (stream) {
          const length = [0, 1, 10, 900, 5000, 70_000][dice.next(6)]!;
          put(stream, at, length, dice.next(8) === 0);
        }
        break;
      case 4:
        if (stream && dice.next(8) === 0) {
          stream.resetHere = true;
          stream.reset(dice.next(12));
        }
        break;
      case 5:
        if (stream && dice.next(4) === 0 && !stream.receiveEnded) {
          stream.stopped = true;
          stream.stopSending();
        }
        break;
      case 6:
      case 7:
      case 8: {
        const all = side.streams;
        const reader = all[dice.next(Math.max(1, all.length))];
        if (reader) { while (take(reader, 1 - at) && dice.next(3) > 0); }
        break;
      }
      case 9:
        if (dice.next(4) === 0 && !side.session.closing) side.session.updateKey();
        break;
      case 10:
        clock.now += dice.next(5000);
        for (const each of sides) {
          each.session.tick();
          const next = each.session.nextTimeout;
          assert(next === undefined || next > clock.now - 1, "a timer is never left behind");
        }
        break;
      case 11:
      case 12:
        side.flush();
        break;
      default:
        deliver(other, side, dice.next(2) > 0);
    }
    for (const { session } of sides) assertEquals(session.error, undefined);
  }

  // The end: everything is flushed, read and ended, then one side drains or closes.
  for (let round = 0; round < 5000; round++) {
    let moved = false;
    sides.forEach((side, at) => {
      while (side.session.outputDue) side.flush(), moved = true;
      while (side.wire.length > 0) deliver(side, sides[1 - at]!, false), moved = true;
      for (const stream of side.streams) while (take(stream, 1 - at)) moved = true;
    });
    if (!moved) {
      let ended = false;
      sides.forEach((side, at) => {
        for (const stream of side.streams) {
          if (!stream.finished && !stream.ended) put(stream, at, 0, true), ended = true;
        }
      });
      if (!ended) break;
    }
  }
  for (const [at, side] of sides.entries()) {
    assertEquals([side.session.error, side.session.stats.streams, side.session.localStreams], [
      undefined,
      0,
      0,
    ]);
    for (const stream of side.streams) {
      assertEquals([stream.finished, stream.finishes], [true, 1], `stream ${stream.id}`);
      const peer = sides[1 - at]!;
      const twin = (stream._local ? peer.accepted : peer.own).find((each) => each.id === stream.id);
      if (twin === undefined) continue; // never spoke, or was reset before it did
      const undisturbed = ![stream, twin].some((each) => each.resetHere || each.stopped || each.error);
      if (undisturbed) {
        assertEquals(
          [stream.taken, stream.sawEnd || stream.take() === null],
          [twin.given, true],
          `${stream.id}`,
        );
      } else {
        assert(stream.taken <= twin.given);
      }
    }
  }
  const [client, server] = [sides[0]!.session, sides[1]!.session];
  assertEquals(client.stats.framesReceived, server.stats.framesSent);
  assertEquals(server.stats.framesReceived, client.stats.framesSent);
  assertEquals(client.generations.sending, server.generations.receiving);
  assertEquals(server.generations.sending, client.generations.receiving);
  if (dice.next(2)) client.close();
  else server.drain();
  for (let round = 0; round < 4; round++) {
    sides.forEach((side, at) => {
      while (side.session.outputDue) side.flush();
      while (side.wire.length > 0) deliver(side, sides[1 - at]!, false);
    });
  }
  assertEquals(sides.map((side) => [side.session.done, side.session.error, side.closings]), [
    [true, undefined, 1],
    [true, undefined, 1],
  ]);
  assertEquals(sides.map((side) => side.session.nextTimeout), [undefined, undefined]);
}

Deno.test("two sessions under random commands, cuts and clocks lose no byte and end all streams (e-19, e-21, e-23)", () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), (seed) => run(seed, 400)), {
    numRuns: LONG ? 5000 : 30,
  });
});

/** Frames as a careful peer might send them, with ids and bytes now and then wrong. */
function mutant(peer: RawPeer, dice: Dice): Uint8Array {
  const id = [1, 1, 3, 3, 5, 0, 2, 4, 7, 2 ** 31, Number.MAX_SAFE_INTEGER][dice.next(dice.next(3) ? 5 : 11)]!;
  const noise = new Uint8Array([0, 1, 2, 5, 33, 300, dice.next(4) ? 3000 : 65_535][dice.next(7)]!);
  for (let i = 0; i < Math.min(noise.length, 64); i++) noise[i] = dice.next(256);
  switch (dice.next(12)) {
    case 0:
    case 1:
      return peer.frame(FrameType.STREAM, id, noise);
    case 2:
      return peer.frame(FrameType.STREAM_END, id, noise);
    case 3:
      return peer.frame(
        FrameType.WINDOW_UPDATE,
        id,
        dice.next(4) ? encodeVarint([1, 1000, 2 ** 31 - 65_536, 2 ** 31 - 1, 0][dice.next(5)]!) : noise,
      );
    case 4:
      return peer.frame(FrameType.PING, undefined, noise);
    case 5:
      return peer.ping(dice.next(4), noise.subarray(0, 40));
    case 6:
      return peer.frame(FrameType.CLOSE, undefined, noise.subarray(0, 5));
    case 7:
      return peer.close(dice.next(20), id === 0 ? 1 : id, "why");
    case 8:
      return peer.keyUpdate();
    case 9:
      return dice.next(9) ? peer.keyUpdate() : peer.frame(FrameType.KEY_UPDATE, undefined, noise);
    case 10:
      return peer.frame(6 + dice.next(250), undefined, noise);
    default:
      return dice.next(20) ? peer.stream(id, "x") : noise; // now and then not sealed at all
  }
}

Deno.test("whatever a peer seals, a session never throws: it goes on or ends with a code of the protocol (e-20)", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      fc.constantFrom("client", "server"),
      (seed, role) => {
        const dice = new Dice(seed);
        const clock = { now: 0 };
        const streams: SessionStream[] = [];
        let closings = 0;
        const session = new HtxSession({
          role: role === "client" ? "client" : "server",
          keys: testKeys(),
          now: () => clock.now,
          acceptControlStream: dice.next(2) > 0,
          limits: { maxPeerStreams: 2 },
          events: { stream: (stream) => streams.push(stream), closing: () => closings++ },
        });
        const peer = new RawPeer(session.role);
        const mine = session.openStream()!;
        mine.put(new Uint8Array(100_000));
        const buffer = new Uint8Array(MAX_FILL_LENGTH);
        for (let i = 0; i < 60; i++) {
          const batch = concat(...Array.from({ length: 1 + dice.next(3) }, () => mutant(peer, dice)));
          const cut = dice.next(batch.length + 1);
          session.receive(batch.slice(0, cut));
          session.receive(batch.slice(cut));
          for (const stream of streams) {
            if (dice.next(3) === 0) { while (stream.take()); }
            if (dice.next(9) === 0 && !stream.finished && stream.id !== 2 && !session.closing) stream.reset();
          }
          if (dice.next(2)) { while (session.outputDue && session.fill(buffer) > 0); }
          clock.now += dice.next(1000);
          session.tick();
        }
        if (dice.next(2)) session.receiveEnd();
        else session.close();
        while (session.outputDue && session.fill(buffer) > 0);
        assertEquals([session.closing, closings, session.stats.streams, session.localStreams], [
          true,
          1,
          0,
          0,
        ]);
        assert(session.error === undefined || session.error instanceof HtxError);
        for (const stream of [mine, ...streams]) assert(stream.finished);
        clock.now += 1000;
        session.tick();
        assert(session.done);
        assertEquals(session.nextTimeout, undefined);
      },
    ),
    { numRuns: LONG ? 20_000 : 300 },
  );
});
