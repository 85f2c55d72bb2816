import { assert, assertEquals } from "@std/assert";
import { INITIAL_WINDOW, resolveLimits, type SessionLimits } from "./limits.ts";
import { ReceiveWindows, type WindowedStream } from "./windows.ts";

const MIB = 1024 ** 2;

function stream(): WindowedStream & { _receiveEnded: boolean } {
  return { _target: INITIAL_WINDOW, _consumed: 0, _creditedAt: 0, _receiveEnded: false };
}

/** Reads halves of its window, each in `ms`, and tells the targets it got. */
function read(
  windows: ReceiveWindows,
  reader: WindowedStream,
  start: number,
  halves: number,
  ms: number,
): { now: number; targets: number[] } {
  const targets: number[] = [];
  let now = start;
  for (let i = 0; i < halves; i++) {
    now += ms;
    windows.data(reader);
    const read = Math.ceil(reader._target / 2);
    const before = { ...reader };
    reader._consumed += read;
    const credit = windows.credit(reader, now, () => {});
    assert(credit >= 0);
    // What is out, unread and read always adds up to the window.
    assertEquals(before._target - before._consumed - read + credit, reader._target - reader._consumed);
    targets.push(reader._target);
  }
  return { now, targets };
}

function setUp(limits: SessionLimits, roundTrip: number): ReceiveWindows {
  const windows = new ReceiveWindows(resolveLimits(limits));
  windows.measured(roundTrip);
  return windows;
}

Deno.test("a window grows to its bound where half of it is read within two round trips, and not otherwise", () => {
  const alone = stream();
  assertEquals(read(setUp({}, 10), alone, 0, 6, 19).targets, [
    131_070,
    262_140,
    524_280,
    1_048_560,
    MIB,
    MIB,
  ]);
  const slow = stream();
  assertEquals(read(setUp({}, 10), slow, 0, 3, 20).targets, [INITIAL_WINDOW, INITIAL_WINDOW, INITIAL_WINDOW]);
});

Deno.test("the next stream starts where the last large one got to, and the budget is for all of them", () => {
  const windows = setUp({ receiveBudget: MIB - 65_535 + 100 }, 10);
  const first = stream();
  read(windows, first, 0, 5, 1);
  const second = stream();
  assertEquals(read(windows, second, 10, 1, 1).targets, [INITIAL_WINDOW + 100]);
  first._receiveEnded = second._receiveEnded = true;
  windows.ended(second);
  windows.ended(first);
  const third = stream();
  assertEquals(read(windows, third, 5000, 1, 1).targets, [MIB]);
});

Deno.test("beside other open streams a window keeps to half of its bound, and grows again a second after them", () => {
  const windows = setUp({}, 0.2);
  const large = stream();
  let { now } = read(windows, large, 0, 5, 0.1);
  assertEquals(large._target, MIB);
  const small = stream();
  windows.data(small);
  const shared = read(windows, large, now, 3, 1.3);
  assertEquals(shared.targets, [MIB / 2, MIB / 2, MIB / 2]);
  now = shared.now;
  small._receiveEnded = true;
  windows.ended(small);
  assertEquals(read(windows, large, now, 2, 500).targets, [MIB / 2, MIB / 2]);
  windows.measured(3); // what a full pipe takes
  assertEquals(read(windows, large, now + 1000, 1, 1).targets, [MIB]);
});

Deno.test("a long path keeps its window beside other streams", () => {
  const windows = setUp({}, 100);
  const large = stream();
  const { now } = read(windows, large, 0, 5, 50);
  assertEquals(large._target, MIB);
  windows.data(stream());
  assertEquals(read(windows, large, now, 3, 60).targets, [MIB, MIB, MIB]);
});

Deno.test("one stream after another is no shared session", () => {
  const windows = setUp({}, 1);
  for (let i = 0; i < 3; i++) {
    const next = stream();
    read(windows, next, i * 10, 5, 0.5);
    assertEquals(next._target, MIB);
    next._receiveEnded = true;
    windows.ended(next);
  }
});
