import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { type Duplex, type HtxConnection, HtxError, type HtxStream } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { endsWithHandshake } from "./_test_dial.ts";
import { HtxClient, REDIAL_MS } from "./client.ts";
import { memoryDuplexPair } from "./memory.ts";
import { httpStreams } from "./serve.ts";
import { acceptDuplex, type serveStreams } from "./server.ts";
import { echo } from "./upstream/echo.ts";

const KEY = KeyPair.generate();

interface PoolOptions {
  maxConnections: number;
  maxLocalStreams: number;
  onStream?: Parameters<typeof serveStreams>[0];
  /** Takes the place of the nth dial where it returns something. */
  dial?: (nth: number) => Promise<Duplex> | undefined;
}

/** A client of a server in memory, and what it dialed. */
class Pool implements AsyncDisposable {
  readonly servers: HtxConnection[] = [];
  readonly client: HtxClient;
  /** When each dial began. */
  readonly dialed: number[] = [];

  constructor({ onStream = echo(), dial, ...limits }: PoolOptions) {
    this.client = new HtxClient(() => {
      this.dialed.push(performance.now());
      const other = dial?.(this.dials);
      if (other !== undefined) return other;
      const [here, there] = memoryDuplexPair();
      acceptDuplex(there, { keyPair: KEY, onStream }).then((one) => this.servers.push(one), () => {});
      return Promise.resolve(here);
    }, { remoteStatic: KEY.publicKey, postQuantum: "off", ...limits });
  }

  get dials(): number {
    return this.dialed.length;
  }

  /** The least time between two dials from the `nth` on. */
  leastPause(nth: number): number {
    return Math.min(...this.dialed.slice(nth).map((at, i) => at - this.dialed[nth - 1 + i]!));
  }

  /** Streams open on each connection. */
  get open(): number[] {
    return [...this.client.connections].map((connection) => connection.openStreams);
  }

  burst(count: number): Promise<HtxStream>[] {
    return Array.from({ length: count }, () => this.client.createBidirectionalStream());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
    await Promise.all(this.servers.map((server) => server.closed.catch(() => {})));
  }
}

/** Lets everything run that does not wait for a timer. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** How many of `promises` have resolved. */
async function count(promises: Promise<unknown>[]): Promise<number> {
  let done = 0;
  for (const promise of promises) promise.then(() => done++, () => {});
  await settled();
  return done;
}

Deno.test("a burst of streams that finds no connection gets as many as it needs, and all of their places", async () => {
  await using pool = new Pool({ maxConnections: 4, maxLocalStreams: 2 });
  await Promise.all(pool.burst(6));
  assertEquals([pool.dials, pool.open], [3, [2, 2, 2]]);
});

Deno.test("a burst of streams on connections that stand goes to the least busy at each moment, and dials nothing", async () => {
  await using pool = new Pool({ maxConnections: 3, maxLocalStreams: 3 });
  for (const stream of await Promise.all(pool.burst(9))) stream.reset("CANCELLED");
  const streams = await Promise.all(pool.burst(3));
  assertEquals(pool.open, [1, 1, 1]);
  await Promise.all(pool.burst(6));
  assertEquals([pool.dials, pool.open], [3, [3, 3, 3]]);
  for (const stream of streams) stream.reset("CANCELLED");
});

Deno.test("a burst of requests has all connections that it may have", async () => {
  const everyone = Promise.withResolvers<void>();
  let arrived = 0;
  await using pool = new Pool({
    maxConnections: 2,
    maxLocalStreams: 2,
    onStream: httpStreams(async () => {
      if (++arrived === 4) everyone.resolve();
      await everyone.promise;
      return new Response("ok");
    }),
  });
  const answers = await Promise.all(Array.from({ length: 4 }, () => pool.client.fetch("/")));
  assertEquals(pool.dials, 2);
  for (const answer of answers) assertEquals(await answer.text(), "ok");
});

Deno.test("past all places a burst waits, first come first, for the first place on whichever connection", async () => {
  await using pool = new Pool({ maxConnections: 2, maxLocalStreams: 1 });
  const [first, second, ...others] = pool.burst(5);
  await first;
  (await second!).reset("CANCELLED");
  assertEquals(await count(others), 1);
  (await others[0]!).reset("CANCELLED");
  assertEquals(await count(others), 2);
  (await first!).reset("CANCELLED");
  assertEquals(await count(others), 3);
  assertEquals([pool.dials, pool.open], [2, [1, 1]]);
});

Deno.test("with one connection those who wait get its places in the order in which they came", async () => {
  await using pool = new Pool({ maxConnections: 1, maxLocalStreams: 2 });
  const order: number[] = [];
  const streams = pool.burst(6).map(async (opening, at) => {
    const stream = await opening;
    order.push(at);
    stream.reset("CANCELLED");
  });
  await Promise.all(streams);
  assertEquals([order, pool.dials, pool.open], [[0, 1, 2, 3, 4, 5], 1, [0]]);
});

Deno.test("a newcomer does not overtake who waits, though a place is free as they ask", async () => {
  await using pool = new Pool({ maxConnections: 1, maxLocalStreams: 1 });
  const [first, second] = pool.burst(2);
  (await first!).reset("CANCELLED");
  const [third] = pool.burst(1);
  assertEquals(await count([third!]), 0);
  (await second!).reset("CANCELLED");
  await third;
});

Deno.test("streams that are opened on a connection itself come first there, and draw nobody else to it", async () => {
  await using pool = new Pool({ maxConnections: 2, maxLocalStreams: 1 });
  const [first, second] = await Promise.all(pool.burst(2));
  const [crowded] = pool.client.connections;
  const own = [crowded!.createBidirectionalStream(), crowded!.createBidirectionalStream()];
  const waiting = pool.burst(3);
  first!.reset("CANCELLED");
  waiting.push(...pool.burst(1)); // while the place is on its way to who waits there
  second!.reset("CANCELLED");
  assertEquals([await count(own), await count(waiting)], [1, 1]);
  (await Promise.race(waiting)).reset("CANCELLED");
  assertEquals([await count(own), await count(waiting)], [1, 2]);
});

Deno.test("a place that becomes free while a further dial hangs goes to who waits for either", async () => {
  const late = Promise.withResolvers<Duplex>();
  await using pool = new Pool({
    maxConnections: 2,
    maxLocalStreams: 1,
    dial: (nth) => nth === 1 ? undefined : late.promise,
  });
  const [first, ...others] = pool.burst(3);
  await first;
  assertEquals([await count(others), pool.dials], [0, 2]);
  (await first!).reset("CANCELLED");
  assertEquals([await count(others), pool.dials], [1, 2]);
  const [here, there] = memoryDuplexPair();
  acceptDuplex(there, { keyPair: KEY, onStream: echo() }).then((one) => pool.servers.push(one), () => {});
  late.resolve(here);
  await Promise.all(others);
  assertEquals([pool.dials, pool.open], [2, [1, 1]]);
});

Deno.test("a further dial that fails is one for the whole burst, which waits on what is there", async () => {
  await using pool = new Pool({
    maxConnections: 3,
    maxLocalStreams: 1,
    dial: (nth) => nth === 1 ? undefined : Promise.reject(new HtxError("CONNECT_FAILED", "no more")),
  });
  for (let round = 0; round < 10; round++) {
    await Promise.all(
      pool.burst(6).map(async (opening) => {
        const stream = await opening;
        await settled();
        stream.reset("CANCELLED");
      }),
    );
  }
  assert(pool.dials > 2 && pool.leastPause(2) >= REDIAL_MS, `${pool.dialed}`);
  assertEquals([pool.client.stats.failed, pool.open], [pool.dials - 1, [0]]);
});

Deno.test("who waits beside connections that stay full gets a further one as soon as that can be had", async () => {
  await using pool = new Pool({
    maxConnections: 2,
    maxLocalStreams: 1,
    dial: (nth) => nth === 2 ? Promise.reject(new HtxError("CONNECT_FAILED", "not yet")) : undefined,
  });
  await Promise.all(pool.burst(2));
  assertEquals([pool.dials, pool.open], [3, [1, 1]]);
});

Deno.test("further connections that end with their handshake are not dialed one after another", async () => {
  await using pool = new Pool({
    maxConnections: 2,
    maxLocalStreams: 1,
    dial: (nth) => nth === 1 ? undefined : Promise.resolve(endsWithHandshake(KEY)),
  });
  const [first, second] = pool.burst(2);
  const held = await first!;
  while (pool.dials < 4) await settled();
  held.reset("CANCELLED");
  await second;
  assert(pool.leastPause(2) >= REDIAL_MS, `${pool.dialed}`);
});

Deno.test("a dial that fails tells the whole burst when there is no other connection", async () => {
  await using pool = new Pool({
    maxConnections: 2,
    maxLocalStreams: 1,
    dial: () => Promise.reject(new HtxError("CONNECT_FAILED", "down")),
  });
  await Promise.all(pool.burst(3).map((opening) => assertRejects(() => opening, HtxError, "down")));
  assertEquals(pool.dials, 1);
});

Deno.test("who gives up waiting takes no place and holds nobody up", async () => {
  await using pool = new Pool({ maxConnections: 2, maxLocalStreams: 1 });
  const held = await Promise.all(pool.burst(2));
  for (let round = 0; round < 3; round++) {
    const controller = new AbortController();
    const { signal } = controller;
    const gone = pool.client.createBidirectionalStream({ signal });
    const next = pool.client.createBidirectionalStream();
    const why = new Error("enough");
    if (round === 0) controller.abort(why); // before there is a place
    held.shift()!.reset("CANCELLED");
    if (round === 1) controller.abort(why); // as there is one
    if (round < 2) assertEquals(await assertRejects(() => gone), why);
    else held.push(await gone);
    if (round === 2) held.shift()!.reset("CANCELLED");
    held.push(await next);
    assertEquals(pool.open, [1, 1]);
  }
  const controller = new AbortController();
  const gone = Array.from(
    { length: 3 },
    () =>
      assertRejects(() => pool.client.createBidirectionalStream({ signal: controller.signal }), Error, "all"),
  );
  controller.abort(new Error("all"));
  await Promise.all(gone);
  for (const stream of held) stream.reset("CANCELLED");
  await settled();
  assertEquals([pool.dials, pool.open], [2, [0, 0]]);
});

Deno.test("connections that all end at once leave who waits to one new one, and further ones where it is too small", async () => {
  await using pool = new Pool({ maxConnections: 2, maxLocalStreams: 1 });
  const [first, second, ...others] = pool.burst(4);
  await Promise.all([first, second]);
  for (const connection of pool.client.connections) connection.abort();
  await Promise.all(others);
  await settled();
  assertEquals([pool.dials, pool.open], [4, [1, 1]]);
});

Deno.test("who waits where each connection ends at once is told the second time", async () => {
  await using pool = new Pool({ maxConnections: 1, maxLocalStreams: 1 });
  const [first, second, third] = pool.burst(3);
  await first;
  for (const connection of pool.client.connections) connection.abort(new HtxError("TIMEOUT", "first end"));
  await second;
  const failed = assertRejects(() => third!, HtxError, "second end");
  for (const connection of pool.client.connections) connection.abort(new HtxError("TIMEOUT", "second end"));
  await failed;
  assertEquals(pool.dials, 2);
});

Deno.test("who waits goes on waiting as long as there is a connection, however many end", async () => {
  await using pool = new Pool({
    maxConnections: 3,
    maxLocalStreams: 1,
    dial: (nth) => nth <= 3 ? undefined : Promise.reject(new HtxError("CONNECT_FAILED", "no more")),
  });
  const held = await Promise.all(pool.burst(3));
  const [waiting] = pool.burst(1);
  const [one, other] = [...pool.client.connections];
  one!.abort();
  await settled();
  other!.abort();
  assertEquals(await count([waiting!]), 0);
  assert(pool.dials > 3 && pool.leastPause(4) >= REDIAL_MS, `${pool.dialed}`);
  held[2]!.reset("CANCELLED");
  await waiting;
});

Deno.test("connections that take no more streams do not count among those that a client may have", async () => {
  const slow = Promise.withResolvers<void>();
  await using pool = new Pool({
    maxConnections: 2,
    maxLocalStreams: 1,
    onStream: httpStreams(async (request) => {
      if (request.url.endsWith("/slow")) await slow.promise;
      return new Response("done");
    }),
  });
  const get = async (path: string) => await (await pool.client.fetch(path)).text();
  const waiting = [get("/slow"), get("/slow")];
  while (pool.servers.reduce((sum, server) => sum + server.stats.streams, 0) < 2) await settled();
  for (const connection of pool.client.connections) connection.drain();
  waiting.push(get("/slow"), get("/slow"));
  while (pool.servers.slice(2).reduce((sum, server) => sum + server.stats.streams, 0) < 2) await settled();
  assertEquals(pool.dials, 4);
  slow.resolve();
  assertEquals(await Promise.all(waiting), ["done", "done", "done", "done"]);
});

Deno.test("who waits on a connection that its server turns out to leave moves to a new one", async () => {
  const slow = Promise.withResolvers<void>();
  await using pool = new Pool({
    maxConnections: 1,
    maxLocalStreams: 2,
    onStream: httpStreams(async (request) => {
      if (request.url.endsWith("/slow")) await slow.promise;
      return new Response("done");
    }),
  });
  const get = async (path: string) => await (await pool.client.fetch(path)).text();
  const waiting = [get("/slow")];
  while (pool.servers[0]?.stats.streams !== 1) await settled();
  pool.servers[0]!.drain();
  const others = [get("/"), get("/"), get("/"), get("/")];
  assertEquals(await Promise.all(others), ["done", "done", "done", "done"]);
  assertEquals(pool.dials, 2);
  slow.resolve();
  assertEquals(await Promise.all(waiting), ["done"]);
});

Deno.test("connection() hands out connections that are equally busy in turn, and keeps no place for who opens nothing", async () => {
  await using pool = new Pool({ maxConnections: 3, maxLocalStreams: 2 });
  for (const stream of await Promise.all(pool.burst(6))) stream.reset("CANCELLED");
  const handed = await Promise.all(Array.from({ length: 6 }, () => pool.client.connection()));
  for (const connection of pool.client.connections) {
    assertEquals(handed.filter((one) => one === connection).length, 2);
  }
  await Promise.all(pool.burst(6));
  assertEquals([pool.dials, pool.open], [3, [2, 2, 2]]);
});

Deno.test("close() and drain() tell at once who waits for a place or for a dial", async () => {
  for (const end of ["close", "drain"] as const) {
    for (const maxConnections of [1, 2]) {
      await using pool = new Pool({
        maxConnections,
        maxLocalStreams: 1,
        dial: (nth) => nth === 1 ? undefined : new Promise(() => {}),
      });
      const [first, ...others] = pool.burst(3);
      const stream = await first!;
      await pool.client.connection(); // full, and whoever waits for the dial waits alone
      const ending = pool.client[end]();
      for (const one of others) assertEquals((await assertRejects(() => one, HtxError)).code, "CLOSED");
      assertEquals((await assertRejects(() => pool.client.connection(), HtxError)).code, "CLOSED");
      stream.reset("CANCELLED");
      await ending;
      assertEquals(pool.client.connections.size, 0);
    }
  }
});

Deno.test("whatever comes together, no connection has too many streams, all who wait are told, no place is lost", async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("open" as const), count: fc.integer({ min: 1, max: 6 }) }),
    fc.record({ kind: fc.constant("finish" as const), nth: fc.nat(20) }),
    fc.record({ kind: fc.constant("giveUp" as const), nth: fc.nat(20) }),
    fc.record({ kind: fc.constant("break" as const), nth: fc.nat(3) }),
    fc.record({ kind: fc.constant("ask" as const), count: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ kind: fc.constant("run" as const), turns: fc.nat(12) }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }),
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.boolean(), { maxLength: 6 }),
      fc.array(step, { maxLength: 30 }),
      async (maxConnections, maxLocalStreams, fails, steps) => {
        await using pool = new Pool({
          maxConnections,
          maxLocalStreams,
          dial: (nth) => fails[nth - 1] ? Promise.reject(new HtxError("CONNECT_FAILED", "down")) : undefined,
        });
        const streams: HtxStream[] = [];
        const waiting = new Set<AbortController>();
        const told: Promise<void>[] = [];
        for (const one of steps) {
          if (one.kind === "open") {
            for (let i = 0; i < one.count; i++) {
              const controller = new AbortController();
              waiting.add(controller);
              const opening = pool.client.createBidirectionalStream({ signal: controller.signal });
              told.push(
                opening.then((stream) => void streams.push(stream), () => {})
                  .finally(() => waiting.delete(controller)),
              );
            }
          } else if (one.kind === "finish") streams.splice(one.nth, 1)[0]?.reset("CANCELLED");
          else if (one.kind === "giveUp") [...waiting][one.nth]?.abort(new Error("enough"));
          else if (one.kind === "break") [...pool.client.connections][one.nth]?.abort();
          else if (one.kind === "ask") {
            for (let i = 0; i < one.count; i++) told.push(pool.client.connection().then(() => {}, () => {}));
          } else for (let turn = 0; turn < one.turns; turn++) await undefined;
          const live = [...pool.client.connections].filter((connection) => !connection.closing);
          assert(live.length <= maxConnections, `${live.length} connections`);
          for (const { openStreams } of live) {
            assert(openStreams <= maxLocalStreams, `${openStreams} streams`);
          }
        }
        for (let over = false; !over;) {
          const all = Promise.all(told).then(() => over = true);
          await Promise.race([all, settled()]);
          for (const stream of streams.splice(0)) stream.reset("CANCELLED");
        }
        for (const stream of streams.splice(0)) stream.reset("CANCELLED");
        await settled();
        assertEquals(pool.open, pool.open.map(() => 0));
      },
    ),
    { numRuns: 40 },
  );
});
