/** What a review of connections found: each case once went wrong. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RawPeer, testKeys } from "./_raw_peer.ts";
import { ManualClock } from "./_test_clock.ts";
import { concat } from "./bytes.ts";
import { type ConnectionInit, HtxConnection } from "./connection.ts";
import type { ByteIo, Duplex } from "./duplex.ts";
import { HtxError } from "./errors.ts";
import { FrameType } from "./frame.ts";
import type { HtxStream } from "./stream.ts";

const EMPTY = new Uint8Array(0);

/** A duplex whose other end is the test: it says what is read, and whether writes get through. */
class HandMade implements ByteIo {
  readonly written: Uint8Array[] = [];
  stuck = false;
  closed = false;
  #chunks: (Uint8Array | null)[] = [];
  #reader: PromiseWithResolvers<void> | undefined;
  #writer: PromiseWithResolvers<void> | undefined;

  get duplex(): Duplex {
    return { readable: new ReadableStream(), writable: new WritableStream(), io: this };
  }

  /** Bytes for the connection to read; `null` is the end. */
  give(chunk: Uint8Array | null): void {
    this.#chunks.push(chunk);
    this.#reader?.resolve();
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#chunks.length === 0) {
      if (this.closed) throw new Error("closed");
      this.#reader = Promise.withResolvers();
      await this.#reader.promise;
    }
    const chunk = this.#chunks[0];
    if (chunk === null || chunk === undefined) return null;
    const part = chunk.subarray(0, into.length);
    into.set(part);
    if (part.length === chunk.length) this.#chunks.shift();
    else this.#chunks[0] = chunk.subarray(part.length);
    return part.length;
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.stuck) {
      this.#writer = Promise.withResolvers();
      await this.#writer.promise;
    }
    this.written.push(data.slice());
  }

  closeWrite(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    this.closed = true;
    this.#reader?.resolve();
    this.#writer?.reject(new Error("closed"));
  }
}

function setUp(role: "client" | "server", options: Partial<ConnectionInit> = {}) {
  const io = new HandMade();
  const clock = new ManualClock();
  const connection = new HtxConnection(io.duplex, {
    role,
    keys: testKeys(),
    remoteStatic: new Uint8Array(32),
    handshake: { protocol: "test", hybrid: false, hash: new Uint8Array(32) },
    clock,
    ...options,
  });
  return { io, clock, connection, peer: new RawPeer(role) };
}

/** Lets everything that is due happen: no timer is involved anywhere. */
async function settle(): Promise<void> {
  for (let i = 0; i < 100; i++) await undefined;
}

Deno.test("close() and an end of the peer's are over in a second though a write is stuck", async () => {
  for (const writeTimeoutMs of [60_000, 0]) {
    for (const end of ["close", "EOF"] as const) {
      const { io, clock, connection } = setUp("client", { writeTimeoutMs });
      io.stuck = true;
      const stream = await connection.createBidirectionalStream();
      await stream.write(new Uint8Array(10));
      await settle();
      clock.advance(30_000);
      let ended = false;
      connection.closed.catch(() => {}).finally(() => ended = true);
      if (end === "close") connection.close();
      else io.give(null);
      await settle();
      clock.advance(999);
      await settle();
      assertEquals(ended, false);
      clock.advance(1);
      await settle();
      assertEquals([ended, clock.timers, io.closed], [true, 0, true], `${end}, ${writeTimeoutMs}`);
    }
  }
});

Deno.test("time that the application takes between two writes of a batch is not held against the peer or the carrier", async () => {
  for (const then of ["close", "write"] as const) {
    let tried = 0;
    // At each of the turns that the second write waits for more; past them it has begun.
    for (let turns = 0, early = true; early; turns++) {
      const { io, clock, connection } = setUp("client");
      const stream = await connection.createBidirectionalStream();
      const write = io.write.bind(io);
      let writes = 0;
      io.write = async (data) => {
        writes++;
        await write(data);
        if (writes > 1) return;
        io.stuck = then === "write";
        await stream.write(new Uint8Array(1));
        (async () => {
          for (let turn = 0; turn < turns; turn++) await undefined;
          early = writes === 1;
          clock.advance(early ? 59_500 : 0);
          if (then === "close") connection.close();
        })();
      };
      await stream.write(new Uint8Array(1));
      await settle();
      tried++;
      let ended = false;
      connection.closed.catch(() => {}).finally(() => ended = true);
      clock.advance(999); // the peer does not answer the CLOSE; the carrier takes nothing
      await settle();
      assertEquals([ended, io.closed], [false, false], `${then}, turn ${turns}`);
      clock.advance(then === "close" ? 1 : 59_001);
      await settle();
      assertEquals([ended, io.closed, clock.timers], [true, true, 0], `${then}, turn ${turns}`);
    }
    assert(tried > 3, `${tried}`);
  }
});

Deno.test("a handler that reads nothing of what came does not use up the peer's streams", async () => {
  for (const how of ["handler", "incoming"] as const) {
    const answer = (stream: HtxStream) => stream.write(new Uint8Array([1]), { end: true });
    const { io, connection, peer } = setUp("server", {
      maxPeerStreams: 2,
      ...(how === "handler" && { onStream: answer }),
    });
    if (how === "incoming") {
      (async () => {
        for await (const stream of connection.incomingBidirectionalStreams) answer(stream);
      })().catch(() => {}); // ends with the connection
    }
    for (let i = 0; i < 10; i++) {
      io.give(peer.streamEnd(1 + 2 * i, "not read"));
      await settle();
    }
    const frames = io.written.flatMap((bytes) => peer.open(bytes));
    assertEquals(frames.map((frame) => frame.type), Array(10).fill(FrameType.STREAM_END), how);
    connection.abort();
    await settle();
  }
});

Deno.test("streams that come after incomingBidirectionalStreams was cancelled are refused", async () => {
  const { io, connection, peer } = setUp("server", { maxPeerStreams: 1 });
  const reader = connection.incomingBidirectionalStreams.getReader();
  const reading = reader.read();
  await settle();
  await reader.cancel();
  assertEquals((await reading).done, true);
  for (const id of [1, 3]) {
    io.give(peer.stream(id, "x"));
    await settle();
  }
  const frames = io.written.flatMap((bytes) => peer.open(bytes));
  assertEquals(frames.map(({ plaintext }) => [...plaintext.subarray(0, 2)]), [[6, 1], [6, 3]]);
  connection.abort();
  await settle();
});

Deno.test("a listener for keys that throws harms nobody, whichever side replaced them", async () => {
  const { io, connection, peer } = setUp("server", {
    onStream: (stream) => stream.readable.pipeTo(stream.writable),
  });
  const told: boolean[] = [];
  connection.onKeyUpdate(() => {
    throw new Error("the listener's own");
  });
  connection.onKeyUpdate((sending) => told.push(sending));
  io.give(peer.keyUpdate());
  connection.updateKey();
  io.give(peer.streamEnd(1, "x"));
  await settle();
  assertEquals(told, [false, true]);
  const frames = io.written.flatMap((bytes) => peer.open(bytes));
  assertEquals([frames[0]?.type, frames.at(-1)?.type], [FrameType.KEY_UPDATE, FrameType.STREAM_END]);
  connection.abort(new HtxError("CLOSED", "through"));
  assert((await assertRejects(() => connection.closed, HtxError)).code === "CLOSED");
});

/** A server's connection over web streams alone, and the test's ends of them. */
function overStreams(clock?: ManualClock) {
  const there = new TransformStream<Uint8Array, Uint8Array>();
  const back = new TransformStream<Uint8Array, Uint8Array>();
  const connection = new HtxConnection({ readable: there.readable, writable: back.writable }, {
    role: "server",
    keys: testKeys(),
    remoteStatic: new Uint8Array(32),
    handshake: { protocol: "test", hybrid: false, hash: new Uint8Array(32) },
    clock,
  });
  return { there, back, connection };
}

Deno.test("over web streams, too, a frame too large is answered with CLOSE, and what came before it counts", async () => {
  for (const [tail, code] of [["010000", "FRAME_TOO_LARGE"], ["close", "NO_ERROR"]] as const) {
    const { there, back, connection } = overStreams();
    const streams = Array.fromAsync(connection.incomingBidirectionalStreams).catch(() => []);
    const peer = new RawPeer("server");
    const writer = there.writable.getWriter();
    const bad = new Uint8Array([1, 0, 0]);
    writer.write(concat(peer.streamEnd(1, "hello"), tail === "close" ? peer.close() : EMPTY, bad)).catch(
      () => {},
    );
    const answer: number[] = [];
    for await (const bytes of back.readable) {
      answer.push(...peer.open(bytes).map(({ type, plaintext }) => type * 100 + (plaintext[0] ?? 0)));
    }
    assertEquals(answer, [code === "NO_ERROR" ? 200 : 204]);
    writer.close().catch(() => {});
    assertEquals((await streams).length, code === "NO_ERROR" ? 1 : 0);
    assertEquals(await connection.closed.then((info) => info.code, (error) => error.code), code);
  }
});

Deno.test("a write that was still to go out behind close() is told when the duplex goes first", async () => {
  const { io, connection, peer } = setUp("server", { onStream: undefined, sendBuffer: 0 });
  const incoming = connection.incomingBidirectionalStreams.getReader();
  io.give(peer.streamEnd(1));
  const stream = (await incoming.read()).value!;
  assertEquals(await stream.read(), null);
  io.stuck = true;
  connection.ping().catch(() => {}); // keeps the write busy
  await settle();
  const writing = stream.write(new Uint8Array(1000), { end: true });
  connection.close();
  io.give(null);
  assertEquals((await assertRejects(() => writing, HtxError)).code, "CLOSED");
  connection.abort();
  await settle();
});

Deno.test("over web streams, too, a begun frame that does not arrive in 30 s ends the session", async () => {
  const clock = new ManualClock();
  const { there, back, connection } = overStreams(clock);
  const sent = Array.fromAsync(back.readable).catch(() => []);
  const writer = there.writable.getWriter();
  await writer.write(new RawPeer("server").stream(1, "x").subarray(0, 5));
  await settle();
  clock.advance(29_999);
  assertEquals(connection.closing, false);
  clock.advance(1);
  assert(connection.closing);
  await settle();
  clock.advance(1000);
  assertEquals((await assertRejects(() => connection.closed, HtxError)).code, "TIMEOUT");
  await writer.abort().catch(() => {}); // the connection ended it
  await sent;
});

Deno.test("pings beyond what a peer has room for wait their turn; one given up while it waits is never asked", async () => {
  const { io, connection, peer } = setUp("client");
  const controller = new AbortController();
  const answered = Array.from({ length: 40 }, () => connection.ping());
  const given = connection.ping({ signal: controller.signal });
  let asked = 0;
  for (;;) {
    await settle();
    const questions = peer.open(concat(...io.written.splice(0))).filter(({ type }) =>
      type === FrameType.PING
    );
    if (asked === 0) {
      assert(questions.length < 16, "two places are left for questions of the session's own");
      controller.abort(new Error("given up"));
    }
    asked += questions.length;
    if (questions.length === 0) break;
    for (const { plaintext } of questions) io.give(peer.ping(1, plaintext.subarray(1)));
  }
  assertEquals(asked, 40);
  await Promise.all(answered);
  await assertRejects(() => given, Error, "given up");
  connection.abort();
  await settle();
});

Deno.test("who gives up a stream in the moment a place was given hands the place on", async () => {
  const { connection } = setUp("client", { maxLocalStreams: 1 });
  const open = await connection.createBidirectionalStream();
  const controller = new AbortController();
  const first = connection.createBidirectionalStream({ signal: controller.signal });
  const second = connection.createBidirectionalStream();
  open.reset();
  controller.abort(new Error("given up"));
  await assertRejects(() => first, Error, "given up");
  await second;
  assertEquals(connection.openStreams, 1);
  connection.abort();
  await settle();
});

Deno.test("who waits for a place is told at once that a connection drains", async () => {
  const { connection } = setUp("client", { maxLocalStreams: 1 });
  const open = await connection.createBidirectionalStream();
  await open.write(new Uint8Array(1));
  const waiting = connection.createBidirectionalStream();
  connection.drain();
  assertEquals((await assertRejects(() => waiting, HtxError)).code, "GOING_AWAY");
  assert(!connection.closing, "the open stream may finish");
  connection.abort();
  await settle();
});

Deno.test("a session without streams ends for idleness after the reset of one that sent nothing, too", async () => {
  const { clock, connection } = setUp("client", { idleTimeoutMs: 1000 });
  const stream = await connection.createBidirectionalStream();
  clock.advance(5000);
  await settle();
  assertEquals(connection.closing, false);
  stream.reset();
  await settle();
  clock.advance(1000);
  assert(connection.closing);
  connection.abort();
  await settle();
});

Deno.test("a stream without a send buffer takes what is piped into it", async () => {
  const { io, connection, peer } = setUp("client", { sendBuffer: 0 });
  const stream = await connection.createBidirectionalStream();
  await ReadableStream.from([new Uint8Array(10), new Uint8Array(20)]).pipeTo(stream.writable);
  assertEquals(
    peer.open(concat(...io.written)).reduce((sum, { plaintext }) => sum + plaintext.length, 0),
    30,
  );
  connection.abort();
  await settle();
});

Deno.test("a read into no room at all is refused, whether data or the end waits", async () => {
  const { io, connection, peer } = setUp("server");
  const incoming = connection.incomingBidirectionalStreams.getReader();
  io.give(peer.streamEnd(1, "hello"));
  const stream = (await incoming.read()).value!;
  await settle();
  assertThrows(() => stream.tryReadInto(EMPTY), TypeError, "no room");
  await assertRejects(() => stream.readInto(EMPTY), TypeError, "no room");
  assertEquals(stream.takeInto(EMPTY), 0);
  assertEquals(await stream.readInto(new Uint8Array(8)), 5);
  assertEquals([await stream.readInto(new Uint8Array(8)), stream.takeInto(EMPTY)], [null, null]);
  connection.abort();
  await settle();
});

/** A clock whose event loop turns when the test says so. */
class TurningClock extends ManualClock {
  #turn: (() => void) | undefined;
  asked = 0;

  turn(): Promise<void> {
    this.asked++;
    return new Promise((resolve) => this.#turn = resolve);
  }

  /** Turns, if somebody waits for it. */
  turned(): void {
    this.#turn?.();
    this.#turn = undefined;
  }
}

Deno.test("writes in quick succession wait for the event loop to turn where that gathers many, and else hardly ever", async () => {
  const clock = new TurningClock();
  const { io, connection } = setUp("client", { clock });
  const streams: HtxStream[] = [];
  for (let i = 0; i < 20; i++) streams.push(await connection.createBidirectionalStream());
  const round = async (count: number) => {
    const { asked } = clock;
    streams[0]!.write(new Uint8Array(10));
    await settle();
    for (const stream of streams.slice(1, count)) {
      stream.write(new Uint8Array(10));
      await settle();
    }
    clock.turned();
    await settle();
    return clock.asked - asked;
  };
  await round(1); // the first of all is in quick succession to none
  let waits = 0;
  for (let i = 0; i < 160; i++) waits += await round(1);
  assert(waits >= 160 / 25 && waits <= 160 / 9, `${waits}`);
  for (let i = 0; i < 32; i++) await round(20);
  const { length } = io.written;
  for (let i = 0; i < 16; i++) assertEquals(await round(20), 1);
  assertEquals(io.written.length - length, 16); // twenty writes of the application in each
  waits = 0;
  for (let i = 0; i < 160; i++) waits += await round(1);
  assert(waits <= 160 / 9 + 10, `${waits}`);
  connection.abort(new HtxError("CLOSED", "through"));
});

Deno.test("what the application answers at once goes out before the next read is begun", async () => {
  const log: string[] = [];
  const io = new HandMade();
  const keep = { read: io.read.bind(io), write: io.write.bind(io) };
  io.read = (into) => (log.push("read"), keep.read(into));
  io.write = (data) => (log.push("write"), keep.write(data));
  const connection = new HtxConnection(io.duplex, {
    role: "server",
    keys: testKeys(),
    remoteStatic: new Uint8Array(32),
    handshake: { protocol: "test", hybrid: false, hash: new Uint8Array(32) },
    clock: new ManualClock(),
    onStream: async (stream) => {
      for (let chunk; (chunk = await stream.read()) !== null;) await stream.write(chunk);
    },
  });
  const peer = new RawPeer("server");
  for (const text of ["open", "one", "two"]) {
    io.give(peer.stream(1, text));
    await settle();
    if (text === "open") log.length = 0;
  }
  assertEquals(log, ["write", "read", "write", "read"]);
  connection.abort(new HtxError("CLOSED", "through"));
});

Deno.test("a place for a stream that was given to who then aborts goes to the next, at whatever moment that is", async () => {
  for (let turns = 0; turns < 12; turns++) {
    const { connection } = setUp("client", { maxLocalStreams: 1 });
    const first = await connection.createBidirectionalStream();
    const aborter = new AbortController();
    const aborting = connection.createBidirectionalStream({ signal: aborter.signal });
    let next: HtxStream | undefined;
    connection.createBidirectionalStream().then((stream) => next = stream, () => {});
    first.reset();
    for (let i = 0; i < turns; i++) await undefined;
    aborter.abort();
    const second = await aborting.catch(() => undefined);
    second?.reset(); // it was opened before the abort
    await settle();
    assert(next !== undefined, `aborted after ${turns} turns`);
    connection.abort();
    await settle();
  }
});

Deno.test("a write whose buffer is detached rejects, and the connection goes on", async () => {
  const { connection } = setUp("client");
  const stream = await connection.createBidirectionalStream();
  const large = new Uint8Array(300_000);
  const written = stream.write(large);
  large.buffer.transfer();
  const error = await assertRejects(() => written, HtxError, "detached");
  assertEquals([error.code, connection.closing], ["INTERNAL_ERROR", false]);
  const closing = await connection.createBidirectionalStream();
  const late = new Uint8Array(300_000);
  const flushed = closing.write(late, { end: true });
  connection.close();
  late.buffer.transfer();
  await assertRejects(() => flushed, HtxError, "closed");
  connection.abort();
  await settle();
});
