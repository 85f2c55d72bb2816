import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Duplex, HtxError } from "../core/mod.ts";
import { isPublicAddress } from "./_public_address.ts";
import { makeTestCertificate } from "./_test_certificate.ts";
import { connect } from "./client.ts";
import {
  CoverLimiter,
  dialWithFallback,
  type FallbackAttempt,
  fallbackDialer,
  type FallbackOptions,
  type FallbackPlan,
  planFallback,
} from "./fallback.ts";
import { memoryDuplexPair } from "./memory.ts";
import { dialQuic, quicSupported } from "./quic.ts";
import { serveStreams } from "./server.ts";
import { dialTls, listenTls } from "./tls.ts";
import { echo } from "./upstream/mod.ts";

const COVERS = ["https://a.example", "https://b.example", "c.example:8443"];

/** Time that moves when told to; timers fire in their order. */
class TestClock {
  time = 0;
  readonly timers: Set<{ at: number; callback: () => void }> = new Set();

  now(): number {
    return this.time;
  }

  setTimer(delay: number, callback: () => void): () => void {
    const timer = { at: this.time + delay, callback };
    this.timers.add(timer);
    return () => this.timers.delete(timer);
  }

  /** Moves on, timer by timer, letting promises settle in between. */
  async advance(until: number): Promise<void> {
    for (;;) {
      for (let i = 0; i < 20; i++) await Promise.resolve();
      const next = [...this.timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.timers.delete(next);
      this.time = next.at;
      next.callback();
    }
    this.time = until;
  }
}

/** A fallback with everything observed: nothing touches a network. */
function observed(changes: Partial<FallbackOptions> = {}) {
  const clock = new TestClock();
  const dialled: [string, number][] = [];
  const coversOpen = new Map<string, { address: string; from: number; to?: number }>();
  const duplex = memoryDuplexPair()[0];
  let plan: FallbackPlan | undefined;
  const options: FallbackOptions = {
    primary: () => {
      dialled.push(["primary", clock.time]);
      return Promise.reject(new HtxError("CONNECT_FAILED", "no UDP here"));
    },
    fallback: () => {
      dialled.push(["fallback", clock.time]);
      return Promise.resolve(duplex);
    },
    covers: COVERS,
    clock,
    limiter: new CoverLimiter(),
    resolve: () => Promise.resolve(["93.184.216.34"]),
    dialCover: (origin, { address }) => {
      const cover: { address: string; from: number; to?: number } = { address, from: clock.time };
      coversOpen.set(origin.origin, cover);
      return Promise.resolve({ close: () => cover.to = clock.time });
    },
    onPlan: (drawn) => plan = drawn,
    ...changes,
  };
  return { clock, dialled, covers: coversOpen, duplex, options, plan: () => plan! };
}

Deno.test("planFallback() draws every value from its range, both ends included", () => {
  const low = planFallback({ covers: COVERS, random: (length) => new Uint8Array(length) });
  assertEquals(low, {
    backoffMs: 200,
    covers: [
      { origin: "https://a.example", offsetMs: 0, lifeMs: 3000 },
      { origin: "https://b.example", offsetMs: 0, lifeMs: 3000 },
    ],
    htxDelayMs: 100,
    htxOffsetMs: 100,
  });
  const word = (value: number) => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value);
    return bytes;
  };
  const words = [1000, 2, 1000, 12_000, 1, 0, 0, 600]; // the last value of each range
  const high = planFallback({ covers: COVERS, random: () => word(words.shift()!) });
  assertEquals(high, {
    backoffMs: 1200,
    covers: [
      { origin: "https://c.example:8443", offsetMs: 1000, lifeMs: 15_000 },
      { origin: "https://b.example", offsetMs: 0, lifeMs: 3000 },
    ],
    htxDelayMs: 700,
    htxOffsetMs: 1700,
  });
  const seen = { backoff: new Set<number>(), delay: new Set<number>(), origins: new Set<string>() };
  for (let i = 0; i < 2000; i++) {
    const { backoffMs, covers, htxDelayMs, htxOffsetMs } = planFallback({ covers: COVERS });
    assert(backoffMs >= 200 && backoffMs <= 1200 && htxDelayMs >= 100 && htxDelayMs <= 700);
    assert(covers.length === 2 && covers[0]!.origin !== covers[1]!.origin);
    for (const { offsetMs, lifeMs, origin } of covers) {
      assert(offsetMs >= 0 && offsetMs <= 1000 && lifeMs >= 3000 && lifeMs <= 15_000);
      seen.origins.add(origin);
    }
    assertEquals(htxOffsetMs, htxDelayMs + Math.max(...covers.map(({ offsetMs }) => offsetMs)));
    seen.backoff.add(backoffMs);
    seen.delay.add(htxDelayMs);
  }
  assert(seen.backoff.size > 500 && seen.delay.size > 300);
  assertEquals(seen.origins.size, 3);
});

Deno.test("planFallback() refuses covers that are no https origins, and a single one", () => {
  for (
    const bad of [
      "http://a.example",
      "https://a.example/x",
      "https://u@a.example",
      "https://a.example?q",
      "//",
      "",
    ]
  ) {
    assertThrows(() => planFallback({ covers: [bad, "https://b.example"] }), TypeError);
  }
  assertThrows(
    () => planFallback({ covers: ["https://a.example", "a.example:443"] }),
    TypeError,
    "at least two",
  );
  assertThrows(() => planFallback({ coverCount: 1 }), RangeError);
  assertEquals(planFallback().covers, []);
});

Deno.test("dialWithFallback() keeps to its plan: back-off, covers at their offsets, HTX behind them", async () => {
  const { clock, dialled, covers, duplex, options, plan } = observed();
  const dialling = dialWithFallback(options);
  await clock.advance(4000);
  const result = await dialling;
  assertEquals([result.duplex, result.via], [duplex, "fallback"]);
  const { backoffMs, htxOffsetMs } = plan();
  assertEquals(result.plan, plan());
  assertEquals(dialled, [["primary", 0], ["fallback", backoffMs + htxOffsetMs]]);
  await clock.advance(30_000);
  assertEquals(covers.size, 2);
  for (const { origin, offsetMs, lifeMs } of plan().covers) {
    const { address, from, to } = covers.get(origin)!;
    assertEquals([address, from, to], ["93.184.216.34", backoffMs + offsetMs, backoffMs + offsetMs + lifeMs]);
  }
  assertEquals(result.attempts.map(({ kind, outcome }) => `${kind} ${outcome}`), [
    "primary failed",
    "cover connected",
    "cover connected",
    "fallback connected",
  ]);
  const [primary] = result.attempts;
  assert(primary!.error instanceof HtxError && primary!.error.message.includes("no UDP here"));
  assertEquals(clock.timers.size, 0);
});

Deno.test("dialWithFallback() draws nothing where the primary connects", async () => {
  const { dialled, covers, duplex, options, plan } = observed({ primary: () => Promise.resolve(duplexOf()) });
  const kept = duplexOf();
  const result = await dialWithFallback({ ...options, primary: () => Promise.resolve(kept) });
  assertEquals([result.duplex, result.via, result.plan], [kept, "primary", undefined]);
  assertEquals([dialled.length, covers.size, plan()], [0, 0, undefined as unknown as FallbackPlan]);
  assert(duplex !== kept);
});

function duplexOf(): Duplex {
  return memoryDuplexPair()[0];
}

Deno.test("e-42: covers are off unless the operator names origins", async () => {
  const { clock, covers, dialled, options, plan } = observed({ covers: undefined });
  const dialling = dialWithFallback(options);
  await clock.advance(4000);
  await dialling;
  assertEquals(covers.size, 0);
  assertEquals(dialled[1], ["fallback", plan().backoffMs + plan().htxDelayMs]);
});

Deno.test("e-42: at most two covers in any minute, however often it falls back; HTX goes on all the same", async () => {
  const limiter = new CoverLimiter();
  const { clock, covers, options } = observed({ limiter });
  const outcomes: string[][] = [];
  const starts: number[] = [];
  for (let i = 0; i < 30; i++) {
    covers.clear();
    const dialling = dialWithFallback(options);
    await clock.advance(clock.time + 5000);
    const { attempts } = await dialling;
    for (const cover of covers.values()) starts.push(cover.from);
    outcomes.push(attempts.filter(({ kind }) => kind === "cover").map(({ outcome }) => outcome));
  }
  assertEquals(outcomes[0], ["connected", "connected"]);
  assertEquals(outcomes[1], ["refused", "refused"]);
  assertEquals(starts.length, 6); // 150 s: three minutes begun
  const takes = new CoverLimiter();
  assertEquals([takes.take(2, 0), takes.take(1, 59_999), takes.take(2, 60_000)], [true, false, true]);
  assertEquals([new CoverLimiter().take(3, 0), new CoverLimiter(3).take(3, 0)], [false, true]);
});

Deno.test("e-42: covers that begin late count for a minute from when they begin", async () => {
  const begun: number[] = [];
  const limiter = new CoverLimiter();
  const word = (value: number) => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value);
    return bytes;
  };
  const { clock, options } = observed({
    limiter,
    dialCover: () => {
      begun.push(clock.time);
      return Promise.resolve({ close: () => {} });
    },
  });
  const fallBack = async (at: number, drawn: number) => {
    await clock.advance(at);
    const dialling = dialWithFallback({ ...options, random: () => word(drawn) });
    await clock.advance(at + 20_000);
    await dialling;
  };
  await fallBack(0, 1000); // a back-off of 1200 ms, and covers 1000 ms behind it
  await fallBack(61_999, 0); // of 200 ms, and covers at once: 59.999 s after the first ones
  assertEquals(begun, [2200, 2200]);
  await fallBack(82_000, 0);
  assertEquals(begun, [2200, 2200, 82_200, 82_200]);
  const takes = new CoverLimiter();
  assertEquals([takes.take(2, 0, 1000), takes.take(1, 60_999), takes.take(2, 61_000)], [true, false, true]);
});

Deno.test("a cover that fails to end takes nobody with it", async () => {
  let closed = 0;
  const { clock, options } = observed({
    dialCover: () =>
      Promise.resolve({
        close: () => {
          closed++;
          throw new Error("it does not end");
        },
      }),
  });
  const dialling = dialWithFallback(options);
  await clock.advance(20_000);
  const { attempts } = await dialling;
  assertEquals(closed, 2);
  assertEquals(attempts.map(({ outcome }) => outcome), ["failed", "connected", "connected", "connected"]);
});

Deno.test("e-42: the limiter of the process is one, whoever asks", async () => {
  const { clock, covers, options } = observed({ limiter: undefined });
  clock.time = 10 * 60_000;
  for (let i = 0; i < 3; i++) {
    const dialling = dialWithFallback({ ...options });
    await clock.advance(clock.time + 5000);
    await dialling;
  }
  assertEquals(covers.size, 2);
});

Deno.test("e-42: covers never go to private addresses, and dial the address that was judged", async () => {
  const cases: [string[], string[]][] = [
    [["https://127.0.0.1", "https://localhost"], ["127.0.0.1"]],
    [["https://0x7f.1", "https://[::1]:8443"], []],
    [["https://2130706433", "https://[::ffff:10.0.0.1]"], []],
    [["https://a.example", "https://b.example"], ["10.1.2.3"]],
    [["https://a.example", "https://b.example"], ["93.184.216.34", "192.168.0.1"]],
    [["https://a.example", "https://b.example"], []],
  ];
  for (const [origins, addresses] of cases) {
    const { clock, covers, options } = observed({
      covers: origins,
      resolve: () => Promise.resolve(addresses),
    });
    const dialling = dialWithFallback(options);
    await clock.advance(5000);
    const { attempts } = await dialling;
    assertEquals([origins, covers.size], [origins, 0]);
    for (const { kind, outcome } of attempts) if (kind === "cover") assert(outcome !== "connected");
    await clock.advance(30_000);
    assertEquals(clock.timers.size, 0);
  }
});

Deno.test("isPublicAddress() knows the special-purpose blocks by their edges", () => {
  const yes =
    "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 172.15.255.255" +
    " 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 2606:4700::1111 2001:200:: 2a00::1 3ffe::1";
  const no =
    "0.0.0.0 10.0.0.0 10.255.255.255 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1" +
    " 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.9 224.0.0.1 240.0.0.1 255.255.255.255" +
    " :: ::1 ::ffff:1.1.1.1 64:ff9b::101:101 100::1 2001::1 2001:db8::1 2002:101:101::1 3fff::1 fc00::1 fd12::1 fe80::1 ff02::1" +
    " localhost example.com 1.1.1 01.1.1.1 1.1.1.256 1.1.1.1.1 fe80::1%eth0";
  for (const address of yes.split(" ")) assertEquals([address, isPublicAddress(address)], [address, true]);
  for (const address of [...no.split(" "), ""]) {
    assertEquals([address, isPublicAddress(address)], [address, false]);
  }
});

Deno.test("dialWithFallback() tells both failures, and gives its signal's reason at any time", async () => {
  const failing = observed({
    fallback: () => Promise.reject(new HtxError("CONNECT_FAILED", "no TCP either")),
  });
  const both = assertRejects(() => dialWithFallback(failing.options), HtxError);
  await failing.clock.advance(5000);
  const error = await both;
  assertEquals(error.code, "CONNECT_FAILED");
  assert(error.cause instanceof AggregateError);
  assertEquals(error.cause.errors.map(({ message }) => message), ["no UDP here", "no TCP either"]);
  await failing.clock.advance(30_000);
  for (const when of ["at once", "in the back-off", "behind the covers"]) {
    const controller = new AbortController();
    const { clock, dialled, covers, options, plan } = observed({ signal: controller.signal });
    const dialling = assertRejects(() => dialWithFallback(options), RangeError, "enough");
    await clock.advance(0);
    if (when === "in the back-off") await clock.advance(150);
    if (when === "behind the covers") await clock.advance(plan().backoffMs + plan().htxOffsetMs - 1);
    controller.abort(new RangeError("enough"));
    await dialling;
    assertEquals(dialled.length, 1);
    await clock.advance(60_000);
    for (const cover of covers.values()) assert(cover.to !== undefined);
    assertEquals(clock.timers.size, 0);
  }
});

Deno.test("dialWithFallback() gives its signal's reason while a dialer knows nothing of it, and ends what comes too late", async () => {
  const [here, there] = memoryDuplexPair();
  const late = Promise.withResolvers<Duplex>();
  const controller = new AbortController();
  const { options } = observed({ primary: () => late.promise, signal: controller.signal });
  const dialling = assertRejects(() => dialWithFallback(options), RangeError, "enough");
  controller.abort(new RangeError("enough"));
  await dialling;
  late.resolve(there);
  assertEquals(await here.io!.read(new Uint8Array(1)), null);
});

Deno.test("UDP closed: HTX comes up over TLS on TCP, with covers over verified TLS", async () => {
  const certificate = await makeTestCertificate();
  if (certificate === undefined) return;
  const covered: string[] = [];
  await using server = serveStreams(echo(), { listeners: [await listenTls({ port: 0 }, certificate)] });
  const site = await listenTls({ port: 0 }, certificate);
  const accepting = site.accept();
  const attempts: FallbackAttempt[] = [];
  const coverFailed = Promise.withResolvers<FallbackAttempt>();
  const port = server.addr.port!;
  const soon = {
    now: () => performance.now(),
    setTimer: (delay: number, callback: () => void) => {
      // The delays are shortened, a cover's time is not.
      const id = setTimeout(callback, delay < 3000 ? delay / 20 : delay);
      return () => clearTimeout(id);
    },
  };
  const dial = fallbackDialer({
    primary: quicSupported()
      ? ({ signal }) => dialQuic({ port }, { serverName: "localhost", timeoutMs: 100, signal })
      : () => Promise.reject(new HtxError("UNSUPPORTED", "no QUIC")),
    fallback: ({ signal }) =>
      dialTls({ port }, { serverName: "localhost", caCerts: [certificate.cert], signal }),
    covers: [`https://localhost:${site.addr.port}`, "https://b.example"],
    resolve: (hostname) => Promise.resolve([hostname === "localhost" ? "127.0.0.1" : "10.0.0.1"]),
    isPublicAddress: (address) => address === "127.0.0.1",
    limiter: new CoverLimiter(),
    clock: soon,
    onAttempt: (attempt) => {
      attempts.push(attempt);
      if (attempt.kind === "cover") covered.push(attempt.outcome);
      if (attempt.kind === "cover" && attempt.outcome === "failed") coverFailed.resolve(attempt);
    },
  });
  await using client = await connect(dial, { remoteStatic: server.publicKey });
  const stream = await client.createBidirectionalStream();
  await stream.write(new Uint8Array([1, 2, 3]), { end: true });
  assertEquals(await stream.read(), new Uint8Array([1, 2, 3]));
  assertEquals(attempts.find(({ kind }) => kind === "fallback")?.outcome, "connected");
  assert(covered.includes("refused"));
  // The cover met a certificate that no root vouches for: it did not go on without.
  const met = await coverFailed.promise;
  assert(met.error instanceof HtxError && met.error.message.includes("UnknownIssuer"), String(met.error));
  site.close();
  assertEquals(await accepting, undefined);
});

Deno.test("dialWithFallback(): covers end when the fallback they cover is given up", async () => {
  const controller = new AbortController();
  const { clock, covers, options, plan } = observed({
    signal: controller.signal,
    fallback: ({ signal }) =>
      new Promise((_resolve, reject) => {
        signal!.addEventListener("abort", () => reject(signal!.reason), { once: true });
      }),
  });
  const dialling = assertRejects(() => dialWithFallback(options), RangeError, "enough");
  await clock.advance(0);
  const now = plan().backoffMs + plan().htxOffsetMs;
  await clock.advance(now);
  assertEquals([...covers.values()].map(({ to }) => to), [undefined, undefined]);
  controller.abort(new RangeError("enough"));
  await dialling;
  assertEquals([...covers.values()].map(({ to }) => to), [now, now]);
  await clock.advance(60_000);
  assertEquals(clock.timers.size, 0);
});

Deno.test("dialWithFallback(): hooks that fail change nothing", async () => {
  let told = 0;
  const fail = () => {
    told++;
    throw new Error("hook");
  };
  const { clock, duplex, options } = observed({
    onPlan: fail,
    onAttempt: fail,
    resolve: () => Promise.resolve([]), // covers fail, too
  });
  const dialling = dialWithFallback(options);
  await clock.advance(5000);
  const { duplex: got, attempts } = await dialling;
  assertEquals([got, told, attempts.length], [duplex, 5, 4]);
});
