import { assert, assertEquals, assertThrows } from "@std/assert";
import { x25519 } from "@noble/curves/ed25519.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { concat, type CryptoBackend, selectCrypto, toHex } from "../core/mod.ts";
import { encodeBase64Url } from "./_base64url.ts";
import { usedHeap } from "../core/_test_heap.ts";
import { HOUR, isLong, seededRandom, VECTOR } from "./_testing.ts";
import { generateTicketKey, makeTicket, type MakeTicketOptions } from "./client.ts";
import { extractTickets, type FoundTicket } from "./extract.ts";
import { decodeTicket, encodeTicket, type TicketPayload } from "./payload.ts";
import type { RateLimiter } from "./rate_limiter.ts";
import { MemoryRateLimiter } from "./rate_limiter.ts";
import { MemoryReplayStore, type ReplayStore } from "./replay_store.ts";
import {
  TICKET_REFUSALS,
  type TicketRefusal,
  type TicketResult,
  type TicketStep,
  TicketVerifier,
  type TicketVerifierOptions,
} from "./verifier.ts";

const ANY: RateLimiter = { take: () => true };
const NOW = () => VECTOR.now;

/** A verifier of the vector's key at the vector's time, without rate limits. */
function verifierWith(options: Partial<TicketVerifierOptions> = {}): TicketVerifier {
  return new TicketVerifier({ keys: [VECTOR.key], now: NOW, limiter: ANY, ...options });
}

function ticketNow(options: MakeTicketOptions = {}): string {
  return makeTicket(VECTOR.key, { now: NOW, ...options });
}

function changed(text: string, changes: Partial<TicketPayload>): string {
  return encodeTicket({ ...decodeTicket(text), ...changes });
}

function reasonOf(result: TicketResult): TicketRefusal | "ok" {
  return result.ok ? "ok" : result.reason;
}

Deno.test("the vector's ticket verifies in its hour and the hours beside it, and in no other", async () => {
  for (let hours = -30; hours <= 30; hours++) {
    for (const within of [0, 1, HOUR / 2, HOUR - 1]) {
      const now = (VECTOR.hour + hours) * HOUR + within;
      const result = await verifierWith({ now: () => now }).verify(VECTOR.text);
      if (Math.abs(hours) <= 1) {
        assertEquals(result, { ok: true, keyId: "4142434445464748", hour: VECTOR.hour });
      } else assertEquals(result, { ok: false, reason: "proof-failed" });
    }
  }
});

Deno.test("the vector's ticket verifies with each backend", async () => {
  for (const name of ["native", "noble"] as const) {
    assert((await verifierWith({ crypto: selectCrypto(name) }).verify(VECTOR.text)).ok, name);
  }
});

Deno.test("the vector's ticket verifies in each carrier; two carriers, or one twice, are refused", async () => {
  const cookie = `k=v; __Host-bn1=${VECTOR.text}`;
  const target = `/?%62n1=${VECTOR.text}`;
  const form = new TextEncoder().encode(`bn1=${VECTOR.text}`);
  const verify = (parts: Parameters<typeof extractTickets>[0]) =>
    verifierWith().verify(extractTickets(parts).tickets);
  for (const parts of [{ target: "/", cookies: [cookie] }, { target }, { target: "/", form }]) {
    assert((await verify(parts)).ok);
  }
  const twice = [
    { target, cookies: [cookie] },
    { target, form },
    { target: "/", cookies: [cookie], form },
    { target: "/", cookies: [cookie, cookie] },
    { target: `${target}&bn1=${VECTOR.text}` },
    { target: `${target}&bn1=` },
    { target, cookies: ["__Host-bn1=x"] },
  ];
  for (const parts of twice) assertEquals(await verify(parts), { ok: false, reason: "repeated" });
  assertEquals(await verify({ target: "/" }), { ok: false, reason: "missing" });
});

Deno.test("a ticket in a carrier that is switched off is refused, and counts", async () => {
  const verifier = verifierWith({ carriers: ["cookie", "body"] });
  const found: FoundTicket[] = [{ carrier: "query", text: VECTOR.text }];
  assertEquals(await verifier.verify(found), { ok: false, reason: "carrier-refused" });
  assertEquals(
    reasonOf(await verifier.verify([...found, { carrier: "cookie", text: VECTOR.text }])),
    "repeated",
  );
  assert((await verifier.verify([{ carrier: "cookie", text: VECTOR.text }])).ok);
});

Deno.test("e-07: flipping the bit that X25519 ignores, or adding p, gives no second ticket", async () => {
  const verifier = verifierWith();
  const text = ticketNow();
  const flipped = decodeTicket(text).clientPub.slice();
  flipped[31]! |= 0x80;
  assertEquals(reasonOf(await verifier.verify(changed(text, { clientPub: flipped }))), "non-canonical-key");
  // u = 18 has two spellings below 2^255: 18 and 18 + p
  const low = new Uint8Array(32).fill(0xff);
  low[31] = 0x7f;
  assertEquals(reasonOf(await verifier.verify(changed(text, { clientPub: low }))), "non-canonical-key");
  assert((await verifier.verify(text)).ok);
});

Deno.test("e-07: adding a point of low order to the client's key gives no second ticket", async () => {
  const verifier = verifierWith();
  const scalar = new Uint8Array(32).fill(0x55);
  const text = ticketNow({ ephemeralPrivateKeyForTestingOnly: scalar });
  const clientPub = decodeTicket(text).clientPub;
  assert((await verifier.verify(text)).ok);

  const { Point } = ed25519;
  const clamped = scalar.slice();
  clamped[0]! &= 248;
  clamped[31] = (clamped[31]! & 127) | 64;
  const number = BigInt(`0x${toHex(clamped.toReversed())}`);
  const own = Point.BASE.multiplyUnsafe(number % Point.Fn.ORDER);
  const p = Point.Fp;
  const toU = (point: typeof own) => {
    const { y } = point.toAffine();
    return p.toBytes(p.div(p.add(p.ONE, y), p.sub(p.ONE, y))); // RFC 7748 §4.1
  };
  assertEquals(new Uint8Array(toU(own)), new Uint8Array(clientPub));

  const torsion = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"); // order 8
  const spellings = new Set<string>();
  let point = own;
  for (let i = 1; i < 8; i++) {
    point = point.add(torsion);
    const spelling = new Uint8Array(toU(point));
    spellings.add(toHex(spelling));
    // The attack as such works: the shared value is the same.
    assertEquals(
      x25519.getSharedSecret(VECTOR.key.privateKey, spelling),
      x25519.getSharedSecret(VECTOR.key.privateKey, clientPub),
    );
    assertEquals(await verifier.verify(changed(text, { clientPub: spelling })), {
      ok: false,
      reason: "replayed",
    });
  }
  assertEquals(spellings.size, 7);
});

Deno.test("a ticket under another nonce or pad is the same ticket", async () => {
  const verifier = verifierWith();
  const text = ticketNow();
  assert((await verifier.verify(text)).ok);
  assertEquals(reasonOf(await verifier.verify(changed(text, { nonce: new Uint8Array(32) }))), "replayed");
  assertEquals(reasonOf(await verifier.verify(changed(text, { pad: new Uint8Array(64) }))), "replayed");
});

Deno.test("e-08: no ticket is accepted twice from the start of hour-1 to the end of hour+1", async () => {
  const spans = [[0, 3 * HOUR - 1], [1, HOUR], [HOUR - 1, 2 * HOUR], [HOUR / 2, 3 * HOUR - 1]] as const;
  for (const [first] of spans) {
    let now = (VECTOR.hour - 1) * HOUR + first;
    const verifier = verifierWith({ now: () => now });
    assert((await verifier.verify(VECTOR.text)).ok);
    for (; now < (VECTOR.hour + 3) * HOUR; now += 5 * 60_000) {
      const reason = reasonOf(await verifier.verify(VECTOR.text));
      assertEquals(reason, now < (VECTOR.hour + 2) * HOUR ? "replayed" : "proof-failed");
    }
  }
});

Deno.test("e-08: a clock that ran ahead and was set back accepts no ticket again", async () => {
  for (const ahead of [2, 3, 4, 5, 100]) {
    let now = VECTOR.now;
    const verifier = verifierWith({ now: () => now });
    assert((await verifier.verify(VECTOR.text)).ok);
    now += ahead * HOUR;
    await verifier.verify(makeTicket(VECTOR.key, { now: () => now })); // makes the store forget what it may
    now = VECTOR.now;
    const reason = reasonOf(await verifier.verify(VECTOR.text));
    assert(reason === "replayed" || reason === "expired", reason);
  }
});

Deno.test("e-09: of 1000 presentations at once one is accepted", async () => {
  const verifier = verifierWith();
  const results = await Promise.all(Array.from({ length: 1000 }, () => verifier.verify(VECTOR.text)));
  assertEquals(results.filter((result) => result.ok).length, 1);
  assert(results.every((result) => result.ok || result.reason === "replayed"));
});

Deno.test("e-10: a full store refuses and forgets nobody", async () => {
  const verifier = verifierWith({ replay: new MemoryReplayStore({ capacity: 2 }) });
  const tickets = [ticketNow(), ticketNow(), ticketNow()];
  assert((await verifier.verify(tickets[0]!)).ok);
  assert((await verifier.verify(tickets[1]!)).ok);
  assertEquals(reasonOf(await verifier.verify(tickets[2]!)), "store-full");
  for (const ticket of tickets.slice(0, 2)) assertEquals(reasonOf(await verifier.verify(ticket)), "replayed");
});

Deno.test("a store or limiter that fails closes the door; rate limits fail open only when asked to", async () => {
  const failing = () => Promise.reject(new Error("down"));
  const errors: unknown[] = [];
  const onStoreError = (error: unknown) => void errors.push(error);
  const replay: ReplayStore = { checkAndRecord: failing, touch: failing };
  assertEquals(reasonOf(await verifierWith({ replay, onStoreError }).verify(ticketNow())), "store-failed");
  assertEquals(reasonOf(await verifierWith({ replay, onStoreError }).verify("")), "malformed");
  const throwing: RateLimiter = {
    take() {
      throw new Error("down");
    },
  };
  assertEquals(
    reasonOf(await verifierWith({ limiter: throwing, onStoreError }).verify(ticketNow())),
    "store-failed",
  );
  assertEquals(errors.length, 3);
  assert((await verifierWith({ limiter: throwing, failOpenRateLimits: true }).verify(ticketNow())).ok);
  const closed = verifierWith({ replay, failOpenRateLimits: true });
  assertEquals(reasonOf(await closed.verify(ticketNow())), "store-failed");
});

Deno.test("verify() does not reject when the clock gives no number, or a log throws", async () => {
  const told: unknown[] = [];
  const onStoreError = (error: unknown) => {
    told.push(error);
    throw new Error("a log that fails");
  };
  const broken = new Error("no such table");
  const fail = () => {
    throw broken;
  };
  const refused: TicketResult = { ok: false, reason: "store-failed" };
  const replay = { checkAndRecord: fail };
  assertEquals(await verifierWith({ replay, onStoreError }).verify(VECTOR.text), refused);
  assertEquals(await verifierWith({ limiter: { take: fail }, onStoreError }).verify(VECTOR.text), refused);
  assertEquals(told, [broken, broken]);
  for (const now of [NaN, Infinity]) {
    for (const presented of [VECTOR.text, ""]) {
      assertEquals(await verifierWith({ now: () => now, onStoreError }).verify(presented), refused);
    }
  }
  assertEquals(told.length, 6);
  assert((await verifierWith({ onStep: fail }).verify(VECTOR.text)).ok);
});

Deno.test("e-40: every part of the proof is needed", async () => {
  const verifier = verifierWith();
  const text = ticketNow();
  const accessTicket = decodeTicket(text).accessTicket;
  for (let i = 0; i < 32; i++) {
    const flipped = accessTicket.slice();
    flipped[i]! ^= 1 << (i % 8);
    assertEquals(reasonOf(await verifier.verify(changed(text, { accessTicket: flipped }))), "proof-failed");
  }
  const other = decodeTicket(ticketNow());
  assertEquals(
    reasonOf(await verifier.verify(changed(text, { clientPub: other.clientPub }))),
    "proof-failed",
  );
  assertEquals(
    reasonOf(await verifier.verify(changed(text, { accessTicket: other.accessTicket }))),
    "proof-failed",
  );
  assert((await verifier.verify(text)).ok);
});

Deno.test("a client key of low order is refused, though anybody can compute its proof", async () => {
  const zeros = new Uint8Array(32);
  const crypto = selectCrypto();
  const shared = zeros;
  const { deriveAccessTicket, deriveTicketSalt } = await import("./payload.ts");
  const salt = deriveTicketSalt(crypto, VECTOR.key.keyId, VECTOR.hour);
  const forged = { ...decodeTicket(VECTOR.text), accessTicket: deriveAccessTicket(crypto, shared, salt) };
  const one = zeros.slice();
  one[0] = 1;
  for (const clientPub of [zeros, one]) {
    assertEquals(
      reasonOf(await verifierWith().verify(encodeTicket({ ...forged, clientPub }))),
      "low-order-key",
    );
  }
});

/** The steps of a verification. */
function stepsOf(options: Partial<TicketVerifierOptions> = {}) {
  const steps: TicketStep[] = [];
  const real: TicketStep[] = [];
  const verifier = verifierWith({
    onStep: (step, dummy) => {
      steps.push(step);
      if (!dummy) real.push(step);
    },
    ...options,
  });
  return { steps, real, verifier };
}

Deno.test("e-11, e-17: an unknown key id, an unusable key or an empty bucket is refused before any key exchange", async () => {
  const bad: [reason: TicketRefusal, text: string | FoundTicket[], limiter?: RateLimiter][] = [
    ["missing", []],
    ["malformed", "x"],
    ["malformed", `${VECTOR.text.slice(0, -1)}!`],
    ["wrong-version", encodeBase64Url(concat(Uint8Array.of(2), VECTOR.payload.subarray(1)))],
    ["unknown-key", changed(VECTOR.text, { ticketKeyId: new Uint8Array(8) })],
    ["non-canonical-key", changed(VECTOR.text, { clientPub: new Uint8Array(32).fill(0xff) })],
    ["rate-limited", VECTOR.text, { take: () => false }],
  ];
  for (const [reason, text, limiter = ANY] of bad) {
    const off = stepsOf({ limiter, equalize: "off" });
    assertEquals(reasonOf(await off.verifier.verify(text)), reason);
    assertEquals(off.steps, [], reason);
    const work = stepsOf({ limiter });
    assertEquals(reasonOf(await work.verifier.verify(text)), reason);
    assertEquals(work.real, [], reason);
  }
});

Deno.test("e-17: what is refused before the bucket charges none", async () => {
  const buckets: string[] = [];
  const limiter: RateLimiter = {
    take: (bucket) => {
      buckets.push(bucket);
      return true;
    },
  };
  const verifier = verifierWith({ limiter });
  await verifier.verify("x", { address: "192.0.2.1" });
  await verifier.verify([], { address: "192.0.2.1" });
  await verifier.verify(changed(VECTOR.text, { ticketKeyId: new Uint8Array(8) }), { address: "192.0.2.1" });
  assertEquals(buckets, []);
  await verifier.verify(VECTOR.text, { address: "::ffff:192.0.2.1" });
  await verifier.verify(VECTOR.text);
  assertEquals(buckets, ["4:c00002", "unknown"]);
});

Deno.test("e-17: forty tickets at once from one network, then one every three seconds", async () => {
  let now = VECTOR.now;
  const verifier = verifierWith({ limiter: new MemoryRateLimiter(), now: () => now });
  const show = async (address: string) => reasonOf(await verifier.verify(ticketNow(), { address }));
  for (let i = 0; i < 40; i++) assertEquals(await show(`192.0.2.${i}`), "ok");
  assertEquals(await show("192.0.2.200"), "rate-limited");
  assertEquals(await show("192.0.3.1"), "ok");
  now += 3_000;
  assertEquals(await show("::ffff:192.0.2.7"), "ok");
  assertEquals(await show("192.0.2.7"), "rate-limited");
});

/** A backend whose calls are counted. */
function counted(crypto: CryptoBackend, calls: string[]): CryptoBackend {
  return {
    ...crypto,
    name: crypto.name,
    chacha20Poly1305: (key) => crypto.chacha20Poly1305(key),
    mlKem768: (seed) => crypto.mlKem768(seed),
    mlKem768Encapsulate: (key) => crypto.mlKem768Encapsulate(key),
    randomBytes: (length) => crypto.randomBytes(length),
    hmacSha256: (key, ...parts) => {
      calls.push("hmac");
      return crypto.hmacSha256(key, ...parts);
    },
    sha256: (...parts) => {
      calls.push("sha256");
      return crypto.sha256(...parts);
    },
    hkdfSha256: (ikm, salt, info, length) => {
      calls.push("hkdf");
      return crypto.hkdfSha256(ikm, salt, info, length);
    },
    x25519: (privateKey) => {
      const key = crypto.x25519(privateKey);
      return {
        publicKey: key.publicKey,
        wipe: () => key.wipe(),
        dh: (peer) => {
          calls.push("x25519");
          return key.dh(peer);
        },
      };
    },
  };
}

Deno.test("e-14: every refusal takes the same counted sequence of expensive steps, which a good ticket takes too", async () => {
  const calls: string[] = [];
  const trips: string[] = [];
  const memory = new MemoryReplayStore();
  let full = false;
  const replay: ReplayStore = {
    checkAndRecord: (claim) => {
      trips.push("trip");
      return full ? "full" : memory.checkAndRecord(claim);
    },
    touch: () => void trips.push("trip"),
  };
  let open = true;
  const steps: TicketStep[] = [];
  const verifier = verifierWith({
    crypto: counted(selectCrypto(), calls),
    replay,
    limiter: { take: () => open },
    carriers: ["query", "body"],
    onStep: (step) => void steps.push(step),
  });
  await verifier.verify(ticketNow()); // the salts of the hour are made once
  const good = ticketNow();
  const kinds: [reason: TicketRefusal | "ok", text: string | FoundTicket[]][] = [
    ["ok", good],
    ["replayed", good],
    ["missing", []],
    ["repeated", [{ carrier: "query", text: good }, { carrier: "body", text: good }]],
    ["carrier-refused", [{ carrier: "cookie", text: ticketNow() }]],
    ["malformed", ""],
    ["malformed", "A".repeat(1_000_000)],
    ["wrong-version", encodeBase64Url(new Uint8Array(130))],
    ["unknown-key", changed(good, { ticketKeyId: new Uint8Array(8) })],
    ["non-canonical-key", changed(good, { clientPub: new Uint8Array(32).fill(0xff) })],
    ["low-order-key", changed(good, { clientPub: new Uint8Array(32) })],
    ["proof-failed", changed(good, { accessTicket: new Uint8Array(32) })],
    ["rate-limited", ticketNow()],
    ["store-full", ticketNow()],
  ];
  for (const [reason, text] of kinds) {
    calls.length = trips.length = steps.length = 0;
    open = reason !== "rate-limited";
    full = reason === "store-full";
    assertEquals(reasonOf(await verifier.verify(text)), reason);
    assertEquals(calls, ["x25519", "hkdf", "hkdf", "hkdf", "sha256"], reason);
    assertEquals(trips, ["trip"], reason);
    assertEquals(steps, ["key-exchange", "derive", "derive", "derive", "hash", "store"], reason);
  }
});

Deno.test("e-14: with equalize delay every refusal waits for 0 to 2 ms, and a good ticket does not", async () => {
  const waits: number[] = [];
  const sleep = (ms: number) => {
    waits.push(ms);
    return Promise.resolve();
  };
  const draws = [0x00, 0x80, 0xff];
  const random = (length: number) => new Uint8Array(length).fill(draws.shift()!);
  const verifier = verifierWith({ equalize: "delay", sleep, random });
  const good = ticketNow();
  assertEquals(reasonOf(await verifier.verify("")), "malformed");
  assert((await verifier.verify(good)).ok);
  assertEquals(reasonOf(await verifier.verify(good)), "replayed");
  assertEquals(reasonOf(await verifier.verify([])), "missing");
  assertEquals(waits.length, 3);
  assertEquals(waits[0], 0);
  assert(waits[1]! > 0.99 && waits[1]! < 1.01 && waits[2]! > 1.99 && waits[2]! < 2);
});

Deno.test("several keys are live during rotation, and one that was dropped is unknown at once", async () => {
  const [old, next] = [generateTicketKey(), generateTicketKey()];
  const verifier = verifierWith({ keys: [old] });
  const of = (key: typeof old) => makeTicket(key, { now: NOW });
  const spent = of(old);
  assert((await verifier.verify(spent)).ok);
  assertEquals(reasonOf(await verifier.verify(of(next))), "unknown-key");
  verifier.setKeys([next, old]);
  assertEquals(verifier.keyIds, [toHex(next.keyId), toHex(old.keyId)]);
  assert((await verifier.verify(of(next))).ok);
  assert((await verifier.verify(of(old))).ok);
  assertEquals(reasonOf(await verifier.verify(spent)), "replayed");
  verifier.setKeys([next]);
  assertEquals(reasonOf(await verifier.verify(of(old))), "unknown-key");
  assert((await verifier.verify(of(next))).ok);
  // a ticket of one key does not pass as one of another
  const crossed = changed(of(old), { ticketKeyId: next.keyId });
  assertEquals(reasonOf(await verifier.verify(crossed)), "proof-failed");
});

Deno.test("a key dropped while the limiter thinks is unknown", async () => {
  const [old, next] = [generateTicketKey(), generateTicketKey()];
  const limiter: RateLimiter = {
    take: () => {
      verifier.setKeys([next]);
      return Promise.resolve(true);
    },
  };
  const verifier: TicketVerifier = verifierWith({ keys: [old], limiter });
  assertEquals(reasonOf(await verifier.verify(makeTicket(old, { now: NOW }))), "unknown-key");
});

Deno.test("unusable keys are the caller's mistake, and change nothing", async () => {
  const key = generateTicketKey();
  assertThrows(() => new TicketVerifier({ keys: [] }), TypeError, "none");
  assertThrows(() => new TicketVerifier({ keys: [key, key] }), TypeError, "two of them");
  assertThrows(() => new TicketVerifier({ keys: [{ ...key, privateKey: new Uint8Array(31) }] }), RangeError);
  const verifier = verifierWith({ keys: [key] });
  assertThrows(() => verifier.setKeys([{ ...key, keyId: new Uint8Array(9) }]), RangeError);
  assertThrows(() => verifier.setKeys([]), TypeError);
  assert((await verifier.verify(makeTicket(key, { now: NOW }))).ok);
  // the keys are copies
  const own = { keyId: key.keyId.slice(), privateKey: key.privateKey.slice() };
  const copying = verifierWith({ keys: [own] });
  own.privateKey.fill(0);
  own.keyId.fill(0);
  assert((await copying.verify(makeTicket(key, { now: NOW }))).ok);
});

Deno.test("the list of refusals is complete and has no doubles", () => {
  const all: Record<TicketRefusal, true> = {
    missing: true,
    repeated: true,
    "carrier-refused": true,
    malformed: true,
    "wrong-version": true,
    "unknown-key": true,
    "non-canonical-key": true,
    "rate-limited": true,
    "low-order-key": true,
    "proof-failed": true,
    replayed: true,
    expired: true,
    "store-full": true,
    "store-failed": true,
  };
  assertEquals([...TICKET_REFUSALS].sort(), Object.keys(all).sort() as TicketRefusal[]);
});

Deno.test("verify() near the beginning of time refuses and does not throw", async () => {
  for (const now of [0, 1, HOUR - 1, HOUR, -5]) {
    assertEquals(reasonOf(await verifierWith({ now: () => now }).verify(VECTOR.text)), "proof-failed");
  }
});

Deno.test("e-16: random and mutated tickets: none is admitted, none throws, memory stays flat", async () => {
  const cases = isLong() ? 1_000_000 : 62_500;
  const random = seededRandom(`mutations ${cases}`);
  const replay = new MemoryReplayStore();
  const limiter = new MemoryRateLimiter();
  let steps = 0;
  const verifier = verifierWith({ replay, limiter, equalize: "off", onStep: () => void steps++ });
  const good = Array.from({ length: 16 }, () => ticketNow());
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/%&; \0";
  let before = 0;
  for (let i = 0; i < cases; i++) {
    if (i === cases >> 1) before = await usedHeap();
    const [kind = 0, a = 0, b = 0, c = 0] = random(4);
    const text = good[a % good.length]!;
    // pad and nonce are bound to nothing: what changes there alone is the same ticket, so mutations stay off them
    const at = (b * 256 + c) % 172;
    const bound = at < 54 || (at >= 98 && at < 139) ? at : at % 54;
    let mutated: string;
    switch (kind % 6) {
      case 0:
        mutated = encodeBase64Url(random(100 + b % 80));
        break;
      case 1: {
        const bytes = random(129 + b % 41);
        bytes.set(VECTOR.payload.subarray(0, 1 + (c & 1) * 40)); // the version, and at times key and key id
        mutated = encodeBase64Url(bytes);
        break;
      }
      case 2: {
        const letter = letters[c % letters.length]!;
        if (letter === text[bound]) continue;
        mutated = text.slice(0, bound) + letter + text.slice(bound + 1);
        break;
      }
      case 3:
        mutated = text.slice(0, at);
        break;
      case 4:
        mutated = text.slice(0, bound) + text.slice(bound + 1);
        break;
      default:
        mutated = text.slice(0, bound) + letters[c % letters.length]! + text.slice(bound);
        if (mutated.slice(0, 139) === text.slice(0, 139)) continue;
    }
    const address = `10.${a}.${b}.${c}`;
    const result = await verifier.verify(mutated, { address });
    assert(!result.ok, mutated);
    assert(result.reason !== "store-failed" && result.reason !== "replayed");
  }
  assertEquals(replay.size, 0);
  assert(limiter.size <= 65_536);
  assert(steps > 0, "some came as far as the key exchange");
  const grown = await usedHeap() - before;
  assert(grown < 8 * 2 ** 20, `the heap grew by ${grown} bytes in the second half`);
  assert((await verifier.verify(good[0]!, { address: "192.0.2.1" })).ok);
});
