import { assert, assertEquals, assertThrows } from "@std/assert";
import { ed25519, ed25519_FROST } from "@noble/curves/ed25519.js";
import fc from "fast-check";
import { concatAll } from "../core/bytes.ts";
import {
  concat,
  ed25519PublicKey,
  ed25519Sign,
  HtxError,
  selectCrypto,
  toHex,
  u64be,
  utf8,
} from "../core/mod.ts";
import {
  encodeVoucher,
  type Keyset,
  keysetId,
  makeKeyset,
  parseVoucher,
  settlementDue,
  verifyMintAdvert,
  verifyVoucher,
  VoucherGate,
  type VoucherVerdict,
} from "./payments.ts";

const GROUP_KEY = new Uint8Array(32).fill(1);
const members = (count: number, first = 10) =>
  Array.from({ length: count }, (_, i) => ed25519PublicKey(new Uint8Array(32).fill(first + i)));

function keyset(groupKey = ed25519PublicKey(GROUP_KEY), first = 10): Keyset {
  const verdict = makeKeyset(members(5, first), groupKey);
  assert(verdict.ok);
  return verdict.keyset;
}
const KEYSET = keyset();
const secretOf = (n: number) => selectCrypto().sha256(u64be(n));
const voucher = (n: number, { id } = KEYSET, key = GROUP_KEY) =>
  encodeVoucher({ keysetId: id, secret: secretOf(n), aggregateSig: ed25519Sign(secretOf(n), key) });
const outcome = (verdict: VoucherVerdict) => verdict.ok ? "ok" : verdict.reason;

Deno.test("keysetId() is the hash of the members in order of their bytes", () => {
  const [a, b, c] = [0x02, 0xff, 0x10].map((byte) => new Uint8Array(32).fill(byte)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const id = selectCrypto().sha256(concat(a, c, b));
  assertEquals(keysetId([a, b, c]), id);
  assertEquals(keysetId([c, b, a]), id);
  assertThrows(() => keysetId([new Uint8Array(31)]), TypeError);
});

Deno.test("a mint has 5 members or more, each once, and a threshold of 3", () => {
  const key = new Uint8Array(32);
  const rows: [Uint8Array[], number, string][] = [
    [members(4), 3, "too-few-members"],
    [members(5), 3, "ok"],
    [members(9), 3, "ok"],
    [members(5), 2, "threshold"],
    [members(5), 4, "threshold"],
    [[...members(5), members(1)[0]!], 3, "duplicate-member"],
  ];
  for (const [keys, threshold, expected] of rows) {
    const verdict = makeKeyset(keys, key, threshold);
    assertEquals(verdict.ok ? "ok" : verdict.reason, expected);
  }
});

Deno.test("keysetId() takes as many members as an advert may name", () => {
  const many = Array.from({ length: 150_000 }, (_, i) => concat(u64be(i), new Uint8Array(24)));
  assertEquals(keysetId(many.toReversed()), selectCrypto().sha256(concatAll(many)));
});

Deno.test("a FROST signature of any 3 of 5 verifies as a voucher, one of 2 does not come to be", () => {
  const { public: group, secretShares } = ed25519_FROST.trustedDealer({ min: 3, max: 5 });
  const ids = Object.keys(secretShares);
  const set = keyset(new Uint8Array(group.commitments[0]!));
  const secret = secretOf(77);
  const sign = (signers: string[]) => {
    const rounds = signers.map((id) => ({ id, ...ed25519_FROST.commit(secretShares[id]!) }));
    const list = rounds.map(({ commitments }) => commitments);
    const shares = Object.fromEntries(
      rounds.map((
        { id, nonces },
      ) => [id, ed25519_FROST.signShare(secretShares[id]!, group, nonces, list, secret)]),
    );
    return new Uint8Array(ed25519_FROST.aggregate(group, list, secret, shares));
  };
  for (const signers of [ids.slice(0, 3), ids.slice(2), [ids[0]!, ids[2]!, ids[4]!]]) {
    const aggregateSig = sign(signers);
    const bytes = encodeVoucher({ keysetId: set.id, secret, aggregateSig });
    assertEquals(verifyVoucher(parseVoucher(bytes), set), { ok: true });
    assertEquals(outcome(new VoucherGate({ keysets: [set] }).accept(bytes, "p")), "ok");
  }
  let few;
  try {
    few = sign(ids.slice(0, 2));
  } catch {
    return;
  }
  assertEquals(verifyVoucher({ keysetId: set.id, secret, aggregateSig: few }, set).ok, false);
});

Deno.test("e-30: garbage, unsigned, spent and unknown are all refused", () => {
  const gate = new VoucherGate({ keysets: [KEYSET], maxParked: 0 });
  for (const length of [0, 1, 127, 129]) {
    const error = assertThrows(() => gate.accept(new Uint8Array(length), "p"), HtxError);
    assertEquals([error.code, error.field], ["MALFORMED", "voucher"]);
  }
  const good = voucher(1);
  const unsigned = good.slice();
  unsigned.fill(0, 64);
  assertEquals(outcome(gate.accept(new Uint8Array(128), "p")), "unknown-keyset");
  assertEquals(outcome(gate.accept(crypto.getRandomValues(new Uint8Array(128)), "p")), "unknown-keyset");
  assertEquals(outcome(gate.accept(unsigned, "p")), "signature");
  assertEquals(outcome(gate.accept(voucher(1, KEYSET, new Uint8Array(32)), "p")), "signature");
  const verdict = gate.accept(good, "p");
  assert(verdict.ok, "a refused forgery did not spend the secret");
  assertEquals(encodeVoucher(verdict.voucher), good);
  assertEquals(outcome(gate.accept(good, "p")), "spent");
  assertEquals(outcome(gate.accept(good, "other peer")), "spent");
  assertEquals([...gate.spent()], [toHex(secretOf(1))]);
});

Deno.test("e-30: a voucher with any one bit changed is refused", () => {
  const gate = new VoucherGate({ keysets: [KEYSET], maxParked: 0, peerRate: { burst: 1e6, perSecond: 0 } });
  const good = voucher(1);
  for (let bit = 0; bit < 1024; bit += 5) {
    const bytes = good.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assertEquals(outcome(gate.accept(bytes, "p")), bit < 256 ? "unknown-keyset" : "signature");
  }
  assertEquals(outcome(gate.accept(good, "p")), "ok");
});

Deno.test("a voucher's signature is verified strictly: no S + q, no key of small order", () => {
  const good = parseVoucher(voucher(1));
  const s = ed25519.Point.Fn.fromBytes(good.aggregateSig.subarray(32));
  let rest = s + ed25519.Point.Fn.ORDER;
  const sig = good.aggregateSig.slice();
  for (let i = 32; i < 64; i++, rest >>= 8n) sig[i] = Number(rest & 0xffn);
  assertEquals(verifyVoucher({ ...good, aggregateSig: sig }, KEYSET), { ok: false, reason: "signature" });

  const identity = new Uint8Array(32);
  identity[0] = 1;
  const anything = concat(identity, new Uint8Array(32));
  assert(
    ed25519.verify(anything, good.secret, identity, { zip215: true }),
    "ZIP-215 takes this for a signature",
  );
  const weak = { ...KEYSET, groupKey: identity };
  assertEquals(verifyVoucher({ ...good, aggregateSig: anything }, weak), { ok: false, reason: "signature" });
  assertEquals(verifyVoucher(good, keyset(undefined, 50)), { ok: false, reason: "other-keyset" });
});

Deno.test("a secret is spent once, under whatever keyset it comes next", () => {
  const other = keyset(undefined, 50);
  const gate = new VoucherGate({ keysets: [KEYSET, other] });
  assertEquals(outcome(gate.accept(voucher(1), "p")), "ok");
  assertEquals(outcome(gate.accept(voucher(1, other), "p")), "spent");
  // What an earlier process spent.
  const next = new VoucherGate({ keysets: [KEYSET] });
  for (const secret of gate.spent()) next.markSpent(secret);
  assertEquals(outcome(next.accept(voucher(1), "p")), "spent");
  assertThrows(() => next.markSpent("xyz"), TypeError);
});

Deno.test("vouchers of an unknown keyset wait, bounded, and are judged when it is known", () => {
  const gate = new VoucherGate({ maxParked: 3 });
  const forged = voucher(9).fill(7, 64);
  const rows: [Uint8Array, boolean][] = [
    [voucher(1), true],
    [voucher(1), true], // the same again takes no second place
    [forged, true],
    [voucher(2, keyset(undefined, 50)), true],
    [voucher(3), false],
    [voucher(1), true],
  ];
  for (const [bytes, parked] of rows) {
    assertEquals(gate.accept(bytes, "p"), { ok: false, reason: "unknown-keyset", parked });
  }
  assertEquals(gate.parked, 3);
  assertEquals(gate.addKeyset(KEYSET).map(({ peer, verdict }) => [peer, outcome(verdict)]), [
    ["p", "ok"],
    ["p", "signature"],
  ]);
  assertEquals(gate.parked, 1);
  assertEquals(outcome(gate.accept(voucher(1), "p")), "spent");
  gate.removeKeyset(KEYSET.id);
  assertEquals(outcome(gate.accept(voucher(4), "p")), "unknown-keyset");
});

/** A voucher of a keyset that nobody knows. */
const junk = (n: number) => concat(new Uint8Array(32).fill(0xee), secretOf(n), new Uint8Array(64));

Deno.test("one peer's junk does not close parking for the others", () => {
  const gate = new VoucherGate({ maxParked: 6, now: () => 0 });
  const parks = (bytes: Uint8Array, peer: string) => {
    const verdict = gate.accept(bytes, peer);
    return !verdict.ok && verdict.parked;
  };
  for (let n = 0; n < 6; n++) assert(parks(junk(n), "mallory"));
  assertEquals([parks(junk(6), "mallory"), parks(junk(0), "mallory")], [false, true]);
  // Up to an even share, and no further.
  assertEquals([1, 2, 3].map((n) => parks(voucher(n), "honest")), [true, true, true]);
  assertEquals([parks(voucher(4), "honest"), parks(junk(7), "mallory")], [false, false]);
  assert(parks(voucher(5), "third"));
  assertEquals(gate.parked, 6);
  const judged = gate.addKeyset(KEYSET).map(({ peer, verdict }) => [peer, outcome(verdict)]);
  assert(judged.filter(([peer, verdict]) => peer === "honest" && verdict === "ok").length >= 2);
  assert(judged.some(([peer]) => peer === "third"));
});

Deno.test("junk of many names closes parking no longer than a voucher is kept, also when the clock is set back", () => {
  let now = 4e12;
  const gate = new VoucherGate({ maxParked: 4, parkedMs: 1_000, now: () => now });
  const parks = (bytes: Uint8Array) => {
    const verdict = gate.accept(bytes, toHex(bytes.subarray(32, 64)));
    return !verdict.ok && verdict.parked;
  };
  for (let n = 0; n < 4; n++) assert(parks(junk(n)));
  now += 999;
  assertEquals([parks(voucher(1)), gate.parked], [false, 4]);
  now += 1;
  assertEquals([gate.parked, parks(voucher(1)), gate.parked], [0, true, 1]);
  now = 1.8e12;
  assertEquals([gate.parked, parks(voucher(2))], [0, true]);
  now += 1_000;
  assertEquals(gate.addKeyset(KEYSET), [], "what is no longer kept is not judged");
  for (const parkedMs of [0, -1, NaN]) assertThrows(() => new VoucherGate({ parkedMs }), RangeError);
});

Deno.test("a clock that gives no time spends nothing, and what is parked waits on", () => {
  let now = 0;
  const gate = new VoucherGate({ now: () => now });
  gate.accept(voucher(1), "p");
  for (const none of [NaN, Infinity, -Infinity]) {
    now = none;
    assertEquals(gate.parked, 1, `${none}`);
    assertEquals(assertThrows(() => gate.accept(voucher(2), "p"), HtxError).code, "INTERNAL_ERROR");
  }
  assertEquals(gate.addKeyset(KEYSET).map(({ verdict }) => outcome(verdict)), ["ok"]);
});

Deno.test("a full memory refuses and forgets nothing", () => {
  const gate = new VoucherGate({ keysets: [KEYSET], maxSpent: 2 });
  assertEquals([1, 2, 3, 1].map((n) => outcome(gate.accept(voucher(n), "p"))), [
    "ok",
    "ok",
    "store-full",
    "spent",
  ]);
});

Deno.test("each keyset and each peer has its bucket", () => {
  let now = 0;
  const options = { keysets: [KEYSET], now: () => now };
  const byPeer = new VoucherGate({ ...options, peerRate: { burst: 2, perSecond: 1 } });
  assertEquals([1, 2, 3].map((n) => outcome(byPeer.accept(voucher(n), "p"))), ["ok", "ok", "peer-rate"]);
  assertEquals(outcome(byPeer.accept(voucher(4), "q")), "ok");
  now = 999;
  assertEquals(outcome(byPeer.accept(voucher(3), "p")), "peer-rate");
  now = 1_000;
  assertEquals(outcome(byPeer.accept(voucher(3), "p")), "ok");
  const bySet = new VoucherGate({ ...options, keysetRate: { burst: 2, perSecond: 0 } });
  assertEquals([1, 2, 3].map((n) => outcome(bySet.accept(voucher(n), `${n}`))), ["ok", "ok", "keyset-rate"]);
  assertThrows(() => new VoucherGate({ peerRate: { burst: 0, perSecond: 1 } }), RangeError);
  assertThrows(() => new VoucherGate({ maxSpent: NaN }), RangeError);
});

Deno.test("parseVoucher() and encodeVoucher() are each other's inverse, and any other length is the typed error", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 120, maxLength: 136 }), (bytes) => {
    try {
      assertEquals(encodeVoucher(parseVoucher(bytes)), new Uint8Array(bytes));
      assertEquals(bytes.length, 128);
    } catch (error) {
      assert(error instanceof HtxError && error.field === "voucher" && bytes.length !== 128);
    }
  }));
  assertThrows(() => encodeVoucher({ ...parseVoucher(voucher(1)), secret: new Uint8Array(31) }), TypeError);
});

Deno.test("settlement is due from 10 000 sat", () => {
  assertEquals([0n, 9_999n, 10_000n, 10_001n].map((sat) => settlementDue(sat).due), [
    false,
    false,
    true,
    true,
  ]);
  assertThrows(() => settlementDue(-1n), RangeError);
});

Deno.test("a mint's advert carries 22 bits of work", () => {
  const advert = new Uint8Array(32);
  advert.set(utf8("betanet pow challenge"));
  assertEquals(verifyMintAdvert(advert, u64be(9970433)).ok, false); // 21 bits
  assertEquals(verifyMintAdvert(advert, u64be(11021951)).ok, true); // 22 bits
});
