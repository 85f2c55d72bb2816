import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  comparePaths,
  FAILOVER_MS,
  LASTING_LOSS_AFTER_MS,
  LASTING_LOSS_PROBE_INTERVAL_MS,
  MAX_PATHS,
  PathSet,
  PROBE_MAX_MS,
  PROBE_MIN_MS,
} from "./paths.ts";

Deno.test("the limits of the path rule are those of the clause", () => {
  assertEquals([MAX_PATHS, FAILOVER_MS, PROBE_MIN_MS, PROBE_MAX_MS, LASTING_LOSS_PROBE_INTERVAL_MS], [
    3,
    300,
    1_000,
    60_000,
    10_000,
  ]);
});

Deno.test("PathSet keeps at most three paths, each name once, none that shares an element with another", () => {
  const paths = new PathSet();
  assertEquals(paths.add({ id: "a", elements: ["as1", "as2"] }, 0), { ok: true });
  assertEquals(paths.add({ id: "a" }, 0), { ok: false, reason: "duplicate", conflict: "a" });
  assertEquals(paths.add({ id: "b", elements: ["as2", "as3"] }, 0), {
    ok: false,
    reason: "not-disjoint",
    conflict: "a",
  });
  assertEquals(paths.add({ id: "b", elements: ["as3"] }, 0), { ok: true });
  assertEquals(paths.add({ id: "c" }, 0), { ok: true });
  assertEquals(paths.add({ id: "d" }, 0), { ok: false, reason: "full" });
  assertEquals(paths.remove("c", 0), undefined);
  assertEquals(paths.add({ id: "d" }, 0), { ok: true });
  assertEquals(paths.size, 3);
});

Deno.test("PathSet refuses options out of range and names it does not have", () => {
  for (const maxPaths of [0, 4, 1.5, NaN]) assertThrows(() => new PathSet({ maxPaths }), RangeError);
  for (const stallMs of [0, 301, NaN]) assertThrows(() => new PathSet({ stallMs }), RangeError);
  assertThrows(() => new PathSet({ revalidateMs: 999 }), RangeError);
  const paths = new PathSet();
  assertThrows(() => paths.failed("x", 0), RangeError);
  paths.add({ id: "a" }, 0);
  for (const none of [NaN, Infinity]) { // which would be the latest time for ever, or make round-trip times of NaN
    assertThrows(() => paths.add({ id: "x" }, none), RangeError);
    assertThrows(() => paths.succeeded("a", 0, { rtt: none }), RangeError);
  }
});

Deno.test("PathSet never uses a path before it was validated", () => {
  const paths = new PathSet();
  paths.add({ id: "a" }, 0);
  assertEquals(paths.active, undefined);
  assertEquals(paths.probe(0), "a");
  assertEquals(paths.probe(0), undefined);
  assertEquals(paths.succeeded("a", 30, { rtt: 30 }), {
    from: undefined,
    to: "a",
    reason: "first",
    at: 30,
    deadline: 330,
  });
  assertEquals(paths.active, "a");
});

Deno.test("e-44: the best path has the lower loss, then the lower round-trip time", () => {
  const path = (losses: number, results: number, rtt?: number) => ({ losses, results, rtt });
  const better: [ReturnType<typeof path>, ReturnType<typeof path>][] = [
    [path(0, 10, 500), path(1, 10, 5)],
    [path(0, 10, 5), path(0, 10, 500)],
    [path(1, 30, 9), path(1, 29, 1)],
    [path(0, 10, 5), path(0, 10)],
    [path(0, 0, 6), path(0, 32, 7)],
  ];
  for (const [a, b] of better) {
    assert(comparePaths(a, b) < 0);
    assert(comparePaths(b, a) > 0);
  }
  assertEquals(comparePaths(path(1, 2, 7), path(2, 4, 7)), 0);
  assertEquals(comparePaths(path(0, 0), path(0, 9)), 0);

  const paths = new PathSet();
  for (const [id, rtt] of [["slow", 300], ["quick", 10], ["middle", 40]] as const) {
    paths.add({ id }, 0);
    paths.succeeded(id, 0, { rtt });
  }
  assertEquals(paths.candidates(), ["quick", "middle", "slow"]);
  assertEquals(paths.active, "quick");
  assertEquals(paths.lost("quick", 10)?.to, "middle", "one loss in two weighs more than 30 ms");
});

Deno.test("a margin keeps traffic where it is for a gain that small, not for lower loss", () => {
  const paths = new PathSet({ rttMarginMs: 10 });
  for (const id of ["a", "b"]) paths.add({ id, validated: true }, 0);
  paths.succeeded("a", 0, { rtt: 50 });
  assertEquals(paths.succeeded("b", 0, { rtt: 40 }), undefined);
  assertEquals(paths.active, "a");
  assertEquals(paths.lost("a", 1)?.to, "b");
});

Deno.test("the margin is between the path in use and the best, not among those that traffic could move to", () => {
  const rtts = { a: 100, b: 50, c: 45 };
  for (const order of [["a", "b", "c"], ["a", "c", "b"], ["c", "b", "a"]] as const) {
    for (const event of ["failed", "lost"] as const) {
      const paths = new PathSet({ rttMarginMs: 100 });
      for (const id of order) paths.add({ id }, 0);
      for (const id of ["a", "b", "c"] as const) paths.succeeded(id, 0, { rtt: rtts[id] });
      assertEquals(paths.active, "a");
      assertEquals(paths[event]("a", 1)?.to, "c", `${event}, ${order}`);
      assertEquals(paths.candidates()[0], "c");
    }
  }
});

Deno.test("a failure moves traffic in the same call, to the best alternative, with 300 ms to get there", () => {
  const paths = new PathSet();
  for (const [id, rtt] of [["a", 5], ["b", 50], ["c", 20]] as const) {
    paths.add({ id }, 0);
    paths.succeeded(id, 0, { rtt });
  }
  assertEquals(paths.failed("a", 1_000), {
    from: "a",
    to: "c",
    reason: "failed",
    at: 1_000,
    deadline: 1_300,
  });
  assertEquals(paths.failed("c", 1_300)?.to, "b");
  assertEquals(paths.failed("b", 1_301), {
    from: "b",
    to: undefined,
    reason: "failed",
    at: 1_301,
    deadline: 1_601,
  });
  assertEquals(paths.candidates(), []);
  assertEquals(paths.succeeded("c", 1_400)?.to, "c");
});

Deno.test("a silent path is left 250 ms after the answer was expected, or after twice its round-trip time", () => {
  const paths = new PathSet();
  for (const id of ["a", "b"]) paths.add({ id, validated: true }, 0);
  paths.expect("a", 100);
  paths.expect("a", 200); // the oldest counts
  assertEquals(paths.nextWakeAt(), 350);
  assertEquals(paths.settle(349), undefined);
  assertEquals(paths.settle(350), { from: "a", to: "b", reason: "stalled", at: 350, deadline: 650 });

  const slow = new PathSet();
  for (const id of ["a", "b"]) slow.add({ id, validated: true }, 0);
  slow.succeeded("a", 0, { rtt: 200 });
  slow.expect("a", 0);
  assertEquals(slow.settle(399), undefined);
  slow.succeeded("a", 399);
  assertEquals(slow.settle(10_000), undefined, "an answer ends the wait");
});

Deno.test("probes back off 1, 2, 4, 8, 16, 32, 60, 60 s after each lost one", () => {
  const paths = new PathSet();
  paths.add({ id: "a", validated: true }, 0);
  paths.failed("a", 0);
  let now = 0;
  const gaps: number[] = [];
  for (let i = 0; i < 9; i++) {
    const due = paths.nextWakeAt();
    assertEquals(paths.probe(due - 1), undefined);
    assertEquals(paths.probe(due), "a");
    gaps.push(due - now);
    paths.failed("a", due);
    now = due;
  }
  // At 7 s the loss is not lasting yet; the probe due at 15 s may not come before 7 + 10 = 17 s.
  assertEquals(gaps, [1_000, 2_000, 4_000, 10_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
});

Deno.test("one failure that many requests report lengthens the back-off once", () => {
  const paths = new PathSet();
  paths.add({ id: "a", validated: true }, 0);
  for (let i = 0; i < 50; i++) paths.failed("a", i);
  assertEquals(paths.snapshot()[0]?.failures, 1);
  assertEquals(paths.nextWakeAt(), 1_000);
});

Deno.test("a probe without an answer is lost after its time; a late answer still validates", () => {
  const paths = new PathSet({ probeTimeoutMs: 500 });
  paths.add({ id: "a" }, 0);
  assertEquals(paths.probe(0), "a");
  assertEquals(paths.nextWakeAt(), 500);
  paths.settle(500);
  assertEquals(paths.snapshot()[0]?.state, "failed");
  assertEquals(paths.succeeded("a", 501)?.to, "a");
});

Deno.test("an idle validated path is probed again after a minute, or never", () => {
  const paths = new PathSet();
  paths.add({ id: "a", validated: true }, 0);
  assertEquals(paths.probe(59_999), undefined);
  assertEquals(paths.probe(60_000), "a");
  const never = new PathSet({ revalidateMs: 0 });
  never.add({ id: "a", validated: true }, 0);
  assertEquals(never.nextWakeAt(), Infinity);
});

Deno.test("under lasting loss the three paths together send at most one probe in any 10 s", () => {
  const paths = new PathSet({ probeTimeoutMs: 700 });
  for (const id of ["a", "b", "c"]) paths.add({ id, validated: true }, 0);
  for (const id of ["a", "b", "c"]) paths.failed(id, 0);
  const sent: { id: string; at: number }[] = [];
  for (let now = 0; now < 1_800_000; now = Math.max(now + 1, paths.nextWakeAt())) {
    paths.settle(now);
    for (let id = paths.probe(now); id !== undefined; id = paths.probe(now)) sent.push({ id, at: now });
  }
  const lasting = sent.filter(({ at }) => at >= LASTING_LOSS_AFTER_MS);
  assert(lasting.length > 60, "the back-off alone would allow three in 60 s");
  for (const [i, { at }] of lasting.entries()) if (i > 0) assert(at - lasting[i - 1]!.at >= 10_000);
  for (const id of ["a", "b", "c"]) {
    assert(lasting.filter((probe) => probe.id === id).length > 20, "none starves");
  }
});

Deno.test("a path that is idle or comes and goes does not keep a lost one from being probed", () => {
  for (const [name, flaps] of [["idle", false], ["coming and going", true]] as const) {
    const paths = new PathSet({ revalidateMs: 5_000 });
    for (const id of ["lost", "other"]) paths.add({ id, validated: true }, 0);
    paths.failed("lost", 0);
    const probed: number[] = [];
    for (let now = 0; now < 600_000; now = Math.max(now + 1, paths.nextWakeAt())) {
      paths.settle(now);
      for (let id = paths.probe(now); id !== undefined; id = paths.probe(now)) {
        if (id === "other") paths.succeeded(id, now);
        else {
          probed.push(now);
          paths.failed(id, now);
        }
        if (flaps) paths.failed("other", now);
      }
    }
    // Once a minute, and where its turn was another's, ten seconds later.
    for (const [i, at] of probed.entries()) if (i > 0) assert(at - probed[i - 1]! <= 70_000, name);
    assert(probed.at(-1)! >= 530_000, name);
  }
});

Deno.test("a clock that goes back changes nothing", () => {
  const paths = new PathSet();
  paths.add({ id: "a", validated: true }, 100_000);
  paths.failed("a", 100_000);
  assertEquals(paths.probe(5), undefined);
  assertEquals(paths.probe(101_000), "a");
});

Deno.test("whatever happens, traffic is on the best validated path and probes keep their distance", () => {
  const event = fc.record({
    kind: fc.constantFrom("succeeded", "failed", "lost", "expect", "settle", "probe"),
    id: fc.constantFrom("a", "b", "c"),
    wait: fc.nat(15_000),
    rtt: fc.nat(400),
  });
  fc.assert(fc.property(fc.array(event, { maxLength: 120 }), (events) => {
    const paths = new PathSet();
    for (const id of ["a", "b", "c"]) paths.add({ id }, 0);
    let now = 0;
    let lastProbe = -Infinity;
    for (const { kind, id, wait, rtt } of events) {
      now += wait;
      const before = paths.active;
      let moved;
      if (kind === "probe") {
        const lasting = paths.snapshot().some((path) =>
          now - (path.failedSince ?? Infinity) >= LASTING_LOSS_AFTER_MS
        );
        const probed = paths.probe(now);
        if (probed !== undefined) {
          if (lasting) assert(now - lastProbe >= LASTING_LOSS_PROBE_INTERVAL_MS);
          lastProbe = now;
        }
      } else if (kind === "settle") moved = paths.settle(now);
      else if (kind === "succeeded") moved = paths.succeeded(id, now, { rtt });
      else if (kind === "expect") paths.expect(id, now);
      else moved = paths[kind === "failed" ? "failed" : "lost"](id, now);

      const candidates = paths.candidates();
      const infos = new Map(paths.snapshot().map((path) => [path.id, path]));
      assertEquals(paths.active === undefined, candidates.length === 0);
      if (paths.active !== undefined) {
        assertEquals(comparePaths(infos.get(paths.active)!, infos.get(candidates[0]!)!), 0);
      }
      assertEquals(moved !== undefined, before !== paths.active);
      if (moved) {
        assertEquals([moved.from, moved.to, moved.deadline - now], [before, paths.active, FAILOVER_MS]);
      }
      for (const path of infos.values()) {
        if (path.state === "failed") {
          assert(path.nextProbeAt - now <= PROBE_MAX_MS);
        }
      }
    }
  }));
});
