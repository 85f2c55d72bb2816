import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type EngineCommand, WantEngine, type WantEngineOptions } from "./engine.ts";
import type { WantlistEntry } from "./message.ts";

/** A CID for the engine is bytes that it hands back; its key says which. */
function cid(key: string): Uint8Array {
  return new TextEncoder().encode(key);
}

function keyOf(entry: WantlistEntry): string {
  return new TextDecoder().decode(entry.cid);
}

/** What was sent, in short: `stream+key` want-block, `?key` want-have, `-key` cancel. */
function sent(commands: EngineCommand[]): string[] {
  return commands.flatMap((command) =>
    command.type === "send"
      ? command.entries.map((entry) =>
        `${command.stream}${entry.cancel ? "-" : entry.wantType === "have" ? "?" : "+"}${keyOf(entry)}`
      )
      : [`${command.type} ${command.type === "missing" ? command.key : `${command.peer} ${command.reason}`}`]
  );
}

function engineOf(peers: Record<string, number[]>, options: WantEngineOptions = {}): WantEngine {
  const engine = new WantEngine(options);
  for (const [peer, streams] of Object.entries(peers)) {
    engine.addPeer(peer, 0);
    for (const stream of streams) engine.streamUp(stream, peer, 0);
  }
  return engine;
}

function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
}

Deno.test("WantEngine asks the only peer for blocks at once, over both its streams, no more than its window", () => {
  const engine = engineOf({ a: [1, 2] });
  for (const key of "ABCDEF") engine.want(key, cid(key));
  assertEquals(sent(engine.poll(0)), ["1+A", "1+C", "2+B", "2+D"]);
  assertEquals(sent(engine.poll(0)), []);
  // A good block makes room for itself and one more.
  assertEquals(engine.block(1, "A", 10, 1), "wanted");
  assertEquals(sent(engine.poll(1)), ["1+E", "1+F"]);
});

Deno.test("WantEngine asks one peer for the block and the others whether they have it", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  assertEquals(sent(engine.poll(0)), ["1+A", "2?A"]);
  engine.presence(2, "A", true, 1);
  assertEquals(sent(engine.poll(1)), []);
  engine.presence(1, "A", false, 2);
  assertEquals(sent(engine.poll(2)), ["2+A"]);
  assertEquals(engine.block(2, "A", 10, 3), "wanted");
  assertEquals(engine.pending, 0);
});

Deno.test("WantEngine gives up on a block that everyone has answered for and nobody has", () => {
  const engine = engineOf({ a: [1], b: [2], c: [] });
  engine.want("A", cid("A"));
  engine.poll(0);
  engine.presence(1, "A", false, 1);
  engine.presence(2, "A", false, 1);
  // c may still be reached.
  assertEquals(sent(engine.poll(1)), []);
  engine.peerGone("c");
  assertEquals(sent(engine.poll(1)), ["missing A"]);
  const nobody = new WantEngine();
  nobody.want("A", cid("A"));
  assertEquals(sent(nobody.poll(0)), ["missing A"]);
});

Deno.test("WantEngine lets the higher priority go first", () => {
  const engine = engineOf({ a: [1] });
  for (const [key, priority] of [["A", 1], ["B", 7], ["C", -1], ["D", 7]] as const) {
    engine.want(key, cid(key), priority);
  }
  assertEquals(sent(engine.poll(0)), ["1+B", "1+D", "1+A", "1+C"]);
});

Deno.test("WantEngine takes a want back, and a block that comes all the same is no lie", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  engine.poll(0);
  engine.cancel("A");
  assertEquals(sent(engine.poll(0)), ["1-A", "2-A"]);
  assertEquals(engine.block(1, "A", 10, 1), "duplicate");
  assertEquals(engine.stats("a")!.duplicates, 1);
  assertEquals(engine.stats("a")!.wrongBlocks, 0);
});

Deno.test("WantEngine that asks again for what it took back expects as many copies as it asked for", () => {
  const engine = engineOf({ a: [1] });
  for (let i = 0; i < 3; i++) {
    engine.want("A", cid("A"));
    engine.poll(0);
    if (i < 2) engine.cancel("A");
  }
  assertEquals(engine.block(1, "A", 10, 1), "wanted");
  assertEquals(engine.block(1, "A", 10, 2), "duplicate");
  assertEquals(engine.block(1, "A", 10, 3), "duplicate");
  assertEquals(engine.stats("a")!.wrongBlocks, 0);
  assertEquals(engine.block(1, "A", 10, 4), "wrong");
});

Deno.test("WantEngine takes a block for the answer to a want-have, as Bitswap 1.2 has it for small ones", () => {
  for (const isFirst of [true, false]) {
    const engine = engineOf({ a: [1], b: [2] }, { stallTimeoutMs: 50 });
    engine.want("A", cid("A"));
    assertEquals(sent(engine.poll(0)), ["1+A", "2?A"]);
    const order = isFirst ? [2, 1] : [1, 2];
    assertEquals(order.map((stream) => engine.block(stream, "A", 10, 1)), ["wanted", "duplicate"]);
    assertEquals(sent(engine.poll(1)), isFirst ? ["1-A"] : []);
    // Neither owes anything now.
    engine.tick(100);
    assertEquals(sent(engine.poll(100)), []);
    // Nothing more was asked for.
    assertEquals([1, 2].map((stream) => engine.block(stream, "A", 10, 101)), ["wrong", "wrong"]);
  }
});

Deno.test("WantEngine calls no lie what comes after a dont-have: the want may have been kept until the block came", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  assertEquals(sent(engine.poll(0)), ["1+A", "2?A"]);
  engine.presence(1, "A", false, 1);
  engine.presence(2, "A", false, 1);
  assertEquals(sent(engine.poll(1)), ["missing A"]);
  for (const stream of [1, 2]) {
    assertEquals([1, 2].map(() => engine.block(stream, "A", 10, 2)), ["duplicate", "wrong"]);
  }
});

Deno.test("WantEngine calls no lie what comes after a dont-have for what another peer had sent by then", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  engine.poll(0);
  assertEquals(engine.block(1, "A", 10, 1), "wanted");
  engine.presence(2, "A", false, 2);
  assertEquals([3, 4].map((now) => engine.block(2, "A", 10, now)), ["duplicate", "wrong"]);
});

Deno.test("WantEngine calls no lie what comes for a want-have that was taken back", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  engine.poll(0);
  engine.cancel("A");
  assertEquals(sent(engine.poll(1)), ["1-A", "2-A"]);
  for (const stream of [1, 2]) {
    assertEquals([1, 2].map(() => engine.block(stream, "A", 10, 2)), ["duplicate", "wrong"]);
  }
});

Deno.test("WantEngine asks for what is wanted again by what is known now, not by what was of the want taken back", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  assertEquals(sent(engine.poll(0)), ["1+A", "2?A"]);
  engine.presence(2, "A", true, 1);
  engine.presence(1, "A", false, 1);
  // It is b's turn now; but nobody wants it any more, and then somebody does.
  engine.cancel("A");
  engine.want("A", cid("A"));
  assertEquals(sent(engine.poll(2)), ["1+A", "2?A"]);
  engine.peerGone("b");
  engine.presence(1, "A", false, 3);
  assertEquals(sent(engine.poll(3)), ["missing A"]);
  assertEquals(engine.pending, 0);
});

Deno.test("WantEngine that asks again on another stream takes the first copy, and the second for no lie", () => {
  const engine = engineOf({ a: [1], b: [2] });
  engine.want("A", cid("A"));
  assertEquals(sent(engine.poll(0)), ["1+A", "2?A"]);
  engine.cancel("A");
  engine.presence(1, "A", false, 1);
  engine.want("A", cid("A"));
  engine.poll(1);
  engine.presence(1, "A", false, 1);
  engine.presence(2, "A", true, 1);
  assertEquals(sent(engine.poll(1)), ["2+A"]);
  assertEquals(engine.block(1, "A", 10, 2), "wanted");
  assertEquals(sent(engine.poll(2)), ["2-A"]);
  // Its answer to the want-have that was taken back may be the block as well.
  assertEquals([3, 4].map((now) => engine.block(2, "A", 10, now)), ["duplicate", "duplicate"]);
  assertEquals(engine.block(2, "A", 10, 5), "wrong");
});

Deno.test("WantEngine remembers so many wants taken back, and of more the latest", () => {
  const engine = engineOf({ a: [1] }, { maxWrongBlocks: 2 });
  for (let i = 0; i <= 4096; i++) {
    engine.want(`${i}`, cid(`${i}`));
    engine.poll(0);
    engine.cancel(`${i}`);
  }
  assertEquals(engine.block(1, "4096", 10, 1), "duplicate");
  assertEquals(engine.block(1, "1", 10, 1), "duplicate");
  assertEquals(engine.block(1, "0", 10, 1), "wrong");
});

Deno.test("WantEngine drops a peer at its third wrong block, and asks elsewhere when lies account for all it owes", () => {
  const engine = engineOf({ a: [1], b: [2] });
  for (const key of "AB") engine.want(key, cid(key));
  assertEquals(sent(engine.poll(0)), ["1+A", "1+B", "2?A", "2?B"]);
  engine.presence(2, "A", true, 1);
  engine.presence(2, "B", true, 1);
  assertEquals(engine.block(1, "X", 10, 1), "wrong");
  assertEquals(sent(engine.poll(1)), []);
  assertEquals(engine.block(1, undefined, 1e9, 1), "wrong");
  // Two wants, two lies.
  assertEquals(sent(engine.poll(1)), ["1-A", "1-B", "2+A", "2+B"]);
  assertEquals(engine.block(1, "Y", 10, 1), "wrong");
  assertEquals(sent(engine.poll(1)), ["drop a wrong-blocks"]);
});

Deno.test("WantEngine calls a stall just at the timeout, and not while bytes come", () => {
  const engine = engineOf({ a: [1] }, { stallTimeoutMs: 100 });
  engine.tick(1000);
  assertEquals(sent(engine.poll(1000)), []);
  engine.want("A", cid("A"));
  engine.poll(1000);
  engine.progress(1, 16 * 1024, 1050);
  engine.tick(1149);
  assertEquals(sent(engine.poll(1149)), []);
  // A trickle is no progress.
  engine.progress(1, 100, 1149);
  engine.tick(1150);
  assertEquals(sent(engine.poll(1150)), ["drop a stalled"]);
  engine.streamDown(1);
  engine.streamUp(2, "a", 1200);
  assertEquals(sent(engine.poll(1200)), ["2+A"]);
});

Deno.test("WantEngine asks again after a stream was lost: elsewhere, or of the same peer", () => {
  const engine = engineOf({ a: [1, 2], b: [3] });
  engine.want("A", cid("A"));
  assertEquals(sent(engine.poll(0)), ["1+A", "3?A"]);
  engine.presence(3, "A", true, 1);
  engine.streamDown(1);
  assertEquals(sent(engine.poll(1)), ["2+A"]);
  engine.streamDown(2);
  assertEquals(sent(engine.poll(1)), ["3+A"]);
  engine.streamDown(3);
  assertEquals(sent(engine.poll(1)), []);
  engine.streamUp(4, "b", 2);
  assertEquals(sent(engine.poll(2)), ["4+A"]);
});

Deno.test("WantEngine asks a peer that is back for what is still wanted, by priority and then in the order it was wanted", () => {
  const engine = engineOf({ a: [1], b: [] });
  for (const key of "ABCD") engine.want(key, cid(key), key === "C" ? 5 : 1);
  assertEquals(sent(engine.poll(0)), ["1+C", "1+A", "1+B", "1+D"]);
  engine.presence(1, "A", false, 1);
  engine.block(1, "B", 10, 1);
  engine.cancel("D");
  engine.streamDown(1);
  engine.streamUp(2, "b", 2);
  assertEquals(sent(engine.poll(2)), ["2+C", "2+A"]);
  engine.streamUp(3, "a", 3);
  assertEquals(sent(engine.poll(3)), ["3?C", "3?A"]);
});

Deno.test("WantEngine keeps nothing of wants that are over for a peer that cannot be reached", async () => {
  const engine = engineOf({ a: [1], b: [] });
  const asked = (key: string): WeakRef<Uint8Array> => {
    const bytes = cid(key);
    engine.want(key, bytes);
    engine.poll(0);
    return new WeakRef(bytes);
  };
  const got = asked("A");
  engine.block(1, "A", 10, 1);
  const takenBack = asked("B");
  engine.cancel("B");
  const wanted = asked("C");
  engine.poll(1);
  // What was made or dereferenced in this job is held until it ends.
  await new Promise((resolve) => setTimeout(resolve, 0));
  collectGarbage();
  assertEquals([got.deref(), takenBack.deref()], [undefined, undefined]);
  assertEquals(wanted.deref(), cid("C"));
  engine.streamUp(2, "b", 2);
  assertEquals(sent(engine.poll(2)), ["2?C"]);
});

Deno.test("WantEngine lets an idle peer take over what a silent one owes, and little of what a slow one does", () => {
  const engine = engineOf({ a: [1], b: [2] }, { stealAfterMs: 100, stallTimeoutMs: 1e6 });
  for (const key of "ABCD") engine.want(key, cid(key));
  assertEquals(sent(engine.poll(0)).slice(0, 4), ["1+A", "1+B", "1+C", "1+D"]);
  for (const key of "ABCD") engine.presence(2, key, true, 1);
  engine.progress(1, 1e6, 150);
  engine.tick(160);
  assertEquals(sent(engine.poll(160)), ["1-A", "2+A"]);
  engine.block(2, "A", 10, 170);
  engine.tick(180);
  assertEquals(sent(engine.poll(180)), []);
  engine.tick(251);
  assertEquals(sent(engine.poll(251)), ["1-B", "1-C", "1-D", "2+B", "2+C", "2+D"]);
  // The first owner wins after all: the block counts, and is asked for no more.
  assertEquals(engine.block(1, "B", 10, 260), "wanted");
  assertEquals(sent(engine.poll(260)), ["2-B"]);
  assertEquals(engine.block(2, "B", 10, 270), "duplicate");
});

Deno.test("WantEngine leaves no want with a peer that is only slow for longer than the stall timeout, if another is idle", () => {
  const engine = engineOf({ a: [1], b: [2] }, { stealAfterMs: 100, stallTimeoutMs: 1000 });
  for (const key of "ABCD") engine.want(key, cid(key));
  engine.poll(0);
  for (const key of "ABCD") engine.presence(2, key, true, 1);
  for (let now = 50; now < 1000; now += 50) {
    engine.progress(1, 16 * 1024, now);
    engine.tick(now);
    if (sent(engine.poll(now)).includes("2+A")) engine.block(2, "A", 10, now);
  }
  assertEquals(engine.pending, 3);
  engine.progress(1, 16 * 1024, 1000);
  engine.tick(1000);
  assertEquals(sent(engine.poll(1000)), ["1-B", "1-C", "1-D", "2+B", "2+C", "2+D"]);
});

Deno.test("WantEngine takes no more for progress than two of the longest messages without a right block", () => {
  const engine = engineOf({ a: [1, 2] }, { stallTimeoutMs: 100 });
  for (const key of "AB") engine.want(key, cid(key));
  engine.poll(0);
  const message = 4 * 1024 * 1024;
  for (let i = 0; i < 4; i++) engine.progress(1 + i % 2, message, 10);
  engine.block(1, "A", 10, 20);
  for (let i = 0; i < 4; i++) engine.progress(1 + i % 2, message, 30);
  engine.progress(1, message, 110);
  engine.tick(129);
  assertEquals(sent(engine.poll(129)), []);
  engine.tick(130);
  assertEquals(sent(engine.poll(130)), ["drop a stalled"]);
  engine.streamDown(1);
  engine.streamDown(2);
  engine.streamUp(3, "a", 200);
  engine.poll(200);
  engine.progress(3, message, 290);
  engine.tick(300);
  assertEquals(sent(engine.poll(300)), []);
});

Deno.test("WantEngine refuses options that are not positive, and two peers of one name", () => {
  for (
    const name of [
      "maxWantsPerPeer",
      "maxOutstandingBytes",
      "maxWrongBlocks",
      "stallTimeoutMs",
      "stealAfterMs",
    ]
  ) {
    assertThrows(() => new WantEngine({ [name]: 0 }), RangeError);
  }
  const engine = engineOf({ a: [] });
  assertThrows(() => engine.addPeer("a", 0), TypeError);
  assertThrows(() => engine.streamUp(1, "b", 0), TypeError);
});

/** A peer of the model: what it has, and what it does with a want. */
interface ModelPeer {
  has: Set<string>;
  manner: "good" | "lying" | "silent";
  streams: Set<number>;
  /** Asked and not answered yet. */
  owed: { stream: number; entry: WantlistEntry }[];
  /** Asked and taken back, or answered with `dont-have`: blocks that come all the same. */
  late: { stream: number; key: string }[];
}

Deno.test("WantEngine, whatever happens: nobody is asked past the limit, one peer at a time, and all ends well", () => {
  const manner = fc.constantFrom("good" as const, "good" as const, "lying" as const, "silent" as const);
  fc.assert(
    fc.property(
      fc.array(manner, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 60 }),
      fc.array(fc.nat(1 << 30), { minLength: 200, maxLength: 600 }),
      (manners, count, dice) => {
        const keys = Array.from({ length: count }, (_, i) => `k${i}`);
        const engine = new WantEngine({ maxWantsPerPeer: 20, stallTimeoutMs: 50, stealAfterMs: 10 });
        let now = 0;
        let nextStream = 1;
        const peers = new Map<string, ModelPeer>();
        const got = new Set<string>();
        const missing = new Set<string>();
        const open = (name: string): void => {
          const stream = nextStream++;
          peers.get(name)!.streams.add(stream);
          engine.streamUp(stream, name, now);
        };
        const close = (name: string, stream: number): void => {
          const peer = peers.get(name)!;
          peer.streams.delete(stream);
          peer.owed = peer.owed.filter((owed) => owed.stream !== stream);
          peer.late = peer.late.filter((late) => late.stream !== stream);
          engine.streamDown(stream);
        };
        for (const [i, manner] of manners.entries()) {
          const name = `p${i}`;
          // Each block is with every second peer; good peers have what is asked of them in the end.
          const has = new Set(keys.filter((_, at) => manner === "good" && (at + i) % 2 === 0));
          peers.set(name, { has, manner, streams: new Set(), owed: [], late: [] });
          engine.addPeer(name, now);
          open(name);
          open(name);
        }
        const obey = (): void => {
          const asked = new Map<string, string>();
          for (const command of engine.poll(now)) {
            if (command.type === "missing") missing.add(command.key);
            else if (command.type === "drop") {
              for (const stream of [...peers.get(command.peer)!.streams]) close(command.peer, stream);
              engine.peerGone(command.peer);
              peers.delete(command.peer);
            } else {
              for (const peer of peers.values()) {
                if (!peer.streams.has(command.stream)) continue;
                for (const entry of command.entries) {
                  const key = keyOf(entry);
                  if (entry.cancel) {
                    const isOwed = peer.owed.some(({ stream, entry }) =>
                      stream === command.stream && keyOf(entry) === key
                    );
                    if (isOwed) peer.late.push({ stream: command.stream, key });
                    peer.owed = peer.owed.filter(({ stream, entry }) =>
                      stream !== command.stream || keyOf(entry) !== key
                    );
                  } else peer.owed.push({ stream: command.stream, entry });
                }
              }
            }
          }
          for (const [name, peer] of peers) {
            assert(peer.owed.length <= 20, `${name} is asked ${peer.owed.length} things`);
            for (const { entry } of peer.owed) {
              if (entry.wantType === "have") continue;
              const key = keyOf(entry);
              assert(
                !got.has(key) && asked.get(key) === undefined,
                `${key} is asked of ${asked.get(key)} and ${name}`,
              );
              asked.set(key, name);
            }
          }
        };
        const step = (die: number): void => {
          now += die % 5;
          const names = [...peers.keys()];
          const name = names[die % Math.max(1, names.length)];
          const peer = name === undefined ? undefined : peers.get(name);
          if (peer === undefined || name === undefined) return;
          const late = (die >> 12) % 3 === 0 ? peer.late.pop() : undefined;
          if (late !== undefined) {
            if (engine.block(late.stream, late.key, 10, now) === "wanted") got.add(late.key);
            // Should it be asked on this very stream again, this was the answer, and the answer to that comes late.
            const isSame = ({ stream, entry }: ModelPeer["owed"][number]): boolean =>
              stream === late.stream && keyOf(entry) === late.key;
            if (peer.owed.some(isSame)) peer.late.push(late);
            peer.owed = peer.owed.filter((owed) => !isSame(owed));
          }
          const owed = peer.owed.splice((die >> 4) % Math.max(1, peer.owed.length), 1)[0];
          if ((die >> 8) % 40 === 0 && peer.streams.size > 0) {
            close(name, [...peer.streams][0]!);
            open(name);
          } else if (owed === undefined || peer.manner === "silent") {
            if (owed !== undefined) peer.owed.push(owed);
            engine.tick(now);
          } else {
            const key = keyOf(owed.entry);
            if (owed.entry.wantType === "have" && peer.has.has(key) && (die >> 14) % 4 === 0) {
              // Small blocks come at once.
              if (engine.block(owed.stream, key, 10, now) === "wanted") got.add(key);
            } else if (owed.entry.wantType === "have") {
              const has = peer.manner === "lying" || peer.has.has(key);
              if (!has) peer.late.push({ stream: owed.stream, key });
              engine.presence(owed.stream, key, has, now);
            } else if (peer.manner === "lying") engine.block(owed.stream, `lie${die}`, 10, now);
            else if (!peer.has.has(key)) {
              peer.late.push({ stream: owed.stream, key });
              engine.presence(owed.stream, key, false, now);
            } else if (engine.block(owed.stream, key, 10, now) === "wanted") got.add(key);
          }
          if (peer.manner === "good") assertEquals(engine.stats(name)?.wrongBlocks, 0);
          obey();
        };
        for (const [i, die] of dice.entries()) {
          if (i < keys.length) engine.want(keys[i]!, cid(keys[i]!), i % 3);
          const again = keys[(die >> 3) % keys.length]!;
          if (die % 7 === 0 && i > keys.length && !got.has(again) && !missing.has(again)) {
            engine.cancel(again);
            if (die % 2 === 0) obey();
            engine.want(again, cid(again));
          }
          step(die);
        }
        for (const key of keys) if (!got.has(key) && !missing.has(key)) engine.want(key, cid(key));
        // Then everyone who answers answers, and who does not is found out.
        for (let round = 0; round < 5000 && engine.pending > 0; round++) {
          obey();
          step(round * 7919);
          now += 3;
          engine.tick(now);
          obey();
        }
        obey();
        assertEquals(engine.pending, 0);
        for (const key of keys) {
          assert(got.has(key) !== missing.has(key), key);
          // What some good peer has from the start to the end is never missing.
          if (missing.has(key)) assert(![...peers.values()].some(({ has }) => has.has(key)), key);
        }
      },
    ),
    { numRuns: 60 },
  );
});
