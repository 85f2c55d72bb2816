import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { HtxError, selectCrypto, toHex, u64be, utf8 } from "../core/mod.ts";
import {
  bootstrap,
  BOOTSTRAP_METHODS,
  BOOTSTRAP_PEERS,
  BootstrapLimiter,
  type BootstrapMethod,
  type BootstrapMethodName,
  DifficultyController,
  epochDay,
  rendezvousIds,
} from "./bootstrap.ts";
import { leadingZeroBits, POW_MIN_BITS, solveProofOfWork, verifyProofOfWork } from "./pow.ts";

Deno.test("epochDay() turns at midnight UTC", () => {
  assertEquals([0, 86_399, 86_400, 1_800_000_000].map(epochDay), [0, 0, 1, 20_833]);
});

Deno.test("rendezvousIds() are 64, each the hash of the day's beacons and its number", () => {
  const beacons = new Uint8Array(32).fill(5);
  const ids = rendezvousIds(beacons);
  assertEquals(ids.length, 64);
  assertEquals(new Set(ids.map(toHex)).size, 64);
  const crypto = selectCrypto();
  assertEquals(ids[0], crypto.sha256(utf8("bn-seed"), beacons, Uint8Array.of(0)));
  assertEquals(ids[63], crypto.sha256(utf8("bn-seed"), beacons, Uint8Array.of(63)));
  assertThrows(() => rendezvousIds(new Uint8Array(31)), TypeError);
});

Deno.test("leadingZeroBits() counts to the first one bit", () => {
  const rows: [number[], number][] = [
    [[0x80], 0],
    [[0x7f], 1],
    [[0x01], 7],
    [[0, 0x80], 8],
    [[0, 0, 0x03], 22],
    [[0, 0, 0x04], 21],
    [[0, 0], 16],
    [[], 0],
  ];
  for (const [bytes, bits] of rows) assertEquals(leadingZeroBits(Uint8Array.from(bytes)), bits);
});

Deno.test("a proof of work needs 22 bits, or as many as are asked for", () => {
  assertEquals(POW_MIN_BITS, 22);
  const challenge = new Uint8Array(32);
  challenge.set(utf8("betanet pow challenge"));
  // Found by search, with an implementation of its own: just 21, 22 and 23 bits.
  const nonces: [bigint, number][] = [[9970433n, 21], [11021951n, 22], [1746875n, 23]];
  for (const [n, bits] of nonces) {
    for (const required of [undefined, 21, 22, 23, 24]) {
      const verdict = verifyProofOfWork(challenge, u64be(n), required);
      assertEquals(verdict.ok, bits >= (required ?? 22), `${bits} for ${required}`);
      assertEquals(verdict.bits, bits);
    }
  }
  assertEquals(verifyProofOfWork(challenge, u64be(9970433n)), {
    ok: false,
    reason: "too-little-work",
    bits: 21,
    required: 22,
  });
  for (const bits of [-1, 257, 1.5, NaN]) {
    assertThrows(() => verifyProofOfWork(challenge, challenge, bits), RangeError);
  }
});

Deno.test("solveProofOfWork() finds a nonce, in pieces if wanted", () => {
  const challenge = utf8("x");
  const nonce = solveProofOfWork(challenge, 10);
  assert(nonce && verifyProofOfWork(challenge, nonce, 10).ok);
  assertEquals(solveProofOfWork(challenge, 256, { tries: 10n }), undefined);
  let piece;
  for (let start = 0n; !piece; start += 64n) piece = solveProofOfWork(challenge, 10, { start, tries: 64n });
  assertEquals(piece, nonce);
});

/** A controller of capacity 100 that was told of these counts, one for each second from 0. */
function controller(counts: readonly number[], bits = 24): DifficultyController {
  const difficulty = new DifficultyController(100, 0, { bits });
  for (const [second, count] of counts.entries()) {
    for (let i = 0; i < count; i++) difficulty.accepted(second);
  }
  return difficulty;
}

Deno.test("difficulty rises by a bit when more than 5 % of ten minutes passed 95 % of the capacity", () => {
  const seconds = (busy: number, count: number) =>
    Array.from({ length: 600 }, (_, i) => i < busy ? count : 60);
  const steps = (counts: number[]) => {
    // Look only at the step at second 600: fill the earlier ones with an even 60.
    const difficulty = controller(counts.toReversed());
    const before = difficulty.bits(599);
    return difficulty.bits(600) - before;
  };
  assertEquals(steps(seconds(30, 96)), 0, "exactly 5 % of the seconds");
  assertEquals(steps(seconds(31, 96)), 1);
  assertEquals(steps(seconds(31, 95)), 0, "exactly 95 % of the capacity");
});

Deno.test("difficulty falls by a bit when every second of ten minutes was under 50 %, never below 22", () => {
  // Seconds not yet lived count as idle, so one at 50 % in the last minute decides.
  assertEquals(controller(Array(60).fill(49)).bits(60), 23);
  assertEquals(controller([...Array(59).fill(49), 50]).bits(60), 24);
  assertEquals(controller([50]).bits(599), 24);
  assertEquals(controller([50]).bits(600), 24, "the step at 600 still sees second 0");
  assertEquals(controller([50]).bits(660), 23);
  assertEquals(controller([], 24).bits(59), 24);
  assertEquals(controller([], 24).bits(60), 23);
  assertEquals(controller([], 24).bits(120), 22);
  assertEquals(controller([], 24).bits(1e9), 22);
});

Deno.test("difficulty keeps rising while the rush lasts, once a minute, and time does not go back", () => {
  const difficulty = controller(Array(300).fill(100), 22);
  assertEquals(difficulty.bits(300), 27);
  assertEquals(difficulty.bits(0), 27);
  assertEquals(difficulty.bits(300 + 570), 27 + 9, "31 of the 300 rush seconds are in sight until 869");
  assertThrows(() => new DifficultyController(0, 0), RangeError);
  assertThrows(() => new DifficultyController(1, 0, { bits: 21 }), RangeError);
});

Deno.test("a gap of any length gives what going through it second by second gives", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2_500), fc.nat(120)), { maxLength: 8 }), (events) => {
      const jump = new DifficultyController(100, 0, { bits: 30 });
      const walk = new DifficultyController(100, 0, { bits: 30 });
      let now = 0;
      for (const [gap, count] of events) {
        for (let i = 0; i < gap; i++) walk.bits(++now);
        for (let i = 0; i < count; i++) {
          jump.accepted(now);
          walk.accepted(now);
        }
        assertEquals(jump.bits(now), walk.bits(now));
        assert(jump.bits(now) >= POW_MIN_BITS);
      }
    }),
    { numRuns: 20 },
  );
});

Deno.test("no network and no AS gets more than 5 % of a responder's capacity", () => {
  const limiter = new BootstrapLimiter(100); // 5 a second
  const admit = (address: string, as?: number, at = 0) => {
    const verdict = limiter.accept(as === undefined ? { address } : { address, as }, at);
    return verdict.ok || verdict.reason;
  };
  for (let i = 0; i < 5; i++) assertEquals(admit(`192.0.2.${i}`), true);
  assertEquals(admit("192.0.2.77"), "ipv4-prefix");
  assertEquals(admit("192.0.3.0"), true, "the next /24");
  assertEquals(admit("::ffff:192.0.2.9"), "ipv4-prefix", "mapped addresses are IPv4");
  assertEquals(admit("::ffff:c000:209"), "ipv4-prefix");
  for (let i = 0; i < 5; i++) assertEquals(admit(`2001:db8:0:ab${i}0::1`), true);
  assertEquals(admit("2001:db8:0:abff:ffff::"), "ipv6-prefix");
  assertEquals(admit("2001:0DB8:0000:AB00:0:0:0:1"), "ipv6-prefix");
  assertEquals(admit("2001:db8:0:ab00::1%eth0"), "ipv6-prefix", "a zone is none of the network's");
  assertEquals(admit("::ffff:192.0.2.9%2"), "ipv4-prefix");
  assertEquals(admit("2001:db8:0:ac00::"), true, "the next /56");
  for (let i = 0; i < 5; i++) assertEquals(admit(`10.0.${i}.1`, 64500), true);
  assertEquals(admit("10.0.9.1", 64500), "as");
  assertEquals(admit("10.0.9.1", 64501), true);
  assertEquals(admit("192.0.2.77", undefined, 1), true, "the next second");
});

Deno.test("a responder admits its capacity and remembers no more than that", () => {
  const limiter = new BootstrapLimiter(40);
  let admitted = 0;
  for (let i = 0; i < 10_000; i++) {
    const verdict = limiter.accept({ address: `10.${i >> 8}.${i & 255}.1`, as: i }, 5);
    if (verdict.ok) admitted++;
    else assertEquals(verdict.reason, "capacity");
  }
  assertEquals([admitted, limiter.size], [40, 80]);
  // A twentieth of 4 a second is one in 5 s.
  const slow = new BootstrapLimiter(4);
  const at = (seconds: number) => slow.accept({ address: "192.0.2.1" }, seconds).ok;
  assertEquals([0, 1, 4, 5, 9, 10].map(at), [true, false, false, true, false, true]);
});

Deno.test("whatever its capacity, a responder admits somebody, and no network more than 5 %", () => {
  for (let num = 1; num <= 80; num++) {
    for (let den = 1; den <= 320; den++) {
      const limiter = new BootstrapLimiter(num / den); // 5 / 77, for one, rounds to a share of 0.99…
      let admitted = 0;
      while (limiter.accept({ address: "192.0.2.1" }, 0).ok) admitted++;
      let others = 0;
      while (limiter.accept({ address: `10.${others >> 8}.${others & 255}.1` }, 0).ok) others++;
      assert(admitted >= 1 && admitted * 20 <= admitted + others, `${num} / ${den}`);
    }
  }
});

Deno.test("a clock that was ahead and is set back does not lock the limiter, and one that wavers admits no more", () => {
  for (const capacity of [4, 20, 100]) {
    const limiter = new BootstrapLimiter(capacity);
    let next = 0;
    const admitted = (at: number) => {
      let count = 0;
      for (let i = 0; i < 200; i++, next++) {
        if (limiter.accept({ address: `10.${next >> 8 & 255}.${next & 255}.1` }, at).ok) count++;
      }
      return count;
    };
    const perWindow = Math.max(20, capacity); // a twentieth of 4 a second is one in 5 s
    assertEquals(admitted(4e9), perWindow);
    assertEquals(admitted(1.8e9), perWindow, "set back by decades");
    assertEquals([1.8e9, 1.8e9 - 1, 1.8e9, 1.8e9 - 1].map(admitted), [0, 0, 0, 0], "wavering by a second");
    assertEquals(admitted(1.8e9 + 10), perWindow);
  }
});

Deno.test("a capacity so small that no window has room for one request is refused, not without a limit", () => {
  for (const capacity of [0, NaN, Infinity, Number.MIN_VALUE, 1e-307]) {
    assertThrows(() => new BootstrapLimiter(capacity), RangeError);
  }
  const limiter = new BootstrapLimiter(1e-300);
  assertEquals([0, 1].map((now) => limiter.accept({ address: "192.0.2.1" }, now).ok), [true, false]);
});

Deno.test("a clock that gives no time opens nothing: the difficulty stays, and the limiter admits no more", () => {
  for (const none of [NaN, Infinity, -Infinity]) {
    const controller = new DifficultyController(10, 0, { bits: 30 });
    controller.accepted(none);
    assertEquals([controller.bits(none), controller.bits(59)], [30, 30], `${none}`);
    assertEquals([controller.bits(60), controller.bits(120)], [29, 28], `${none}, then the time again`);
    assertThrows(() => new DifficultyController(1, none), RangeError);

    const limiter = new BootstrapLimiter(20);
    const accept = (now: number) => limiter.accept({ address: "192.0.2.1" }, now).ok;
    assertEquals(
      [7, none, 7, none, none, 8].map(accept),
      [true, false, false, false, false, true],
      `${none}`,
    );
  }
});

Deno.test("a clock that was ahead and is set back does not hold the difficulty where it was", () => {
  const difficulty = new DifficultyController(10, 1.8e9, { bits: 24 });
  assertEquals(difficulty.bits(4e9), 22);
  for (let second = 0; second < 120; second++) {
    for (let i = 0; i < 20; i++) difficulty.accepted(1.8e9 + second);
  }
  assertEquals(difficulty.bits(1.8e9 + 120), 24, "a bit for each minute of the rush");
});

Deno.test("the limiter refuses what is no address with the typed error", () => {
  const limiter = new BootstrapLimiter(100);
  for (
    const address of [
      "",
      "1.2.3",
      "1.2.3.4.5",
      "256.1.1.1",
      "01.2.3.4",
      "1.2.3.4.",
      "::1::",
      "1:2:3:4:5:6:7",
      "[::1]",
      "::1%",
      "1.2.3.4%eth0",
      "::g",
      "x",
    ]
  ) {
    const error = assertThrows(() => limiter.accept({ address }, 0), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "address"], address);
  }
  fc.assert(fc.property(fc.oneof(fc.string(), fc.ipV4(), fc.ipV6()), (address) => {
    try {
      limiter.accept({ address }, 0);
    } catch (error) {
      assert(error instanceof HtxError && error.code === "MALFORMED");
    }
  }));
  fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => {
    new BootstrapLimiter(100).accept({ address }, 0);
  }));
});

function method(name: BootstrapMethodName, ids: readonly string[], log: string[] = []): BootstrapMethod {
  return {
    name,
    async *discover() {
      log.push(name);
      for (const id of ids) yield await Promise.resolve({ id, addresses: [] });
    },
  };
}

Deno.test("bootstrap() tries the methods in the order of the rules until five peers answered", async () => {
  assertEquals(BOOTSTRAP_PEERS, 5);
  const log: string[] = [];
  const result = await bootstrap([
    method("dns-list", ["z"], log),
    method("mdns", ["b", "c", "a"], log),
    method("onion-list", ["d", "e", "f", "g"], log),
    method("rendezvous-dht", ["a", "a"], log),
    method("bluetooth-le", [], log),
  ]);
  assertEquals(log, BOOTSTRAP_METHODS.slice(0, 4));
  assert(result.ok);
  assertEquals(result.peers.map(({ id }) => id), ["a", "b", "c", "d", "e"]);
  assertEquals(result.attempts, [
    { method: "rendezvous-dht", found: 1, end: "exhausted" },
    { method: "mdns", found: 2, end: "exhausted" },
    { method: "bluetooth-le", found: 0, end: "exhausted" },
    { method: "onion-list", found: 2, end: "enough" },
  ]);
});

Deno.test("bootstrap() says when it found too few, and survives methods that fail or hang", async () => {
  const broken: BootstrapMethod = {
    name: "rendezvous-dht",
    // deno-lint-ignore require-yield -- it fails before it finds anything
    async *discover() {
      await Promise.resolve();
      throw new Error("no network");
    },
  };
  let told = false;
  const hanging: BootstrapMethod = {
    name: "mdns",
    discover: ({ signal }) => ({
      [Symbol.asyncIterator]: () => ({
        next: () =>
          new Promise((resolve) => {
            signal.addEventListener("abort", () => {
              told = true;
              resolve({ done: true, value: undefined });
            });
          }),
      }),
    }),
  };
  const result = await bootstrap([hanging, broken, method("dns-list", ["a", "b", "c", "d"])], {
    methodTimeoutMs: 20,
  });
  assert(!result.ok);
  assertEquals([result.reason, result.peers.length, told], ["too-few-peers", 4, true]);
  assertEquals(result.attempts.map(({ end }) => end), ["failed", "timeout", "exhausted"]);
  assertEquals((await bootstrap([])).ok, false);
});

Deno.test("bootstrap() leaves a method that finds the same peer for ever, without ever waiting, when its time is over", async () => {
  let found = 0;
  const endless: BootstrapMethod = {
    name: "rendezvous-dht",
    async *discover() {
      // Rather than hang the test, it gives up long after anybody else should have.
      while (found++ < 2_000_000) yield { id: "a", addresses: [] };
    },
  };
  const result = await bootstrap([endless, method("dns-list", ["b", "c"])], { methodTimeoutMs: 5 });
  assertEquals(result.attempts.map(({ end }) => end), ["timeout", "exhausted"]);
  assertEquals(result.peers.map(({ id }) => id), ["a", "b", "c"]);
});

Deno.test("bootstrap() lets a method that is late or no longer needed clean up", async () => {
  for (const [end, timeout] of [["timeout", 5], ["enough", 1_000]] as const) {
    let clean = () => {};
    const cleaned = new Promise<void>((resolve) => clean = resolve);
    let go = () => {};
    const gate = new Promise<void>((resolve) => go = resolve);
    const deaf: BootstrapMethod = {
      name: "mdns",
      async *discover() {
        try {
          if (end === "timeout") await gate;
          yield { id: "a", addresses: [] };
          yield { id: "b", addresses: [] };
        } finally {
          clean();
        }
      },
    };
    const result = await bootstrap([deaf], { want: 1, methodTimeoutMs: timeout });
    assertEquals(result.attempts.map((attempt) => attempt.end), [end]);
    go();
    await cleaned;
  }
});

Deno.test("bootstrap() refuses a time that no timer can wait for", async () => {
  for (const methodTimeoutMs of [0, -1, NaN, Infinity, 2 ** 31]) {
    await assertRejects(() => bootstrap([], { methodTimeoutMs }), RangeError);
  }
});

Deno.test("bootstrap() ends with the reason of its signal", async () => {
  const abort = new AbortController();
  const hanging: BootstrapMethod = {
    name: "mdns",
    discover: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) }),
  };
  const reason = new Error("enough of this");
  const running = bootstrap([hanging], { signal: abort.signal });
  abort.abort(reason);
  assertEquals(await assertRejects(() => running), reason);
  assertEquals(await assertRejects(() => bootstrap([hanging], { signal: abort.signal })), reason);
});
