import { assert, assertEquals, assertFalse, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { inspect } from "node:util";
import {
  type ByteIo,
  type Bytes,
  concat,
  type CryptoBackend,
  fromHex,
  HtxError,
  isCanonicalX25519,
  selectCrypto,
  toHex,
  utf8,
} from "../core/mod.ts";
import {
  checkInitiateOptions,
  initiate,
  type InitiateOptions,
  prepareInitiator,
  respond,
  type RespondOptions,
} from "./handshake.ts";
import { HandshakeState } from "./handshake_state.ts";
import { KeyPair } from "./key_pair.ts";
import { XK, XKhfs } from "./patterns.ts";
import { ReplayGuard } from "./replay_guard.ts";
import { memoryIo, type TestIo } from "./testdata/memory_io.ts";
import { bytes, type HtxHandshake, local, shared, sides } from "./testdata/vectors.ts";

const native = selectCrypto("native");
const server = KeyPair.generate();
const client = KeyPair.generate();
const FORMS = ["require", "off"] as const;
const EMPTY = new Uint8Array(0);

function dial(io: ByteIo, options: Partial<InitiateOptions> = {}) {
  return initiate(io, { keyPair: client, remoteStatic: server.publicKey, ...options });
}

function answer(io: ByteIo, options: Partial<RespondOptions> = {}) {
  return respond(io, { keyPair: server, replayGuard: new ReplayGuard(), ...options });
}

function framed(message: Uint8Array): Bytes {
  return concat(new Uint8Array([message.length >> 8, message.length & 255]), message);
}

async function fails(promise: Promise<unknown>): Promise<HtxError> {
  const error = await assertRejects(() => promise, HtxError);
  assertEquals(error.code, "HANDSHAKE_FAILED");
  assertEquals(
    error.message,
    "Cannot complete handshake: the peer is not who it must be, or something stands between",
  );
  return error;
}

/** What someone sees who sends `data` in those pieces and then ends: every failure must look the same. */
async function probe(data: Uint8Array[], options: Partial<RespondOptions> = {}) {
  const [near, far] = memoryIo();
  const answered = answer(far, options);
  for (const piece of data) await near.write(piece);
  await near.closeWrite();
  const error = await fails(answered);
  return { error, sent: toHex(far.written()), finished: far.finished, closed: far.closed };
}

/** Message 1 of an initiator that plays by the rules, and the machine that made it. */
async function message1(form: "require" | "off" = "off", keyPair = client, crypto = native) {
  const state = new HandshakeState(form === "off" ? XK : XKhfs, "initiator", crypto, {
    prologue: utf8("betanet-htx/1.1"),
    keyPair,
    remoteStatic: server.publicKey,
  });
  return { state, wire: framed(await state.writeMessage()) };
}

/** Gives an initiator what the responder wrote, and writes message 3 as `change` would have it. */
async function playOn(
  near: TestIo,
  state: HandshakeState,
  change: (wire: Bytes) => Uint8Array[] = (wire) => [wire],
) {
  const message = new Uint8Array(4096);
  let filled = 0;
  do filled += (await near.read(message.subarray(filled)))!; while (
    filled < 2 || filled < 2 + (message[0]! << 8 | message[1]!)
  );
  await state.readMessage(message.subarray(2, filled));
  for (const piece of change(framed(await state.writeMessage()))) await near.write(piece);
}

// ---- it works ----

for (const [name, a, b] of sides()) {
  Deno.test(`${name}: initiate() and respond() put the bytes of htx.json on the wire`, async () => {
    const files = [
      local<{ handshakes: HtxHandshake[] }>("htx_handshakes.json"),
      shared<{ handshakes: HtxHandshake[] }>("htx.json"),
    ];
    for (const v of files.flatMap((file) => file?.handshakes ?? [])) {
      const hybrid = v.kem_keygen_seed !== null;
      const [near, far] = memoryIo();
      const [dialed, accepted] = await Promise.all([
        initiate(near, {
          keyPair: KeyPair.fromHex(v.initiator_static),
          remoteStatic: fromHex(v.responder_public),
          postQuantum: hybrid ? "require" : "off",
          crypto: a,
          ephemeralForTestingOnly: bytes(v.initiator_ephemeral),
          kemSeedForTestingOnly: bytes(v.kem_keygen_seed),
        }),
        respond(far, {
          keyPair: KeyPair.fromHex(v.responder_static),
          replayGuard: new ReplayGuard(),
          crypto: b,
          ephemeralForTestingOnly: bytes(v.responder_ephemeral),
          kemMessageForTestingOnly: bytes(v.kem_encaps_message),
        }),
      ]);
      assertEquals(
        toHex(near.written()),
        toHex(framed(fromHex(v.message1))) + toHex(framed(fromHex(v.message3))),
      );
      assertEquals(toHex(far.written()), toHex(framed(fromHex(v.message2))));
      for (const result of [dialed, accepted]) {
        const { k1, k2, h } = result.secrets;
        assertEquals([h, k1, k2].map(toHex), [v.handshake_hash, v.split_k1, v.split_k2]);
        assertEquals([toHex(result.hash), result.protocol, result.hybrid], [
          v.handshake_hash,
          v.protocol,
          hybrid,
        ]);
      }
      assertEquals(toHex(dialed.remoteStatic), v.responder_public);
      assertEquals(accepted.remoteStatic, KeyPair.fromHex(v.initiator_static).publicKey);
      assertFalse(near.closed || far.closed || near.finished || far.finished);
    }
  });
}

for (const postQuantum of FORMS) {
  Deno.test(`postQuantum "${postQuantum}": a byte at a time is the same as all at once (e-27)`, async () => {
    for (const chunk of [1, 2, 3, 49, 1249]) {
      const [near, far] = memoryIo({ chunk });
      const [dialed, accepted] = await Promise.all([dial(near, { postQuantum }), answer(far)]);
      assertEquals(dialed.secrets, accepted.secrets);
      assertEquals([dialed.role, accepted.role], ["initiator", "responder"]);
      assertEquals(dialed.hybrid, postQuantum === "require");
    }
  });

  Deno.test(`postQuantum "${postQuantum}": message 3 and the first frames in one write, and none of them lost`, async () => {
    const [near, far] = memoryIo();
    const accepting = answer(far);
    const dialed = await dial(near, { postQuantum, deferMessage3: true });
    assertEquals(dialed.pending.length, 66);
    await near.write(concat(dialed.pending, utf8("the first frames")));
    const accepted = await accepting;
    assertEquals(accepted.rest, utf8("the first frames"));
    assertEquals(accepted.secrets, dialed.secrets);
    assertEquals(dialed.rest, EMPTY);
    assertEquals(accepted.pending, EMPTY);
  });
}

Deno.test("a prepared initiator makes message 1 before there is a duplex, runs once, and can be discarded", async () => {
  const prepared = prepareInitiator({ keyPair: client, remoteStatic: server.publicKey });
  const [near, far] = memoryIo();
  const [dialed, accepted] = await Promise.all([prepared.run(near), answer(far)]);
  assertEquals(dialed.secrets, accepted.secrets);
  await assertRejects(() => prepared.run(near), TypeError, "ran before");
  await prepared.discard();
  assertFalse(near.closed);

  const unused = prepareInitiator({ keyPair: client, remoteStatic: server.publicKey });
  await Promise.all([unused.discard(), unused.discard()]);
  await assertRejects(() => unused.run(near), TypeError, "discarded");
});

Deno.test("a channel binding that both ends have goes into the transcript; one that differs fails", async () => {
  const channelBinding = new Uint8Array(32).fill(9);
  const [near, far] = memoryIo();
  await Promise.all([dial(near, { channelBinding }), answer(far, { channelBinding })]);
  for (const other of [undefined, new Uint8Array(32), channelBinding.subarray(1)]) {
    const [near, far] = memoryIo();
    await Promise.all([
      fails(dial(near, { channelBinding, timeoutMs: 50 })),
      fails(answer(far, { channelBinding: other, timeoutMs: 40 })),
    ]);
  }
});

Deno.test("the Split keys of a result show in no printout, and wipe() overwrites them (e-39)", async () => {
  const [near, far] = memoryIo();
  const [dialed, accepted] = await Promise.all([dial(near), answer(far)]);
  const { k1, k2 } = dialed.secrets;
  for (
    const text of [
      JSON.stringify(dialed),
      Deno.inspect(dialed, { depth: 9, showHidden: true, iterableLimit: 1000 }),
      inspect(dialed, { depth: 9, showHidden: true, maxArrayLength: 1000 }),
      String(dialed),
    ]
  ) {
    for (const key of [k1, k2]) {
      assertFalse(text.includes(toHex(key)));
      assertFalse(text.includes([...key].slice(0, 6).join(", ")));
      assertFalse(text.includes(`"0":${key[0]},"1":${key[1]},"2":${key[2]},"3":${key[3]},"4":${key[4]}`));
    }
  }
  assertNotEquals(k1, k2); // e-02
  dialed.wipe();
  accepted.wipe();
  assertEquals([k1, k2], [new Uint8Array(32), new Uint8Array(32)]);
});

// ---- arguments ----

Deno.test("dialing without a pinned key is a type error and a run-time error (e-05)", async () => {
  const [io] = memoryIo();
  // @ts-expect-error: remoteStatic is missing
  await assertRejects(() => initiate(io, { keyPair: client }), TypeError, "public key");
  // @ts-expect-error: remoteStatic is missing
  assertThrows(() => prepareInitiator({ keyPair: client }), TypeError, "public key");
  // @ts-expect-error: not bytes
  await assertRejects(() => initiate(io, { keyPair: client, remoteStatic: null }), TypeError, "public key");
  // @ts-expect-error: not bytes
  const inHex = () => initiate(io, { keyPair: client, remoteStatic: server.publicKeyHex });
  await assertRejects(inHex, TypeError, "publicKeyFromHex()");
  await assertRejects(() => dial(io, { remoteStatic: new Uint8Array(31) }), TypeError, "32 bytes");
  // @ts-expect-error: keyPair is missing
  await assertRejects(() => initiate(io, { remoteStatic: server.publicKey }), TypeError, "keyPair");
  assertEquals(io.written(), EMPTY);
  // A client that dials later can have its options looked at before.
  checkInitiateOptions({ keyPair: client, remoteStatic: server.publicKey });
  // @ts-expect-error: remoteStatic is missing
  assertThrows(() => checkInitiateOptions({ keyPair: client }), TypeError, "public key");
});

Deno.test("a pinned key in another spelling, or one's own, is refused before a byte is sent (e-38)", async () => {
  const [io] = memoryIo();
  const spelled = server.publicKey;
  spelled[31]! |= 0x80;
  for (const key of [spelled, fromHex("ed" + "ff".repeat(30) + "7f"), fromHex("ff".repeat(32))]) {
    assertFalse(isCanonicalX25519(key));
    await assertRejects(() => dial(io, { remoteStatic: key }), TypeError, "canonical");
  }
  await assertRejects(() => dial(io, { remoteStatic: client.publicKey }), TypeError, "own");
  assertEquals(io.written(), EMPTY);
});

Deno.test("options that are none are refused before anything happens", async () => {
  const [io] = memoryIo();
  // @ts-expect-error: only a responder may accept
  await assertRejects(() => dial(io, { postQuantum: "accept" }), TypeError, "postQuantum");
  // @ts-expect-error: no such policy
  await assertRejects(() => answer(io, { postQuantum: "prefer" }), TypeError, "postQuantum");
  // @ts-expect-error: keyPair is missing
  await assertRejects(() => respond(io, { replayGuard: new ReplayGuard() }), TypeError, "keyPair");
  // @ts-expect-error: replayGuard is missing
  await assertRejects(() => respond(io, { keyPair: server }), TypeError, "replayGuard");
  for (const channelBinding of ["abc", null, [1, 2, 3]]) {
    // @ts-expect-error no bytes: they would have been hashed as zeros
    await assertRejects(() => dial(io, { channelBinding }), TypeError, "channelBinding");
    // @ts-expect-error no bytes
    await assertRejects(() => answer(io, { channelBinding }), TypeError, "channelBinding");
  }
  for (const timeoutMs of [0, -1, NaN, Infinity, 2 ** 31]) {
    await assertRejects(() => dial(io, { timeoutMs }), RangeError, "timeoutMs");
    await assertRejects(() => answer(io, { timeoutMs }), RangeError, "timeoutMs");
  }
  assertFalse(io.closed);
});

// ---- which form ----

Deno.test("postQuantum: every pair of policies gives hybrid, classic or a failure, never a silent downgrade (e-04)", async () => {
  for (const mine of FORMS) {
    for (const theirs of ["accept", "require", "off"] as const) {
      const [near, far] = memoryIo();
      const agree = theirs === "accept" || (mine === "require") === (theirs === "require");
      const dialing = dial(near, { postQuantum: mine, timeoutMs: agree ? undefined : 50 });
      const answering = answer(far, { postQuantum: theirs, timeoutMs: agree ? undefined : 40 });
      if (agree) {
        const [dialed, accepted] = await Promise.all([dialing, answering]);
        for (const result of [dialed, accepted]) {
          assertEquals(result.hybrid, mine === "require");
          assertEquals(result.protocol, (mine === "require" ? XKhfs : XK).protocol);
        }
      } else {
        await Promise.all([fails(dialing), fails(answering)]);
        assertEquals(far.written(), EMPTY); // refused at its length, before a key was computed
      }
      // The initiator never tries the other form by itself.
      const length = mine === "require" ? 1250 : 50;
      assertEquals(near.written().subarray(0, 2), new Uint8Array([length - 2 >> 8, length - 2 & 255]));
    }
  }
});

Deno.test("a hybrid message cut to the classic length, or a classic answer to a hybrid offer, fails (e-04)", async () => {
  const { wire } = await message1("require");
  const forged = framed(wire.subarray(2, 50));
  assertEquals((await probe([forged])).sent, "");

  const [near, far] = memoryIo();
  const dialing = dial(near, { postQuantum: "require" });
  await far.write(framed(new Uint8Array(48)));
  await fails(dialing);
  assert(near.closed);
});

// ---- the silent path ----

for (const form of FORMS) {
  Deno.test(`postQuantum "${form}": message 1 of any other length fails before a key is computed`, async () => {
    let computed = 0;
    const crypto = Object.create(native) as CryptoBackend;
    for (const name of ["x25519", "sha256", "hkdfSha256", "chacha20Poly1305"] as const) {
      Object.defineProperty(crypto, name, { value: () => computed++ });
    }
    for (const length of [0, 1, 47, 49, 64, 96, 1152, 1247, 1249, 65_535]) {
      const seen = await probe([framed(new Uint8Array(length).subarray(0, 4000))], { crypto });
      const wire = new Uint8Array(2 + Math.min(length, 4000));
      new DataView(wire.buffer).setUint16(0, length);
      assertEquals(await probe([wire], { crypto }), {
        ...seen,
        error: (await probe([wire], { crypto })).error,
      });
      assertEquals([seen.sent, seen.finished, seen.closed], ["", true, true]);
    }
    assertEquals(computed, 0);
  });
}

Deno.test("every failure at message 1 looks the same: nothing is sent, then a FIN", async () => {
  const good = (await message1()).wire;
  const hybrid = (await message1("require")).wire;
  const flipped = (wire: Uint8Array, at: number) => wire.map((byte, i) => i === at ? byte ^ 1 : byte);
  const replayGuard = new ReplayGuard();
  await probe([good], { replayGuard });
  const badKem = await (async () => {
    const crypto = Object.create(native) as CryptoBackend;
    for (
      const name of [
        "chacha20Poly1305",
        "sha256",
        "hmacSha256",
        "hkdfSha256",
        "x25519",
        "mlKem768Encapsulate",
      ] as const
    ) {
      Object.defineProperty(crypto, name, { value: native[name].bind(native) });
    }
    crypto.mlKem768 = async () => {
      const { publicKey } = await native.mlKem768();
      return {
        publicKey: new Uint8Array(publicKey).fill(0xff, 0, 3),
        decapsulate: () => Promise.resolve(new Uint8Array(32)),
        wipe() {},
      };
    };
    return (await message1("require", client, crypto)).wire;
  })();
  const zeroE = framed(new Uint8Array(48));
  const cases: Record<string, [Uint8Array[], Partial<RespondOptions>?]> = {
    "nothing at all": [[]],
    "half a length": [[new Uint8Array(1)]],
    "a length alone": [[good.subarray(0, 2)]],
    "cut short": [[good.subarray(0, 49)]],
    "hybrid cut short": [[hybrid.subarray(0, 1249)]],
    "a wrong length": [[framed(new Uint8Array(47))]],
    "HTTP": [[utf8("GET / HTTP/1.1\r\nhost: example.com\r\n\r\n")]],
    "TLS": [[fromHex("16030100f8010000f40303"), new Uint8Array(240)]],
    "random bytes": [[native.randomBytes(3000)]],
    "a flipped bit in e": [[flipped(good, 2)]],
    "a flipped bit in the tag": [[flipped(good, 49)]],
    "a flipped bit in the KEM key": [[flipped(hybrid, 700)]],
    "a low-order e": [[zeroE]],
    "an extra byte in the same write": [[concat(good, new Uint8Array(1))]],
    "a repeated message": [[good], { replayGuard }],
    "classic where hybrid is required": [[(await message1()).wire], { postQuantum: "require" }],
    "hybrid where it is off": [[(await message1("require")).wire], { postQuantum: "off" }],
    "for another key": [[(await message1()).wire], { keyPair: KeyPair.generate() }],
    "another binding": [[(await message1()).wire], { channelBinding: utf8("x") }],
    "a KEM key that fails its modulus check": [[badKem]],
  };
  for (const [what, [data, options]] of Object.entries(cases)) {
    const { error, ...seen } = await probe(data, options);
    assertEquals(seen, { sent: "", finished: true, closed: true }, what);
    assert(error.cause instanceof Error, what); // for logs
  }
});

for (const form of FORMS) {
  Deno.test(`postQuantum "${form}": every failure at message 3 looks the same: message 2, nothing more, then a FIN`, async () => {
    const cases: Record<string, [((wire: Bytes) => Uint8Array[]) | undefined, Partial<RespondOptions>?]> = {
      "nothing": [() => []],
      "cut short": [(wire) => [wire.subarray(0, 65)]],
      "a wrong length": [() => [framed(new Uint8Array(63))]],
      "a longer one": [() => [framed(new Uint8Array(65))]],
      "an empty one": [() => [new Uint8Array(2)]],
      "a flipped bit in s": [(wire) => [wire.map((byte, i) => i === 2 ? byte ^ 1 : byte)]],
      "a flipped bit in the last tag": [(wire) => [wire.map((byte, i) => i === 65 ? byte ^ 0x80 : byte)]],
      "zeros": [() => [framed(new Uint8Array(64))]],
      "authorize says no": [undefined, { authorize: () => false }],
      "authorize says no later": [undefined, { authorize: () => Promise.resolve(false) }],
      "authorize throws": [undefined, {
        authorize: () => {
          throw new Error("database");
        },
      }],
      "authorize rejects": [undefined, { authorize: () => Promise.reject(new Error("database")) }],
      // @ts-expect-error: truthy is not true
      "authorize gives a string": [undefined, { authorize: () => "yes" }],
    };
    for (const [what, [change, options]] of Object.entries(cases)) {
      const [near, far] = memoryIo();
      const answering = answer(far, options);
      const { state, wire } = await message1(form);
      await near.write(wire);
      await playOn(near, state, change);
      await near.closeWrite();
      const error = await fails(answering);
      assertEquals(far.written().length, form === "off" ? 50 : 1154, what);
      assert(far.finished && far.closed, what);
      assert(error.cause instanceof Error, what);
    }
  });
}

Deno.test("every flipped bit of the framed message 1 ends silently (classic)", async () => {
  const { wire } = await message1();
  for (let bit = 0; bit < wire.length * 8; bit++) {
    const changed = new Uint8Array(wire);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    assertEquals((await probe([changed])).sent, "", `bit ${bit}`);
  }
});

for (const form of FORMS) {
  Deno.test(`postQuantum "${form}": a changed length or byte of message 2 fails at the initiator, which closes`, async () => {
    const length = form === "off" ? 50 : 1154;
    const places = [...Array(18).keys(), 33, 34, 49, length - 17, length - 16, length - 1];
    for (const at of places) {
      const [near, far] = memoryIo({}, {
        tamper: (data) => data.map((byte, i) => i === at ? byte ^ 0x10 : byte),
      });
      const answering = answer(far);
      await fails(dial(near, { postQuantum: form }));
      assert(near.closed);
      assertEquals(near.written().length, form === "off" ? 50 : 1250); // no message 3, no frame (e-06)
      await fails(answering);
    }
    for (const cut of [0, 1, 2, 3, length - 1]) {
      const [near, far] = memoryIo();
      const dialing = dial(near, { postQuantum: form });
      const header = new Uint8Array(length);
      new DataView(header.buffer).setUint16(0, length - 2);
      await far.write(header.subarray(0, cut));
      await far.closeWrite();
      await fails(dialing);
      assert(near.closed);
    }
    // A byte behind message 2: a responder says nothing before message 3.
    const [near, far] = memoryIo({}, { tamper: (data) => concat(data, new Uint8Array(1)) });
    const answering = answer(far);
    await fails(dial(near, { postQuantum: form }));
    await fails(answering);
  });
}

Deno.test("a failed responder waits for the peer's end or the deadline, whichever is first, and says nothing", async () => {
  const [near, far] = memoryIo();
  let settled = false;
  const answering = fails(answer(far)).finally(() => settled = true);
  await near.write(framed(new Uint8Array(48)));
  for (let i = 0; i < 50; i++) {
    await near.write(new Uint8Array(100));
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assertFalse(settled || far.finished || far.closed);
  await near.closeWrite();
  await answering;
  assert(far.finished && far.closed);
  assertEquals(far.written(), EMPTY);

  const [idle, other] = memoryIo();
  const started = performance.now();
  const late = fails(answer(other, { timeoutMs: 60 }));
  await idle.write(framed(new Uint8Array(48)));
  await late;
  assert(performance.now() - started >= 55);
  assert(other.finished && other.closed);
});

Deno.test("a failed responder discards at most 64 KiB, and that limit cannot be seen before the deadline", async () => {
  const [near, far] = memoryIo();
  const started = performance.now();
  const answering = fails(answer(far, { timeoutMs: 250 }));
  for (let i = 0; i < 100; i++) await near.write(new Uint8Array(4096).fill(0xff));
  await near.closeWrite();
  await answering;
  assert(far.bytesRead >= 65_536 && far.bytesRead <= 65_536 + 4096, `${far.bytesRead}`);
  assert(performance.now() - started >= 240);
  assert(far.finished && far.closed);
  assertEquals(far.written(), EMPTY);
});

Deno.test("a recording shows nothing: message 1 again, or the whole of it again (e-41)", async () => {
  for (const form of FORMS) {
    const replayGuard = new ReplayGuard();
    const [near, far] = memoryIo();
    await Promise.all([dial(near, { postQuantum: form }), answer(far, { replayGuard })]);
    const recorded = near.written();
    for (const cut of [recorded.length, recorded.length - 66, recorded.length - 1, 40]) {
      const { error: _, ...seen } = await probe([recorded.subarray(0, cut)], { replayGuard });
      assertEquals(seen, { sent: "", finished: true, closed: true });
    }
    // Where the key was forgotten, message 2 is a fresh one and the recorded message 3 does not open.
    const [again, back] = memoryIo();
    const answering = answer(back);
    await again.write(recorded.subarray(0, recorded.length - 66));
    await again.read(new Uint8Array(2000));
    await again.write(recorded.subarray(recorded.length - 66));
    await again.closeWrite();
    await fails(answering);
    assertNotEquals(back.written(), far.written());
  }
});

Deno.test("only messages 1 that opened are remembered: a forger cannot fill the memory", async () => {
  const replayGuard = new ReplayGuard({ capacity: 2 });
  for (let i = 0; i < 5; i++) await probe([framed(native.randomBytes(48))], { replayGuard });
  assertEquals(replayGuard.size, 0);
  await probe([(await message1()).wire], { replayGuard });
  assertEquals(replayGuard.size, 1);
});

// ---- who is who ----

Deno.test("someone in the middle with keys of its own gets neither side (e-02)", async () => {
  const mallory = KeyPair.generate();
  // Towards the client it is not the pinned server.
  const [near, far] = memoryIo();
  const posing = respond(far, { keyPair: mallory, replayGuard: new ReplayGuard(), timeoutMs: 40 });
  await fails(dial(near, { timeoutMs: 50 }));
  await fails(posing);
  assertEquals(near.written().length, 1250); // message 3 and with it the client's identity never left
  // Towards the server it is not the client.
  const asked: string[] = [];
  const [left, right] = memoryIo();
  const answering = answer(right, {
    authorize: (key) => {
      asked.push(toHex(key));
      return toHex(key) === client.publicKeyHex;
    },
  });
  await dial(left, { keyPair: mallory });
  await left.closeWrite();
  await fails(answering);
  assertEquals(asked, [mallory.publicKeyHex]);
});

Deno.test("authorize is asked once, with the proven key, after message 3 and before the result (e-06)", async () => {
  const log: string[] = [];
  const [near, far] = memoryIo();
  const answering = answer(far, {
    authorize: async (key) => {
      log.push(`asked about ${toHex(key)}`);
      key.fill(0); // its own copy
      await new Promise((resolve) => setTimeout(resolve, 0));
      log.push("allowed");
      return true;
    },
  }).then((result) => {
    log.push("accepted");
    return result;
  });
  const dialed = await dial(near);
  log.push("dialed");
  const accepted = await answering;
  assertEquals(accepted.remoteStatic, client.publicKey);
  assertEquals(dialed.remoteStatic, server.publicKey);
  assertEquals(log.filter((line) => line !== "dialed"), [
    `asked about ${client.publicKeyHex}`,
    "allowed",
    "accepted",
  ]);
});

Deno.test("authorize is not asked when message 3 does not open", async () => {
  const [near, far] = memoryIo();
  const answering = answer(far, {
    authorize: () => {
      throw new Error("never");
    },
  });
  const { state, wire } = await message1();
  await near.write(wire);
  await playOn(near, state, () => [framed(new Uint8Array(64))]);
  await near.closeWrite();
  const error = await fails(answering);
  assertNotEquals((error.cause as Error).message, "never");
});

// ---- time and signals ----

Deno.test("a peer that stalls anywhere is given up at the deadline", async () => {
  const { wire } = await message1();
  for (const sent of [0, 1, 2, 30, 49]) {
    const [near, far] = memoryIo();
    const answering = fails(answer(far, { timeoutMs: 25 }));
    await near.write(wire.subarray(0, sent));
    await answering;
    assert(far.finished && far.closed);
    assertEquals(far.written(), EMPTY);
  }
  {
    const [near, far] = memoryIo();
    const answering = fails(answer(far, { timeoutMs: 150 }));
    await near.write((await message1()).wire);
    await answering; // message 3 never comes
    assertEquals(far.written().length, 50);
  }
  {
    const [near, far] = memoryIo();
    const dialing = fails(dial(near, { timeoutMs: 25 }));
    await far.write(new Uint8Array([0, 48, 1, 2]));
    await dialing; // message 2 never ends
    assert(near.closed);
  }
  {
    const [near, far] = memoryIo();
    const answering = fails(answer(far, { timeoutMs: 200, authorize: () => new Promise(() => {}) }));
    await dial(near, { postQuantum: "off" });
    await answering;
    assert(far.finished && far.closed);
  }
});

Deno.test("an aborted signal gives up at once with its own reason", async () => {
  for (const stage of ["before", "during"] as const) {
    const controller = new AbortController();
    const reason = new Error("dropped");
    if (stage === "before") controller.abort(reason);
    const [near, far] = memoryIo();
    const dialing = assertRejects(() => dial(near, { signal: controller.signal }));
    const [near2, far2] = memoryIo();
    const answering = assertRejects(() => answer(far2, { signal: controller.signal }));
    if (stage === "during") {
      await near2.write(new Uint8Array(1));
      controller.abort(reason);
    }
    assert(await dialing === reason);
    assert(await answering === reason);
    assert(far2.finished && far2.closed);
    assertEquals(far2.written(), EMPTY);
    if (stage === "during") assert(near.closed);
    far.close();
  }
});

Deno.test("a signal aborted while a failed responder discards ends that at once", async () => {
  const controller = new AbortController();
  const [near, far] = memoryIo();
  const answering = answer(far, { signal: controller.signal });
  await near.write(framed(new Uint8Array(48)));
  while (far.bytesRead < 50) await new Promise((resolve) => setTimeout(resolve, 0));
  await near.write(new Uint8Array(1)); // read only once message 1 has failed
  while (far.bytesRead < 51) await new Promise((resolve) => setTimeout(resolve, 0));
  controller.abort();
  await fails(answering);
  assert(far.finished && far.closed);
});

Deno.test("a duplex that breaks is one more failed handshake", async () => {
  const broken = (): ByteIo => ({
    read: () => Promise.reject(new Error("reset")),
    write: () => Promise.reject(new Error("reset")),
    closeWrite: () => Promise.reject(new Error("reset")),
    close() {},
  });
  await fails(dial(broken()));
  await fails(answer(broken()));
});

// ---- the decoy ----

async function readAll(io: ByteIo): Promise<Bytes> {
  const parts: Bytes[] = [];
  for (;;) {
    const into = new Uint8Array(7);
    const length = await io.read(into);
    if (length === null) return concat(...parts);
    parts.push(into.subarray(0, length));
  }
}

Deno.test("onFailure has the duplex with every byte read so far, in place of the silent end", async () => {
  const request = utf8("GET / HTTP/1.1\r\nhost: example.com\r\n\r\n");
  for (const chunk of [1, 2, 3, 1000]) {
    const [near, far] = memoryIo({}, { chunk });
    const { promise: decoyed, resolve } = Promise.withResolvers<string>();
    const answering = answer(far, {
      onFailure: async (soFar, io) => {
        await io.write(utf8("HTTP/1.1 404 Not Found\r\n\r\n"));
        resolve(toHex(concat(soFar, await readAll(io))));
        await io.closeWrite();
        io.close();
      },
    });
    await near.write(request);
    await fails(answering); // at once: the decoy may take its time
    await near.closeWrite();
    assertEquals(await decoyed, toHex(request));
    assertEquals(far.written(), utf8("HTTP/1.1 404 Not Found\r\n\r\n"));
  }
});

Deno.test("onFailure after a deadline gets the bytes of the read that was under way", async () => {
  const [near, far] = memoryIo();
  const { promise: decoyed, resolve } = Promise.withResolvers<Bytes>();
  const answering = answer(far, {
    timeoutMs: 25,
    onFailure: async (soFar, io) => resolve(concat(soFar, await readAll(io))),
  });
  await near.write(utf8("G"));
  await fails(answering);
  await near.write(utf8("ET / HTTP/1.1\r\n\r\n"));
  await near.closeWrite();
  assertEquals(await decoyed, utf8("GET / HTTP/1.1\r\n\r\n"));
});

Deno.test("onFailure sees all of messages 1 and 3; when it throws, the duplex is closed and nothing else happens", async () => {
  let seen: Bytes = EMPTY;
  const [near, far] = memoryIo();
  const answering = answer(far, {
    authorize: () => false,
    onFailure: (soFar) => {
      seen = soFar;
      throw new Error("no decoy today");
    },
  });
  await dial(near);
  await fails(answering);
  assertEquals(seen, near.written());
  assert(far.closed);

  const [left, right] = memoryIo();
  const rejecting = answer(right, { onFailure: () => Promise.reject(new Error("no decoy today")) });
  await left.write(utf8("nonsense"));
  await fails(rejecting);
  await left.read(new Uint8Array(1));
  assert(right.closed);
});

// ---- anything at all ----

Deno.test("whatever bytes come, in whatever pieces, a side fails in the one way and sends nothing of its own", async () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.constantFrom(
      new Uint8Array([0, 48]),
      new Uint8Array([4, 224]),
      new Uint8Array([4, 128]),
      new Uint8Array(1300),
    ),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { maxLength: 6 }),
      fc.integer({ min: 1, max: 2000 }),
      async (pieces, chunk) => {
        assertEquals((await probe(pieces.map((p) => new Uint8Array(p)))).sent, "");
        const [near, far] = memoryIo({ chunk });
        for (const p of pieces) await far.write(p);
        await far.closeWrite();
        await fails(dial(near, { postQuantum: "off" }));
        assertEquals(near.written().length, 50);
      },
    ),
    { numRuns: 60 },
  );
});
