import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { concat, fromHex, toHex, u64be, utf8 } from "../core/bytes.ts";
import { ed25519PublicKey, ed25519Sign } from "../core/crypto.ts";
import { HtxError } from "../core/errors.ts";
import { encodeCbor } from "./cbor.ts";
import {
  type ControlMap,
  type ControlMapRefusal,
  type ControlMapVerdict,
  decodeControlMap,
  encodeControlMap,
  MAX_CONTROL_MAP_LENGTH,
  signControlMap,
  TRANSITION_REPLAY_MS,
  TRANSITION_TIME_TOLERANCE_MS,
  type TransitionClientContext,
  TransitionReader,
  transitionReceiver,
  TransitionReplayGuard,
  transitionSender,
  type TransitionServerContext,
  verifyControlMap,
} from "./transition.ts";

const KEY = new Uint8Array(32).fill(1);
const PUBLIC = ed25519PublicKey(KEY);
const H = new Uint8Array(32).fill(0x48);
const NOW = 1_800_000_000_000;
const KEYS = new Map([[64500n, PUBLIC]]);
const SERVER = { handshakeHash: H, remoteStatic: new Uint8Array(32).fill(9) };

function fields(change: Partial<ControlMap> = {}): Omit<ControlMap, "sig"> {
  return {
    prevAs: 64500n,
    nextAs: 64501n,
    ts: BigInt(NOW / 1000),
    flow: fromHex("0102030405060708"),
    nonce: fromHex("1112131415161718"),
    ...change,
  };
}
const signed = (change: Partial<ControlMap> = {}, h = H, key = KEY) => signControlMap(fields(change), key, h);

Deno.test("a control map has the keys, the order, the widths and the signature of §8", () => {
  const map = signed();
  const bytes = encodeControlMap(map);
  assertEquals(
    toHex(bytes),
    "a6" + // map of 6
      "66707265764153" + "19fbf4" + // "prevAS": 64500
      "666e6578744153" + "19fbf5" + // "nextAS": 64501
      "625453" + "1a6b49d200" + // "TS"
      "64464c4f57" + "480102030405060708" + // "FLOW"
      "654e4f4e4345" + "481112131415161718" + // "NONCE"
      "63534947" + "5840" + toHex(map.sig), // "SIG"
  );
  const message = concat(
    u64be(64500n),
    u64be(64501n),
    u64be(NOW / 1000),
    map.flow,
    map.nonce,
    utf8("bn-t1"),
    H,
  );
  assertEquals(message.length, 3 * 8 + 8 + 8 + 5 + 32);
  assertEquals(map.sig, ed25519Sign(message, KEY));
  assertEquals(decodeControlMap(bytes), map);
  const largest = signed({ prevAs: 2n ** 64n - 1n, nextAs: 2n ** 64n - 1n, ts: 2n ** 64n - 1n });
  assertEquals(encodeControlMap(largest).length, MAX_CONTROL_MAP_LENGTH);
  assertEquals(decodeControlMap(encodeControlMap(largest)), largest);
});

Deno.test("signControlMap() refuses what has no place in the map", () => {
  assertThrows(() => signed({ prevAs: -1n }), RangeError);
  assertThrows(() => signed({ ts: 2n ** 64n }), RangeError);
  assertThrows(() => signed({ flow: new Uint8Array(7) }), TypeError);
  assertThrows(() => signed({ nonce: new Uint8Array(9) }), TypeError);
  assertThrows(() => signed({}, new Uint8Array(31)), TypeError);
});

Deno.test("e-32: decodeControlMap() names the field that is wrong", () => {
  const good: [string, number | bigint | Uint8Array | string][] = [
    ["prevAS", 1],
    ["nextAS", 2],
    ["TS", 3],
    ["FLOW", new Uint8Array(8)],
    ["NONCE", new Uint8Array(8)],
    ["SIG", new Uint8Array(64)],
  ];
  const encode = (entries: typeof good) => encodeCbor(new Map(entries));
  decodeControlMap(encode(good));
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(0), "cbor"],
    [encode(good).subarray(0, 50), "cbor"],
    [concat(encode(good), Uint8Array.of(0)), "cbor"],
    [encodeCbor([1]), "cbor"],
    [encode([...good].sort(([a], [b]) => a.length - b.length || (a < b ? -1 : 1))), "prevAS"],
    [encode([...good].reverse()), "prevAS"],
    [encode(good.slice(0, 5)), "SIG"],
    [encode([...good, ["EXTRA", 1]]), "cbor"],
  ];
  for (const [i, [key, value]] of good.entries()) {
    const wrong = typeof value === "number"
      ? [-1, 1.5, "1", -(2n ** 64n)]
      : [new Uint8Array(7), "x", 5, new Uint8Array(65)];
    for (const bad of wrong) cases.push([encode(good.with(i, [key, bad])), key]);
  }
  for (const [bytes, field] of cases) {
    const error = assertThrows(() => decodeControlMap(bytes), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", field]);
  }
});

Deno.test("e-31: a map counts only under the key of prevAS, unchanged, and in its own session", () => {
  const options = { keys: KEYS, handshakeHash: H, now: NOW };
  const map = signed();
  assertEquals(verifyControlMap(map, options), { ok: true, map });
  const refused: [ControlMap, ControlMapRefusal][] = [
    [{ ...map, sig: crypto.getRandomValues(new Uint8Array(64)) }, "signature"],
    [{ ...map, sig: new Uint8Array(64) }, "signature"],
    [{ ...map, nextAs: 64502n }, "signature"],
    [{ ...map, ts: map.ts + 1n }, "signature"],
    [{ ...map, flow: new Uint8Array(8) }, "signature"],
    [{ ...map, nonce: new Uint8Array(8) }, "signature"],
    [signed({}, H, new Uint8Array(32).fill(2)), "signature"],
    [signed({}, new Uint8Array(32)), "signature"], // of another session
    [signed({ prevAs: 64501n }), "unknown-as"],
  ];
  for (const [map, reason] of refused) {
    assertEquals(verifyControlMap(map, options), { ok: false, reason, map });
  }
  for (let bit = 0; bit < 512; bit += 7) {
    const sig = map.sig.slice();
    sig[bit >> 3]! ^= 1 << (bit & 7);
    assertEquals(verifyControlMap({ ...map, sig }, options).ok, false);
  }
  const byFunction = { ...options, keys: (as: bigint) => as === 64500n ? PUBLIC : undefined };
  assert(verifyControlMap(map, byFunction).ok);
});

Deno.test("e-31: a signature under a key of small order, or with S + q, is refused", () => {
  const map = signed();
  // A = identity, R = identity, S = 0 fits any message under lenient rules.
  const identity = new Uint8Array(32);
  identity[0] = 1;
  const forged = { ...map, sig: concat(identity, new Uint8Array(32)) };
  const lenient = new Map([[64500n, identity]]);
  assertEquals(verifyControlMap(forged, { keys: lenient, handshakeHash: H, now: NOW }).ok, false);
  const q = 2n ** 252n + 27742317777372353535851937790883648493n;
  const sig = map.sig.slice();
  let s = 0n;
  for (let i = 63; i >= 32; i--) s = (s << 8n) | BigInt(sig[i]!);
  s += q;
  for (let i = 32; i < 64; i++, s >>= 8n) sig[i] = Number(s & 0xffn);
  assertEquals(verifyControlMap({ ...map, sig }, { keys: KEYS, handshakeHash: H, now: NOW }).ok, false);
});

Deno.test("a map is good from 300 s before to 300 s after its time", () => {
  assertEquals(TRANSITION_TIME_TOLERANCE_MS, 300_000);
  const map = signed();
  const rows: [number, boolean][] = [
    [-300_001, false],
    [-300_000, true],
    [-299_999, true],
    [0, true],
    [299_999, true],
    [300_000, true],
    [300_001, false],
  ];
  for (const [offset, ok] of rows) {
    const verdict = verifyControlMap(map, { keys: KEYS, handshakeHash: H, now: NOW + offset });
    assertEquals(verdict, ok ? { ok: true, map } : { ok: false, reason: "time", map }, `${offset} ms`);
  }
  for (const ts of [0n, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
    assertEquals(verifyControlMap(signed({ ts }), { keys: KEYS, handshakeHash: H, now: NOW }).ok, false);
  }
});

Deno.test("e-31: a (FLOW, TS) is refused for 2 h, also when signed anew", () => {
  const guard = new TransitionReplayGuard();
  const map = signed();
  const rows: [Pick<ControlMap, "flow" | "ts">, number, string][] = [
    [map, 0, "fresh"],
    [map, 0, "replayed"],
    [{ flow: map.flow, ts: map.ts + 1n }, 0, "fresh"],
    [{ flow: new Uint8Array(8), ts: map.ts }, 0, "fresh"],
    [map, TRANSITION_REPLAY_MS - 1, "replayed"],
    [map, -TRANSITION_REPLAY_MS, "replayed"], // a clock that goes back forgets nothing
    [map, TRANSITION_REPLAY_MS, "fresh"],
  ];
  for (const [map, at, answer] of rows) assertEquals(guard.record(map, NOW + at), answer, `${at}`);

  let now = NOW;
  const reader = new TransitionReader(SERVER, { keys: KEYS, now: () => now });
  assertEquals(reader.push(encodeControlMap(map)), [{ ok: true, map }]);
  assertEquals(reader.push(encodeControlMap(map)), [{ ok: false, reason: "replayed", map }]);
  const again = signed({ nonce: new Uint8Array(8) });
  assertEquals(reader.push(encodeControlMap(again)), [{ ok: false, reason: "replayed", map: again }]);
  assertEquals(reader.current, map, "a refused map changes nothing");
  now += 300_001;
  assertEquals(reader.push(encodeControlMap(map)), [{ ok: false, reason: "time", map }]);
});

Deno.test("a full memory refuses and forgets nothing; what was not verified does not fill it", () => {
  const guard = new TransitionReplayGuard(2);
  const reader = new TransitionReader(SERVER, { keys: KEYS, now: () => NOW, guard });
  const at = (n: number) => signed({ flow: u64be(n) });
  reader.push(encodeControlMap({ ...at(9), sig: new Uint8Array(64) }));
  assertEquals(guard.size, 0);
  const verdicts = [1, 2, 3, 1].flatMap((n) => reader.push(encodeControlMap(at(n))));
  assertEquals(verdicts.map((v) => v.ok || v.reason), [true, true, "memory-full", "replayed"]);
  assertEquals(guard.record(at(4), NOW + TRANSITION_REPLAY_MS), "fresh");
});

Deno.test("a peer has a bucket of its own for maps", () => {
  let now = NOW;
  let n = 0;
  const shared = { keys: KEYS, now: () => now, rate: { burst: 3, perSecond: 1 } };
  const reader = new TransitionReader(SERVER, shared);
  const push = () => reader.push(encodeControlMap(signed({ flow: u64be(n++) })))[0]!;
  assertEquals([push(), push(), push(), push()].map((v) => v.ok || v.reason), [true, true, true, "rate"]);
  now += 999;
  assertEquals(push().ok, false);
  now += 1;
  assertEquals([push(), push()].map((v) => v.ok), [true, false]);
});

Deno.test("a reader takes bytes in any pieces and stops for good at the first that are no map", () => {
  const maps = [1, 2, 3].map((n) => signed({ flow: u64be(n) }));
  const bytes = concat(...maps.map(encodeControlMap));
  for (const size of [1, 7, 131, bytes.length]) {
    const reader = new TransitionReader(SERVER, { keys: KEYS, now: () => NOW });
    const verdicts: ControlMapVerdict[] = [];
    for (let i = 0; i < bytes.length; i += size) verdicts.push(...reader.push(bytes.subarray(i, i + size)));
    assertEquals(verdicts, maps.map((map) => ({ ok: true, map })));
    reader.end();
  }
  for (const junk of ["ff", "a1", "00", "40", "5affffffff", "a666707265764154", "bf"]) {
    const reader = new TransitionReader(SERVER, { keys: KEYS, now: () => NOW });
    const feed = () => {
      reader.push(concat(encodeControlMap(maps[0]!), fromHex(junk)));
      reader.push(new Uint8Array(200));
    };
    assertEquals(assertThrows(feed, HtxError).code, "MALFORMED", junk);
    assertEquals(reader.current, undefined);
    assertThrows(() => reader.push(encodeControlMap(maps[1]!)), HtxError);
  }
  const cut = new TransitionReader(SERVER, { keys: KEYS, now: () => NOW });
  cut.push(bytes.subarray(0, 20));
  assertThrows(() => cut.end(), HtxError);
});

Deno.test("after a KEY_UPDATE of the server the earlier map is invalid until a fresh one came", () => {
  const reader = new TransitionReader(SERVER, { keys: KEYS, now: () => NOW });
  const [a, b, c] = [1, 2, 3].map((n) => encodeControlMap(signed({ flow: u64be(n) }))) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  reader.push(a);
  assert(reader.current);
  reader.serverRekeyed();
  assertEquals(reader.current, undefined);
  // One that began before the KEY_UPDATE is not fresh, though it ends after it.
  reader.push(b.subarray(0, 5));
  reader.serverRekeyed();
  assertEquals(reader.push(b.subarray(5)).map((v) => v.ok || v.reason), ["superseded"]);
  assertEquals(reader.current, undefined);
  assertEquals(reader.push(c).map((v) => v.ok), [true]);
  assert(reader.current);
  // The notice overtakes bytes that wait to be read: the position tells.
  const d = encodeControlMap(signed({ flow: u64be(4) }));
  const e = encodeControlMap(signed({ flow: u64be(5) }));
  reader.serverRekeyed(a.length + b.length + c.length + d.length);
  assertEquals(reader.push(concat(d, e)).map((v) => v.ok || v.reason), ["superseded", true]);
});

Deno.test("on arbitrary bytes the codec throws nothing but the typed error, and what it reads it writes", () => {
  const near = fc.tuple(fc.nat(), fc.nat(255)).map(([at, byte]) => {
    const bytes = encodeControlMap(signed());
    bytes[at % bytes.length] = byte;
    return bytes;
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), near), (bytes) => {
      try {
        assertEquals(toHex(encodeControlMap(decodeControlMap(bytes))), toHex(bytes));
      } catch (error) {
        assert(error instanceof HtxError && error.code === "MALFORMED" && error.field !== undefined);
      }
      const reader = new TransitionReader(SERVER, { keys: KEYS, now: () => NOW });
      try {
        for (const verdict of reader.push(bytes)) assert(!verdict.ok || toHex(encodeControlMap(verdict.map)));
      } catch (error) {
        assert(error instanceof HtxError && error.code === "MALFORMED");
      }
    }),
    { numRuns: 400 },
  );
});

/** A session as the two hooks see it: stream 2 from one to the other, and rekeys of the server's direction. */
function session() {
  const abort = new AbortController();
  const channel = new TransformStream<Uint8Array, Uint8Array>();
  const writer = channel.writable.getWriter();
  const server: (() => void)[] = [];
  const client: ((atByte?: number) => void)[] = [];
  let written = 0;
  const common = { handshakeHash: H, remoteStatic: SERVER.remoteStatic, signal: abort.signal };
  const serverCtx: TransitionServerContext = {
    ...common,
    send(bytes) {
      written += bytes.length;
      return writer.write(bytes);
    },
    onRekey: (callback) => void server.push(callback),
  };
  const clientCtx: TransitionClientContext = {
    ...common,
    chunks: channel.readable,
    onRekey: (callback) => void client.push(callback),
  };
  return {
    serverCtx,
    clientCtx,
    rekey() {
      for (const callback of client) callback(written);
      for (const callback of server) callback();
    },
    async end() {
      abort.abort();
      await writer.close();
    },
    writer,
  };
}

/** Values as they come. */
function mailbox<T>() {
  const values: T[] = [];
  let wake = () => {};
  return {
    put(value: T) {
      values.push(value);
      wake();
    },
    async take(): Promise<T> {
      while (values.length === 0) await new Promise<void>((resolve) => wake = resolve);
      return values.shift()!;
    },
    values,
  };
}

Deno.test("the hooks together: a map at once, a fresh one after each rekey, none valid in between", async () => {
  const changes = mailbox<ControlMap | undefined>();
  const verdicts: ControlMapVerdict[] = [];
  const receiver = transitionReceiver({
    keys: KEYS,
    now: () => NOW,
    onChange: (map) => changes.put(map),
    onVerdict: (verdict) => verdicts.push(verdict),
  });
  const sender = transitionSender({ prevAs: 64500n, nextAs: 64501n, privateKey: KEY, now: () => NOW });
  const { serverCtx, clientCtx, rekey, end } = session();
  const done = receiver(clientCtx);
  sender(serverCtx);
  const first = await changes.take();
  assertEquals([first?.prevAs, first?.nextAs], [64500n, 64501n]);
  for (let i = 0; i < 5; i++) {
    rekey();
    assertEquals(await changes.take(), undefined);
    assert(await changes.take());
  }
  sender.announce({ prevAs: 64500n, nextAs: 64502n });
  assertEquals((await changes.take())?.nextAs, 64502n);
  await end();
  await done;
  assertEquals(await changes.take(), undefined, "nothing is in force after the end");
  assertEquals(verdicts.filter((verdict) => !verdict.ok), []);
  assertEquals(
    new Set(verdicts.map(({ map }) => toHex(map.flow))).size,
    7,
    "no FLOW twice, all within one second",
  );
});

Deno.test("onVerdict is told of every map before the bytes that are none, however the stream was cut", async () => {
  const [good, forged, late] = [
    encodeControlMap(signed({ flow: u64be(1) })),
    encodeControlMap({ ...signed({ flow: u64be(2) }), sig: new Uint8Array(64) }),
    encodeControlMap(signed({ ts: 0n })),
  ];
  const bytes = concat(good, forged, late, Uint8Array.of(0xff));
  for (const size of [1, 100, good.length, bytes.length - 1, bytes.length]) {
    const told: unknown[] = [];
    const receiver = transitionReceiver({
      keys: KEYS,
      now: () => NOW,
      onVerdict: (verdict) => {
        told.push(verdict.ok || verdict.reason);
        throw new Error("a hook that fails takes nobody with it");
      },
    });
    const { clientCtx } = session();
    const chunks = ReadableStream.from(function* () {
      for (let i = 0; i < bytes.length; i += size) yield bytes.slice(i, i + size);
    }());
    const error = await assertRejects(() => receiver({ ...clientCtx, chunks }), HtxError);
    assertEquals(error.code, "MALFORMED");
    assertEquals(told, [true, "signature", "time"], `${size} bytes at a time`);
  }
});

Deno.test("the sender waits for room, and sends one map for all the rekeys that came meanwhile", async () => {
  const sent: Uint8Array[] = [];
  const gates: (() => void)[] = [];
  const rekeys: (() => void)[] = [];
  const abort = new AbortController();
  const ctx: TransitionServerContext = {
    handshakeHash: H,
    remoteStatic: SERVER.remoteStatic,
    signal: abort.signal,
    send(bytes) {
      sent.push(bytes);
      return new Promise((resolve) => gates.push(resolve));
    },
    onRekey: (callback) => void rekeys.push(callback),
  };
  transitionSender({ prevAs: 64500n, nextAs: 1n, privateKey: KEY, now: () => NOW })(ctx);
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  await settle();
  assertEquals(sent.length, 1);
  for (let i = 0; i < 1000; i++) rekeys[0]!();
  await settle();
  assertEquals(sent.length, 1);
  gates.shift()!();
  await settle();
  assertEquals(sent.length, 2);
  gates.shift()!();
  await settle();
  assertEquals(sent.length, 2);
  abort.abort();
  rekeys[0]!();
  await settle();
  assertEquals(sent.length, 2);
});

Deno.test("the sender paces itself below what a receiver takes, and stops when the session ends", async () => {
  let sent = 0;
  const rekeys: (() => void)[] = [];
  const abort = new AbortController();
  const ctx: TransitionServerContext = {
    handshakeHash: H,
    remoteStatic: SERVER.remoteStatic,
    signal: abort.signal,
    send: () => {
      sent++;
      return Promise.resolve();
    },
    onRekey: (callback) => void rekeys.push(callback),
  };
  transitionSender({
    prevAs: 64500n,
    nextAs: 1n,
    privateKey: KEY,
    now: () => NOW,
    rate: { burst: 3, perSecond: 1 },
  })(
    ctx,
  );
  for (let i = 0; i < 20; i++) {
    rekeys[0]!();
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals(sent, 3, "the clock stands still, so the bucket stays empty");
  abort.abort(); // and no timer is left behind
});

Deno.test("a client that resets the stream ends the sender's work for that session alone", async () => {
  const ends = mailbox<unknown>();
  const sender = transitionSender({
    prevAs: 64500n,
    nextAs: 1n,
    privateKey: KEY,
    onEnd: (error) => {
      ends.put(error);
      throw new Error("a log that fails"); // and takes nobody with it
    },
  });
  let calls = 0;
  const refused = new HtxError("REFUSED", "Stream was reset", { streamId: 2, remote: true });
  sender({
    ...SERVER,
    signal: new AbortController().signal,
    send: () => {
      calls++;
      return Promise.reject(refused);
    },
    onRekey: () => {},
  });
  assertEquals(await ends.take(), refused);
  sender.announce({ prevAs: 64500n, nextAs: 2n });
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(calls, 1);
});

Deno.test("the receiver's hook rejects on bytes that are no map, and on one cut off", async () => {
  for (const bytes of [fromHex("ffff"), encodeControlMap(signed()).subarray(0, 30)]) {
    const { clientCtx, writer } = session();
    const done = assertRejects(() => transitionReceiver({ keys: KEYS })(clientCtx), HtxError);
    await writer.write(bytes);
    await writer.close().catch(() => {});
    assertEquals((await done).code, "MALFORMED");
  }
});

Deno.test("the sender refuses settings that cannot work, before any session", () => {
  const good = { prevAs: 1n, nextAs: 2n, privateKey: KEY };
  assertThrows(() => transitionSender({ ...good, privateKey: new Uint8Array(31) }), TypeError);
  assertThrows(() => transitionSender({ ...good, nextAs: 2n ** 64n }), RangeError);
  assertThrows(() => transitionSender({ ...good, rate: { burst: 1, perSecond: 0 } }), RangeError);
  const sender = transitionSender(good);
  assertThrows(() => sender.announce({ prevAs: -1n, nextAs: 2n }), RangeError);
});

Deno.test("hooks that throw end neither the sender's session nor the receiver's stream", async () => {
  const fail = () => {
    throw new Error("a log that fails");
  };
  const { serverCtx, clientCtx, rekey, end } = session();
  const verdicts = mailbox<ControlMapVerdict>();
  const done = transitionReceiver({
    keys: KEYS,
    onChange: fail,
    onVerdict: (verdict) => {
      verdicts.put(verdict);
      fail();
    },
  })(clientCtx);
  transitionSender({ prevAs: 64500n, nextAs: 1n, privateKey: KEY, onEnd: fail })(serverCtx);
  assert((await verdicts.take()).ok);
  rekey();
  assert((await verdicts.take()).ok);
  await end();
  await done;
});
