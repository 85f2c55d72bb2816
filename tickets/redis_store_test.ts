/** Everything here runs against a real redis-server on loopback, and is skipped with a message where there is none. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { VECTOR } from "./_testing.ts";
import { makeTicket } from "./client.ts";
import { decodeTicket, encodeTicket } from "./payload.ts";
import { RedisTicketStore, type RedisTicketStoreOptions } from "./redis_store.ts";
import { rateLimiterContract, replayStoreContract } from "./testing.ts";
import { type TicketResult, TicketVerifier } from "./verifier.ts";

const CHILD = new URL("testdata/redis_child.ts", import.meta.url).pathname;
const ROOT = new URL("..", import.meta.url).pathname;

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** A redis-server of the test's own, gone at the end of its scope. */
class Server implements AsyncDisposable {
  private constructor(
    readonly port: number,
    readonly process: Deno.ChildProcess,
    readonly log: Promise<void>,
  ) {}

  static async start(port: number = freePort(), options: string[] = []): Promise<Server | undefined> {
    const args = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", ...options];
    let process: Deno.ChildProcess;
    try {
      process = new Deno.Command("redis-server", { args, stdin: "null", stdout: "piped", stderr: "null" })
        .spawn();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      console.log("skipped: redis-server is not installed (Debian: apt-get install redis-server)");
      return undefined;
    }
    let ready = () => {};
    let failed = (_: Error) => {};
    const up = new Promise<void>((resolve, reject) => [ready, failed] = [resolve, reject]);
    const log = (async () => {
      let text = "";
      for await (const chunk of process.stdout.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        if (text.includes("Ready to accept connections")) ready();
      }
      failed(new Error(`redis-server ended: ${text}`));
    })();
    await up;
    return new Server(port, process, log);
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.process.kill("SIGKILL");
    } catch {
      // it has ended
    }
    await this.process.status;
    await this.log;
  }
}

function verifierOn(replay: RedisTicketStore, now: number = VECTOR.now): TicketVerifier {
  return new TicketVerifier({ keys: [VECTOR.key], now: () => now, limiter: { take: () => true }, replay });
}

const ticketNow = () => makeTicket(VECTOR.key, { now: () => VECTOR.now });
const reasonOf = (result: TicketResult) => result.ok ? "ok" : result.reason;

Deno.test("e-09, e-10: RedisTicketStore keeps the contracts of both stores", async (t) => {
  await using server = await Server.start();
  if (server === undefined) return;
  const open = (prefix: string, options: RedisTicketStoreOptions = {}) =>
    RedisTicketStore.connect(server.url, { prefix, ...options });
  for (const { name, run } of replayStoreContract(open, { shared: true, persistent: true })) {
    await t.step(name, run);
  }
  let space = 0;
  const limiter = () => open(`rates ${space++}`, { bucketClock: "caller" });
  for (const { name, run } of rateLimiterContract(limiter)) await t.step(name, run);
  for (
    const limits of [{ perMinute: 7, burst: 3 }, { perMinute: 9, burst: 1 }, { perMinute: 17, burst: 40 }]
  ) {
    const slow = () => open(`rates ${space++}`, { bucketClock: "caller", ...limits });
    for (const { name, run } of rateLimiterContract(slow, limits)) {
      await t.step(`${limits.perMinute} a minute: ${name}`, run);
    }
  }
});

Deno.test("one EVALSHA for a ticket does replay and buckets together, as MONITOR shows", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  await using store = await RedisTicketStore.connect(server.url);
  const verifier = verifierOn(store);
  await verifier.verify(ticketNow(), { address: "192.0.2.1" }); // loads the script

  using monitor = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  await monitor.write(new TextEncoder().encode("MONITOR\r\n"));
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(65_536);
  let log = "";
  const readUntil = async (text: string) => {
    while (!log.includes(text)) {
      const count = await monitor.read(buffer);
      assert(count !== null);
      log += decoder.decode(buffer.subarray(0, count));
    }
  };
  await readUntil("+OK\r\n");

  const good = ticketNow();
  const shown = [
    good,
    good,
    "junk",
    encodeTicket({ ...decodeTicket(good), accessTicket: new Uint8Array(32) }),
  ];
  const reasons = [];
  for (const text of shown) reasons.push(reasonOf(await verifier.verify(text, { address: "192.0.2.1" })));
  assertEquals(reasons, ["ok", "replayed", "malformed", "proof-failed"]);
  await store.touch(VECTOR.now, "the end").then(() => readUntil("the end"));

  const lines = log.split("\r\n").filter((line) => line.startsWith("+1"));
  const commands = lines.filter((line) => !/ \[\d+ lua\] /.test(line)).map((line) =>
    /\] "(\w+)"/.exec(line)?.[1]
  );
  assertEquals(commands.map((command) => command?.toLowerCase()), [
    "evalsha",
    "evalsha",
    "evalsha",
    "evalsha",
    "evalsha", // "the end"
  ]);
  // the good ticket's one call reads and writes its bucket, and records it
  const inside = lines.filter((line) => line.includes(" lua] ")).map((line) =>
    /\] "(\w+)"(?: "([^"]*))?/.exec(line)?.slice(1)
  );
  assertEquals(inside.slice(0, 4).map((parts) => parts?.[0]), ["TIME", "GET", "SET", "SET"]);
  assertEquals(inside[1]?.[1], "{htx-tickets}:rate:20/40:4:c00002");
  assert(inside[3]?.[1]?.startsWith(`{htx-tickets}:spent:${VECTOR.hour}:`));
  // neither the ticket nor its key is told to Redis
  const { clientPub } = decodeTicket(good);
  assert(!log.includes(good.slice(4, 40)) && !log.toLowerCase().includes(clientPub.toHex()));
});

Deno.test("e-09: two processes on one Redis accept a ticket once between them, with network permission alone", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  const decoder = new TextDecoder();
  const children = [1, 2].map(() =>
    new Deno.Command("deno", {
      args: [
        "run",
        "--no-prompt",
        "--quiet",
        `--allow-net=127.0.0.1:${server.port}`,
        CHILD,
        server.url,
        "two",
      ],
      cwd: ROOT,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn()
  );
  const counts = await Promise.all(children.map(async (child) => {
    const output = child.stdout.getReader();
    const first = await output.read();
    assertEquals(decoder.decode(first.value), "ready\n");
    output.releaseLock();
    return child;
  })).then((ready) =>
    Promise.all(ready.map(async (child) => {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("go\n"));
      await writer.close();
      const { success, stdout, stderr } = await child.output();
      assert(success, decoder.decode(stderr));
      assertEquals(decoder.decode(stderr), "");
      return JSON.parse(decoder.decode(stdout)) as Record<string, number>;
    }))
  );
  assertEquals(counts.reduce((sum, count) => sum + (count.ok ?? 0), 0), 1, JSON.stringify(counts));
  assertEquals(counts.reduce((sum, count) => sum + (count.replayed ?? 0), 0), 199, JSON.stringify(counts));
});

Deno.test("e-17: buckets are shared between gateways, and tickets that fail their proof charge them too", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  const prefix = "{shared}";
  await using one = await RedisTicketStore.connect(server.url, { prefix });
  await using two = await RedisTicketStore.connect(server.url, { prefix });
  const [first, second] = [verifierOn(one), verifierOn(two)];
  const good = ticketNow();
  const forged = encodeTicket({ ...decodeTicket(good), accessTicket: new Uint8Array(32) });
  for (let i = 0; i < 20; i++) {
    assertEquals(reasonOf(await first.verify(forged, { address: "192.0.2.1" })), "proof-failed");
    assertEquals(reasonOf(await second.verify(ticketNow(), { address: "192.0.2.2" })), "ok");
  }
  const spent = ticketNow();
  assertEquals(reasonOf(await second.verify(spent, { address: "192.0.2.3" })), "rate-limited");
  assertEquals(reasonOf(await first.verify(spent, { address: "192.0.2.3" })), "rate-limited");
  assertEquals(reasonOf(await first.verify(spent, { address: "192.0.3.1" })), "ok"); // it was not recorded
  assertEquals(reasonOf(await second.verify(spent, { address: "192.0.4.1" })), "replayed");
});

Deno.test("a Redis whose clock was set back gives no tokens and locks nobody out", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  const limits = { perMinute: 6_000, burst: 2 };
  await using store = await RedisTicketStore.connect(server.url, { prefix: "p", ...limits });
  using redis = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  const ahead = Date.now() + 3_600_000; // a bucket drawn on an hour from now
  await redis.write(new TextEncoder().encode(`SET p:rate:6000/2:b ${ahead}\r\n`));
  await redis.read(new Uint8Array(64));
  assertEquals(await store.take("b", 0), false);
  const deadline = Date.now() + 5_000;
  let taken = false;
  while (!taken && Date.now() < deadline) taken = await store.take("b", 0); // 10 ms
  assert(taken);
});

Deno.test("setLimits() counts from the next ticket on; what was spent stays spent", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  await using store = await RedisTicketStore.connect(server.url, {
    bucketClock: "caller",
    perMinute: 1,
    burst: 1,
  });
  const take = () => store.take("4:c00002", VECTOR.now);
  const claim = { id: "A".repeat(22), hour: VECTOR.hour, now: VECTOR.now };
  assertEquals(await store.checkAndRecord(claim), "fresh");
  assertEquals([await take(), await take()], [true, false]);
  store.setLimits({ perMinute: 1, burst: 2 });
  assertEquals([await take(), await take(), await take()], [true, true, false]);
  assertThrows(() => store.setLimits({ burst: 0 }), RangeError);
  assertEquals(await take(), false);
  assertEquals(await store.checkAndRecord(claim), "replayed");
});

Deno.test("as limiter too, Redis is asked before the key exchange and charges once", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  await using store = await RedisTicketStore.connect(server.url, { burst: 3 });
  const steps: string[] = [];
  const verifier = new TicketVerifier({
    keys: [VECTOR.key],
    now: () => VECTOR.now,
    replay: store,
    limiter: store,
    equalize: "off",
    onStep: (step) => void steps.push(step),
  });
  for (let i = 0; i < 3; i++) assertEquals(reasonOf(await verifier.verify(ticketNow())), "ok");
  steps.length = 0;
  assertEquals(reasonOf(await verifier.verify(ticketNow())), "rate-limited");
  assertEquals(steps, []);
});

Deno.test("a Redis that goes away closes the door, and opens it again when it is back, untouched", async () => {
  const port = freePort();
  const errors: HtxError[] = [];
  let server = await Server.start(port);
  if (server === undefined) return;
  await using store = await RedisTicketStore.connect(server.url, {
    onError: (error) => {
      errors.push(error);
      throw new Error("a log that fails"); // and takes nobody with it
    },
  });
  const verifier = verifierOn(store);
  const spent = ticketNow();
  try {
    assertEquals(reasonOf(await verifier.verify(spent)), "ok");
    await server[Symbol.asyncDispose]();
    for (let i = 0; i < 20; i++) assertEquals(reasonOf(await verifier.verify(ticketNow())), "store-failed");

    server = await Server.start(port);
    assert(server !== undefined);
    let reason = "store-failed";
    const deadline = Date.now() + 10_000;
    while (reason === "store-failed" && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20)); // reconnecting takes a moment; there is no event for it
      reason = reasonOf(await verifier.verify(ticketNow()));
    }
    assertEquals(reason, "ok");
    // e-10: Redis came back empty, the gateway still knows
    assertEquals(reasonOf(await verifier.verify(spent)), "replayed");
    assert(errors.some((error) => error.message.includes("forgot")));
    for (const error of errors) assert(error instanceof HtxError && error.code === "STORE_FAILED");
    assert(errors.length < 200, `${errors.length} errors`);
  } finally {
    await store[Symbol.asyncDispose](); // before the server goes: see the next test
    await server?.[Symbol.asyncDispose]();
  }
});

Deno.test("a Redis that cannot be reached is an error, or a closed door that opens later", async () => {
  const port = freePort();
  const url = `redis://user:secret@127.0.0.1:${port}`;
  const error = await assertRejects(() => RedisTicketStore.connect(url, { connectTimeoutMs: 500 }), HtxError);
  assertEquals(error.code, "STORE_FAILED");
  assert(!`${error.message} ${error.cause}`.includes("secret"));
  await assertRejects(() => RedisTicketStore.connect("http://127.0.0.1"), TypeError);
  await assertRejects(() => RedisTicketStore.connect("redis://"), TypeError);
  await assertRejects(() => RedisTicketStore.connect(url, { burst: 0 }), RangeError);
  for (const ms of [0, NaN, Infinity, 2 ** 31]) {
    await assertRejects(() => RedisTicketStore.connect(url, { connectTimeoutMs: ms }), RangeError);
    await assertRejects(() => RedisTicketStore.connect(url, { commandTimeoutMs: ms }), RangeError);
  }

  await using store = await RedisTicketStore.connect(`redis://127.0.0.1:${port}`, { required: false });
  const verifier = verifierOn(store);
  assertEquals(reasonOf(await verifier.verify(ticketNow())), "store-failed");
  await using server = await Server.start(port);
  if (server === undefined) return;
  let reason = "store-failed";
  const deadline = Date.now() + 10_000;
  while (reason === "store-failed" && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    reason = reasonOf(await verifier.verify(ticketNow()));
  }
  assertEquals(reason, "ok");
  // Before the server goes: a client that lost its server waits to dial again, and that timer cannot be cleared.
  await store[Symbol.asyncDispose]();
});

Deno.test("e-39: no error of RedisTicketStore holds the password, or the address", async () => {
  const secrets = ["user9", "s3cret", "127.0.0.1"];
  const told: unknown[] = [];
  const refused = async (url: string) => {
    const onError = (error: HtxError) => told.push(error);
    const error = await assertRejects(() => RedisTicketStore.connect(url, { onError }), HtxError);
    assertEquals(error.code, "STORE_FAILED");
    told.push(error);
    return error;
  };
  const port = freePort();
  const unreachable = await refused(`redis://user9:s3cret@127.0.0.1:${port}`);
  assert(unreachable.cause instanceof Error && unreachable.cause.message === "ECONNREFUSED");
  // Such a Redis answers "unknown command 'AUTH', with args beginning with: 's3cret'".
  await using server = await Server.start(port, ["--rename-command", "AUTH", ""]);
  if (server === undefined) return;
  for (const name of ["", "user9"]) {
    const error = await refused(`redis://${name}:s3cret@127.0.0.1:${port}`);
    assert(error.cause instanceof Error && error.cause.message === "ERR");
  }
  {
    const onError = (error: HtxError) => told.push(error);
    const url = `redis://user9:s3cret@127.0.0.1:${port}`;
    const before = told.length;
    await using store = await RedisTicketStore.connect(url, { required: false, onError });
    told.push(await assertRejects(() => store.touch(VECTOR.now), HtxError));
    assert(told.length > before);
  }
  const shown = Deno.inspect(told, {
    depth: 20,
    showHidden: true,
    iterableLimit: 1000,
    strAbbreviateSize: 1e6,
  });
  for (const secret of secrets) assert(!shown.includes(secret), secret);
});

Deno.test("a URL with a password that is no percent-encoding is a TypeError", async () => {
  for (const url of ["redis://:%zz@127.0.0.1", "redis://u%:p@127.0.0.1", "redis://127.0.0.1/none"]) {
    await assertRejects(() => RedisTicketStore.connect(url), TypeError);
  }
});

Deno.test("a server that accepts and never answers is given up in time", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connections: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const connection of listener) connections.push(connection);
  })();
  const url = `redis://127.0.0.1:${listener.addr.port}`;
  const error = await assertRejects(() => RedisTicketStore.connect(url, { connectTimeoutMs: 200 }), HtxError);
  assertEquals(error.code, "STORE_FAILED");
  {
    await using store = await RedisTicketStore.connect(url, { required: false, commandTimeoutMs: 100 });
    const failure = await assertRejects(() => store.touch(VECTOR.now), HtxError);
    assertEquals(failure.code, "STORE_FAILED");
  }
  listener.close();
  await accepting;
  for (const connection of connections) connection.close();
});

Deno.test("a Redis that hangs gathers no more than so many commands, and is used again when it goes on", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  await using store = await RedisTicketStore.connect(server.url, {
    commandTimeoutMs: 50,
    perMinute: 1e6,
    burst: 1e6,
  });
  assert(await store.take("b", 0));
  server.process.kill("SIGSTOP");
  const asked = await Promise.allSettled(Array.from({ length: 10_000 }, () => store.take("b", 0)));
  assert(asked.every(({ status }) => status === "rejected"));
  const error = await assertRejects(() => store.take("b", 0), HtxError); // told at once, not after 50 ms
  assert(error.code === "STORE_FAILED" && error.cause instanceof Error);
  server.process.kill("SIGCONT");
  const deadline = Date.now() + 10_000;
  let answer = false;
  while (!answer && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20)); // what waited is answered first; there is no event for it
    answer = await store.take("b", 0).catch(() => false);
  }
  assert(answer);
});

Deno.test("RedisTicketStore.close() waits for a close under way", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  const store = await RedisTicketStore.connect(server.url);
  const order: number[] = [];
  await Promise.all([1, 2].map((n) => store.close().then(() => order.push(n))));
  assertEquals(order, [1, 2]);
});

Deno.test("e-10: a Redis that makes room by forgetting is refused", async () => {
  const options = ["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"];
  await using server = await Server.start(freePort(), options);
  if (server === undefined) return;
  const error = await assertRejects(() => RedisTicketStore.connect(server.url), HtxError);
  assertEquals(error.code, "STORE_FAILED");
  assert(error.message.includes("noeviction"));

  // Also where it need not be there at first, until it was set right.
  await using store = await RedisTicketStore.connect(server.url, { required: false });
  const verifier = verifierOn(store);
  for (let i = 0; i < 3; i++) assertEquals(reasonOf(await verifier.verify(ticketNow())), "store-failed");
  using redis = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  await redis.write(new TextEncoder().encode("CONFIG SET maxmemory-policy noeviction\r\n"));
  await redis.read(new Uint8Array(64));
  assertEquals(reasonOf(await verifier.verify(ticketNow())), "ok");
  await store[Symbol.asyncDispose]();
});

Deno.test("e-10: a Redis that came back as one that forgets is refused", async () => {
  const port = freePort();
  let server = await Server.start(port);
  if (server === undefined) return;
  const reasons: unknown[] = [];
  await using store = await RedisTicketStore.connect(server.url);
  const verifier = new TicketVerifier({
    keys: [VECTOR.key],
    now: () => VECTOR.now,
    replay: store,
    onStoreError: (error) => reasons.push(error),
  });
  try {
    assertEquals(reasonOf(await verifier.verify(ticketNow())), "ok");
    await server[Symbol.asyncDispose]();
    server = await Server.start(port, ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    const deadline = Date.now() + 10_000;
    const isRefused = () =>
      reasons.some((error) => error instanceof Error && error.message.includes("noeviction"));
    while (!isRefused() && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20)); // reconnecting takes a moment; there is no event for it
      assertEquals(reasonOf(await verifier.verify(ticketNow())), "store-failed");
    }
    assert(isRefused());
  } finally {
    await store[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  }
});

Deno.test("what Redis holds goes by itself, not before it may", async () => {
  await using server = await Server.start();
  if (server === undefined) return;
  await using store = await RedisTicketStore.connect(server.url, { prefix: "p" });
  const hour = Math.floor(Date.now() / 3_600_000);
  await store.checkAndRecord({ id: "a", hour, now: Date.now(), bucket: "b" });
  using redis = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  const ttl = async (key: string) => {
    await redis.write(new TextEncoder().encode(`PTTL ${key}\r\n`));
    const buffer = new Uint8Array(64);
    const count = await redis.read(buffer);
    return Number(new TextDecoder().decode(buffer.subarray(1, count!)));
  };
  const spent = await ttl(`p:spent:${hour}:a`);
  assert(Date.now() + spent >= (hour + 4) * 3_600_000, `${spent}`);
  assert(spent <= 6 * 3_600_000, `${spent}`);
  const bucket = await ttl("p:rate:20/40:b");
  assert(bucket > 3_000 && bucket <= 63_001, `${bucket}`);
});
