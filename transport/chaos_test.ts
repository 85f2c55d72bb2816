/** Connections that end in every way at any moment: whatever was waited for settles, and nothing is left. */

import { assertEquals } from "@std/assert";
import { HtxConnection, HtxError, type HtxStream } from "../core/mod.ts";
import { memoryDuplexPair } from "./memory.ts";

const LONG = Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
  Deno.env.get("HTX_LONG") === "1";

/** Small deterministic random numbers, below what is asked for. */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

/** A turn of the event loop. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

class Chaos {
  /** What was waited for, and what is still. */
  readonly waits: Promise<unknown>[] = [];
  readonly open: Set<string> = new Set();
  readonly failures: unknown[] = [];
  readonly #roll: (below: number) => number;
  #count = 0;

  constructor(roll: (below: number) => number) {
    this.#roll = roll;
  }

  expect(what: string, promise: Promise<unknown>): void {
    const name = `${what} ${this.#count++}`;
    this.open.add(name);
    const done = () => this.open.delete(name);
    this.waits.push(promise.then(done, (error) => {
      done();
      const expected = error instanceof HtxError || error instanceof DOMException || error === "through";
      if (!expected) this.failures.push(error);
    }));
  }

  async use(stream: HtxStream): Promise<void> {
    const roll = this.#roll;
    this.expect("closed", stream.closed);
    const length = roll(200_000);
    switch (roll(6)) {
      case 0:
        return this.expect("pipe", stream.readable.pipeTo(stream.writable));
      case 1:
        this.expect(
          "read",
          (async () => {
            while (await stream.read() !== null);
          })(),
        );
        return this.expect(
          "write",
          (async () => {
            for (let i = length % 9; i > 0; i--) await stream.write(new Uint8Array(length / 3));
            await stream.closeWrite();
          })(),
        );
      case 2:
        await turn();
        return stream.reset(length % 12);
      case 3:
        this.expect("write", stream.write(new Uint8Array(length), { end: true }));
        return stream.stopSending();
      case 4: {
        const reader = stream.readable.getReader();
        this.expect("cancel", reader.read().then(() => reader.cancel()));
        return this.expect(
          "abort",
          (async () => {
            const writer = stream.writable.getWriter();
            await writer.write(new Uint8Array(70_000));
            await writer.abort("through");
          })(),
        );
      }
      default:
        return this.expect(
          "exchange",
          (async () => {
            await stream.write(new Uint8Array(length), { end: true });
            await stream.readable.pipeTo(new WritableStream());
          })(),
        );
    }
  }
}

async function round(seed: number): Promise<void> {
  const roll = dice(seed);
  const chaos = new Chaos(roll);
  const duplexes = memoryDuplexPair({
    streamsOnly: roll(2) > 0,
    highWaterMark: [1, 1000, 262_144][roll(3)]!,
  });
  const init = (role: "client" | "server") => ({
    role,
    keys: {
      client: new Uint8Array(32).fill(1),
      server: new Uint8Array(32).fill(2),
      handshakeHash: new Uint8Array(32).fill(3),
    },
    remoteStatic: new Uint8Array(32),
    handshake: { protocol: "test", hybrid: false, hash: new Uint8Array(32) },
    closeTimeoutMs: 20,
    maxPeerStreams: [1, 5, 256][roll(3)]!,
    maxLocalStreams: [1, 5, 256][roll(3)]!,
    sendBuffer: [0, 1000, 65_536][roll(3)]!,
    rekey: { afterFrames: [16, 65_536][roll(2)]! },
  });
  const onStream = (stream: HtxStream) => chaos.use(stream);
  const client = new HtxConnection(duplexes[0], { ...init("client"), onStream });
  const takes = roll(2) > 0;
  const server = new HtxConnection(duplexes[1], { ...init("server"), ...(!takes && { onStream }) });
  chaos.expect("client", client.closed);
  chaos.expect("server", server.closed);
  if (takes) {
    chaos.expect(
      "incoming",
      (async () => {
        const reader = server.incomingBidirectionalStreams.getReader();
        for (let left = roll(40); left > 0; left--) {
          const { value, done } = await reader.read();
          if (done) return;
          await chaos.use(value);
        }
        await reader.cancel();
      })(),
    );
  }
  for (let i = roll(30); i > 0; i--) {
    const side = roll(3) ? client : server;
    const kind = roll(8);
    if (kind < 4) {
      const giveUp = new AbortController();
      if (roll(3) === 0) turn().then(() => giveUp.abort());
      const opening = side.createBidirectionalStream({ signal: giveUp.signal });
      chaos.expect("open", opening.then((stream) => chaos.use(stream)));
    } else if (kind === 4) chaos.expect("ping", side.ping());
    else if (kind === 5 && !side.closing) side.updateKey();
    else await turn();
  }
  switch (roll(7)) {
    case 0:
      chaos.expect("close", client.close({ code: roll(12) }));
      break;
    case 1:
      chaos.expect("drain", server.drain());
      await turn();
      chaos.expect("close", client.close());
      break;
    case 2:
      client.abort();
      break;
    case 3:
    case 4:
      duplexes[roll(2)]!.close?.();
      break;
    case 5:
      chaos.expect("close", client.close());
      chaos.expect("close", server.close());
      break;
    default:
      await turn();
      chaos.expect("close", server.close());
      server.abort();
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, 5000));
  const settle = async () => {
    // What settles may have begun something else.
    for (let before = -1; before !== chaos.waits.length;) {
      before = chaos.waits.length;
      await Promise.all(chaos.waits);
    }
  };
  await Promise.race([settle(), late]);
  clearTimeout(timer);
  assertEquals([...chaos.open], [], `seed ${seed}`);
  assertEquals(chaos.failures, [], `seed ${seed}`);
  assertEquals([client.stats.streams, server.stats.streams], [0, 0], `seed ${seed}`);
}

Deno.test("connections that end in any way at any moment leave nobody waiting", async () => {
  for (let seed = 1; seed <= (LONG ? 3000 : 100); seed++) await round(seed * 7919);
});
