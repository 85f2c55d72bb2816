import { assert, assertEquals, assertFalse, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  type CryptoBackend,
  type DhPrivateKey,
  fromHex,
  HtxError,
  selectCrypto,
  toHex,
  utf8,
} from "../core/mod.ts";
import { CipherState } from "./cipher_state.ts";
import { HandshakeState, type HandshakeStateOptions } from "./handshake_state.ts";
import { KeyPair } from "./key_pair.ts";
import { type NoisePattern, XK, XKhfs } from "./patterns.ts";
import { bytes, type CacophonyVector, type HtxHandshake, local, shared, sides } from "./testdata/vectors.ts";

const native = selectCrypto("native");
const EMPTY = new Uint8Array(0);

/** For the upstream vector alone (Noise HFS §4, Noise §7.5): nobody knows anybody beforehand. */
const XXhfs: NoisePattern = {
  protocol: "Noise_XXhfs_25519+MLKEM768_ChaChaPoly_SHA256",
  initiatorKnown: false,
  responderKnown: false,
  messages: [["e", "e1"], ["e", "ee", "ekem1", "s", "es"], ["s", "se"]],
};

type Fixed = HandshakeStateOptions & { pattern?: NoisePattern };

/** Both sides of a handshake with keys that never change, so that a step can be repeated at will. */
function fixed(
  pattern: NoisePattern,
  crypto: CryptoBackend = native,
  initiator: Fixed = {},
  responder: Fixed = {},
) {
  const server = KeyPair.fromBytes(new Uint8Array(32).fill(0x33));
  return {
    i: new HandshakeState(initiator.pattern ?? pattern, "initiator", crypto, {
      prologue: utf8("prologue"),
      keyPair: KeyPair.fromBytes(new Uint8Array(32).fill(0x11)),
      remoteStatic: server.publicKey,
      ephemeralForTestingOnly: new Uint8Array(32).fill(0x22),
      kemSeedForTestingOnly: new Uint8Array(64).fill(0x55),
      ...initiator,
    }),
    r: new HandshakeState(responder.pattern ?? pattern, "responder", crypto, {
      prologue: utf8("prologue"),
      keyPair: server,
      ephemeralForTestingOnly: new Uint8Array(32).fill(0x44),
      kemMessageForTestingOnly: new Uint8Array(32).fill(0x66),
      ...responder,
    }),
  };
}

/** The three messages of {@linkcode fixed}: they never change. */
const recorded = new Map<NoisePattern, Promise<Uint8Array[]>>();

async function record(pattern: NoisePattern): Promise<Uint8Array[]> {
  const { i, r } = fixed(pattern);
  const messages: Uint8Array[] = [];
  while (!r.finished) {
    const [writer, reader] = i.writesNext ? [i, r] : [r, i];
    messages.push(await writer.writeMessage());
    await reader.readMessage(messages.at(-1)!);
  }
  return messages;
}

/** A fresh reader of message `step` and that message. */
async function upTo(
  step: 0 | 1 | 2,
  pattern: NoisePattern,
): Promise<{ reader: HandshakeState; message: Uint8Array }> {
  if (!recorded.has(pattern)) recorded.set(pattern, record(pattern));
  const messages = await recorded.get(pattern)!;
  const { i, r } = fixed(pattern);
  if (step === 1) {
    assertEquals(await i.writeMessage(), messages[0]);
    return { reader: i, message: messages[1]! };
  }
  if (step === 2) {
    await r.readMessage(messages[0]!);
    assertEquals(await r.writeMessage(), messages[1]);
  }
  return { reader: r, message: messages[step]! };
}

async function refuses(reader: HandshakeState, message: Uint8Array, what: string): Promise<void> {
  const error = await assertRejects(
    () => reader.readMessage(message),
    HtxError,
    "Cannot complete handshake",
    what,
  );
  assertEquals(error.code, "HANDSHAKE_FAILED");
  assertFalse(reader.finished);
}

// ---- vectors ----

for (const [name, a, b] of sides()) {
  Deno.test(`${name}: XK gives the cacophony vector, every message and payload, byte for byte (e-03)`, async () => {
    for (const v of local<{ vectors: CacophonyVector[] }>("xk_cacophony.json").vectors) {
      await cacophony(v, XK, a, b);
    }
    for (const v of shared<{ vectors: CacophonyVector[] }>("noise_xk_cacophony.json")?.vectors ?? []) {
      await cacophony(v, XK, a, b);
    }
  });

  Deno.test(`${name}: XKhfs gives its vectors, with and without payloads, under both names`, async () => {
    const file = shared<{ vectors: CacophonyVector[] }>("noise_xkhfs_mlkem768_made_here.json");
    for (const v of file?.vectors ?? []) await cacophony(v, { ...XKhfs, protocol: v.protocol_name }, a, b);
  });

  Deno.test(`${name}: XXhfs, as another table, gives the published vector`, async () => {
    const file = shared<{ vectors: Record<string, string>[] }>("noise_xxhfs_mlkem768_pq-noise.json");
    for (const v of file?.vectors ?? []) {
      const i = new HandshakeState(XXhfs, "initiator", a, {
        keyPair: KeyPair.fromHex(v.static_i_private!),
        ephemeralForTestingOnly: bytes(v.ephemeral_dh_i_private),
        kemSeedForTestingOnly: bytes(v.ephemeral_kem_i_seed),
      });
      const r = new HandshakeState(XXhfs, "responder", b, {
        keyPair: KeyPair.fromHex(v.static_r_private!),
        ephemeralForTestingOnly: bytes(v.ephemeral_dh_r_private),
        kemMessageForTestingOnly: bytes(v.encap_seed_hex),
      });
      for (const expected of [v.msg_a, v.msg_b, v.msg_c]) {
        const [writer, reader] = i.writesNext ? [i, r] : [r, i];
        const message = await writer.writeMessage();
        assertEquals(toHex(message), expected);
        assertEquals(await reader.readMessage(message), EMPTY);
      }
      assertEquals(toHex(i.remoteStatic!), v.static_r_public);
      assertEquals(toHex(r.remoteStatic!), v.static_i_public);
      for (const side of [i, r]) {
        const { h, k1, k2 } = side.split();
        assertEquals([h, k1, k2].map(toHex), [v.handshake_hash, v.cs1_k, v.cs2_k]);
      }
    }
  });

  Deno.test(`${name}: both handshakes of HTX 1.1 §1, byte for byte (e-01: the Split keys)`, async () => {
    const files = [
      local<{ handshakes: HtxHandshake[] }>("htx_handshakes.json"),
      shared<{ handshakes: HtxHandshake[] }>("htx.json"),
    ];
    for (const v of files.flatMap((file) => file?.handshakes ?? [])) {
      const pattern = v.kem_keygen_seed === null ? XK : XKhfs;
      assertEquals(v.protocol, pattern.protocol);
      const prologue = utf8(v.prologue_ascii);
      const i = new HandshakeState(pattern, "initiator", a, {
        prologue,
        keyPair: KeyPair.fromHex(v.initiator_static),
        remoteStatic: fromHex(v.responder_public),
        ephemeralForTestingOnly: bytes(v.initiator_ephemeral),
        kemSeedForTestingOnly: bytes(v.kem_keygen_seed),
      });
      const r = new HandshakeState(pattern, "responder", b, {
        prologue,
        keyPair: KeyPair.fromHex(v.responder_static),
        ephemeralForTestingOnly: bytes(v.responder_ephemeral),
        kemMessageForTestingOnly: bytes(v.kem_encaps_message),
      });
      for (const expected of [v.message1, v.message2, v.message3]) {
        const [writer, reader] = i.writesNext ? [i, r] : [r, i];
        const message = await writer.writeMessage();
        assertEquals(toHex(message), expected);
        await reader.readMessage(message);
      }
      for (const side of [i, r]) {
        const { h, k1, k2 } = side.split();
        assertEquals([h, k1, k2].map(toHex), [v.handshake_hash, v.split_k1, v.split_k2]);
      }
    }
  });
}

async function cacophony(v: CacophonyVector, pattern: NoisePattern, a: CryptoBackend, b: CryptoBackend) {
  const i = new HandshakeState(pattern, "initiator", a, {
    prologue: fromHex(v.init_prologue),
    keyPair: KeyPair.fromHex(v.init_static),
    remoteStatic: fromHex(v.init_remote_static),
    ephemeralForTestingOnly: bytes(v.init_ephemeral),
    kemSeedForTestingOnly: bytes(v.init_kem_seed_d_z),
  });
  const r = new HandshakeState(pattern, "responder", b, {
    prologue: fromHex(v.resp_prologue),
    keyPair: KeyPair.fromHex(v.resp_static),
    ephemeralForTestingOnly: bytes(v.resp_ephemeral),
    kemMessageForTestingOnly: bytes(v.resp_encaps_m),
  });
  for (const { payload, ciphertext } of v.messages.slice(0, 3)) {
    const [writer, reader] = i.writesNext ? [i, r] : [r, i];
    const message = await writer.writeMessage(fromHex(payload));
    assertEquals(toHex(message), ciphertext);
    assertEquals(toHex(await reader.readMessage(message)), payload);
  }
  const [mine, theirs] = [i.split(), r.split()];
  assertEquals(mine, theirs);
  assertEquals(toHex(mine.h), v.handshake_hash);
  if (v.k1 !== undefined) assertEquals([toHex(mine.k1), toHex(mine.k2)], [v.k1, v.k2!]);
  // Transport messages go in turn, the responder's first; each direction counts from 0.
  const up = [new CipherState(mine.k1, a), new CipherState(theirs.k1, b)] as const;
  const down = [new CipherState(theirs.k2, b), new CipherState(mine.k2, a)] as const;
  for (const [at, { payload, ciphertext }] of v.messages.slice(3).entries()) {
    const [writer, reader] = at % 2 === 0 ? down : up;
    assertEquals(toHex(writer.encryptWithAd(EMPTY, fromHex(payload))), ciphertext);
    assertEquals(toHex(reader.decryptWithAd(EMPTY, fromHex(ciphertext))!), payload);
  }
}

// ---- what must differ, what must agree ----

for (const pattern of [XK, XKhfs]) {
  Deno.test(`${pattern.protocol}: fresh keys give another transcript and other keys each time`, async () => {
    const seen = new Set<string>();
    for (let round = 0; round < 3; round++) {
      const server = KeyPair.generate();
      const client = KeyPair.generate();
      const i = new HandshakeState(pattern, "initiator", native, {
        keyPair: client,
        remoteStatic: server.publicKey,
      });
      const r = new HandshakeState(pattern, "responder", native, { keyPair: server });
      await r.readMessage(await i.writeMessage());
      await i.readMessage(await r.writeMessage());
      await r.readMessage(await i.writeMessage());
      assertEquals(r.remoteStatic, client.publicKey);
      const [a, b] = [i.split(), r.split()];
      assertEquals(a, b);
      assertNotEquals(a.k1, a.k2); // e-02
      for (const secret of [a.k1, a.k2, a.h]) seen.add(toHex(secret));
    }
    assertEquals(seen.size, 9);
  });

  Deno.test(`${pattern.protocol}: another prologue, another protocol name or another pinned key fails`, async () => {
    const cases: [string, HandshakeState, HandshakeState][] = [];
    const other = fixed(pattern, native, { prologue: utf8("prologuE") });
    cases.push(["prologue", other.i, other.r]);
    const renamed = fixed(pattern, native, { pattern: { ...pattern, protocol: pattern.protocol + "x" } });
    cases.push(["name", renamed.i, renamed.r]);
    const pinned = fixed(pattern, native, { remoteStatic: KeyPair.generate().publicKey });
    cases.push(["pinned key", pinned.i, pinned.r]);
    for (const [what, i, r] of cases) await refuses(r, await i.writeMessage(), what);
  });

  Deno.test(`${pattern.protocol}: truncated at every length and longer by a byte, every message fails (e-27)`, async () => {
    for (const step of [0, 1, 2] as const) {
      const { message } = await upTo(step, pattern);
      for (let length = 0; length < message.length; length++) {
        const { reader } = await upTo(step, pattern);
        await refuses(reader, message.subarray(0, length), `message ${step + 1} cut to ${length}`);
      }
      for (const extra of [1, 16]) {
        const { reader } = await upTo(step, pattern);
        const longer = new Uint8Array(message.length + extra);
        longer.set(message);
        await refuses(reader, longer, `message ${step + 1} and ${extra} more`);
      }
      const { reader } = await upTo(step, pattern);
      assertEquals(await reader.readMessage(message), EMPTY); // the true one does open
    }
  });

  Deno.test(`${pattern.protocol}: random bytes are refused in the same way`, async () => {
    const lengths = [0, 1, 31, 32, 33, 47, 48, 49, 64, 1152, 1248];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...lengths),
        fc.nat(255),
        fc.constantFrom(0, 1, 2),
        async (n, fill, step) => {
          const { reader } = await upTo(step as 0 | 1 | 2, pattern);
          await refuses(reader, new Uint8Array(n).fill(fill), `${n} bytes of ${fill}`);
        },
      ),
      { numRuns: 40 },
    );
  });
}

for (const step of [0, 1, 2] as const) {
  Deno.test(`XK: every flipped bit of message ${step + 1} is refused`, async () => {
    const { message } = await upTo(step, XK);
    for (let bit = 0; bit < message.length * 8; bit++) {
      const { reader } = await upTo(step, XK);
      const changed = new Uint8Array(message);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      await refuses(reader, changed, `bit ${bit}`);
    }
  });

  Deno.test(`XKhfs: a flipped bit in any byte of message ${step + 1} is refused`, async () => {
    const { message } = await upTo(step, XKhfs);
    for (let at = 0; at < message.length; at++) {
      const { reader } = await upTo(step, XKhfs);
      const changed = new Uint8Array(message);
      changed[at]! ^= 1 << (at % 8);
      await refuses(reader, changed, `byte ${at}`);
    }
  });
}

// ---- turns, ends, keys ----

Deno.test("a call out of turn throws a TypeError and changes nothing", async () => {
  const { i, r } = fixed(XK);
  assertThrows(() => i.readMessage(new Uint8Array(48)), TypeError, "turn");
  assertThrows(() => r.writeMessage(), TypeError, "turn");
  assertThrows(() => i.split(), TypeError);
  const writing = i.writeMessage();
  assertThrows(() => i.writeMessage(), TypeError, "under way");
  await r.readMessage(await writing);
  assertThrows(() => i.writeMessage(), TypeError, "turn");
  assertThrows(() => r.readMessage(EMPTY), TypeError, "turn");
  await i.readMessage(await r.writeMessage());
  assertFalse(i.finished);
  await r.readMessage(await i.writeMessage());
  assert(i.finished && r.finished);
  assertThrows(() => i.writeMessage(), TypeError, "all of them");
  assertThrows(() => r.readMessage(EMPTY), TypeError, "all of them");
  assertEquals(i.split(), r.split());
  assertThrows(() => i.split(), TypeError);
  assertThrows(() => r.writeMessage(), TypeError, "over");
});

Deno.test("after a message that fails the state is dead: the true one does not open any more", async () => {
  const { reader, message } = await upTo(2, XK);
  await refuses(reader, new Uint8Array(64), "forged");
  assertThrows(() => reader.readMessage(message), TypeError, "over");
  assertThrows(() => reader.split(), TypeError);
});

Deno.test("a state that is wiped while a message is under way fails, and stays silent about it", async () => {
  const { i } = fixed(XKhfs);
  const writing = i.writeMessage();
  i.wipe();
  await assertRejects(() => writing, HtxError);
  assertThrows(() => i.writeMessage(), TypeError, "over");
});

Deno.test("a pattern's missing keys are TypeErrors at once (e-05)", () => {
  const keyPair = KeyPair.generate();
  assertThrows(() => new HandshakeState(XK, "initiator", native, { keyPair }), TypeError, "public key");
  assertThrows(() => new HandshakeState(XK, "responder", native), TypeError, "key pair");
  assertThrows(
    () => new HandshakeState(XK, "initiator", native, { remoteStatic: keyPair.publicKey }),
    TypeError,
    "key pair",
  );
  assertThrows(
    () => new HandshakeState(XK, "responder", native, { keyPair, remoteStatic: keyPair.publicKey }),
    TypeError,
    "sends its key",
  );
  const spelled = keyPair.publicKey;
  spelled[31]! |= 0x80;
  assertThrows(
    () => new HandshakeState(XK, "initiator", native, { keyPair, remoteStatic: spelled }),
    TypeError,
    "canonical",
  );
});

/** A backend that shows another public key than the private one it works with. */
function showing(change: (publicKey: Uint8Array) => Uint8Array): CryptoBackend {
  const crypto = Object.create(native) as CryptoBackend;
  for (const name of ["chacha20Poly1305", "sha256", "hmacSha256", "hkdfSha256", "randomBytes"] as const) {
    Object.defineProperty(crypto, name, { value: native[name].bind(native), configurable: true });
  }
  crypto.mlKem768 = (seed) => native.mlKem768(seed);
  crypto.mlKem768Encapsulate = (...args) => native.mlKem768Encapsulate(...args);
  crypto.x25519 = (privateKey): DhPrivateKey => {
    const key = native.x25519(privateKey);
    return {
      publicKey: new Uint8Array(change(key.publicKey)),
      dh: (peer) => key.dh(peer),
      wipe: () => key.wipe(),
    };
  };
  return crypto;
}

Deno.test("a static key received in another spelling is refused, though its DH is the same", async () => {
  const client = KeyPair.generate();
  const shown = client.publicKey;
  const odd = showing((key) => {
    if (toHex(key) === toHex(shown)) key[31]! |= 0x80;
    return key;
  });
  const { i, r } = fixed(XK, odd, { keyPair: client });
  await r.readMessage(await i.writeMessage());
  await i.readMessage(await r.writeMessage());
  await refuses(r, await i.writeMessage(), "top bit of s");
});

Deno.test("an ephemeral key that makes a DH zero is refused, on either side", async () => {
  for (const low of ["00".repeat(32), "01" + "00".repeat(31), "ec" + "ff".repeat(30) + "7f"]) {
    const zero = showing(() => fromHex(low));
    const server = KeyPair.generate();
    const keyPair = KeyPair.generate();
    const message = new Uint8Array(48);
    message.set(fromHex(low));
    await refuses(new HandshakeState(XK, "responder", native, { keyPair: server }), message, low);
    // The responder shows a low-order e: `ee` gives zero at the initiator.
    const i = new HandshakeState(XK, "initiator", native, { keyPair, remoteStatic: server.publicKey });
    const r = new HandshakeState(XK, "responder", native, { keyPair: server });
    await r.readMessage(await i.writeMessage());
    await refuses(i, message, low);
    // A pinned key of low order fails before anything is sent.
    const lost = new HandshakeState(XK, "initiator", zero, { keyPair, remoteStatic: fromHex(low) });
    await assertRejects(() => lost.writeMessage(), HtxError);
  }
});

Deno.test("an ML-KEM key that fails its modulus check fails the handshake", async () => {
  const bad = showing((key) => key);
  bad.mlKem768 = async () => {
    const key = await native.mlKem768();
    const publicKey = new Uint8Array(key.publicKey);
    publicKey.fill(0xff, 0, 3); // two coefficients of 4095
    return { publicKey, decapsulate: (ciphertext) => key.decapsulate(ciphertext), wipe: () => key.wipe() };
  };
  const { i } = fixed(XKhfs, bad);
  const { r } = fixed(XKhfs);
  await r.readMessage(await i.writeMessage());
  const error = await assertRejects(() => r.writeMessage(), HtxError);
  assertEquals(error.code, "HANDSHAKE_FAILED");
  assertThrows(() => r.writeMessage(), TypeError, "over");
});

Deno.test("DH results, HKDF outputs, cipher keys and private keys are overwritten once a handshake is over", async () => {
  for (const pattern of [XK, XKhfs]) {
    for (const fails of [false, true]) {
      const secrets: Uint8Array[] = [];
      let live = 0;
      const counted = <T extends { wipe(): void }>(key: T): T => {
        const wipe = key.wipe.bind(key);
        let wiped = false;
        live++;
        key.wipe = () => {
          if (!wiped) live--;
          wiped = true;
          wipe();
        };
        return key;
      };
      const spy = showing((key) => key);
      spy.x25519 = (privateKey) => {
        const key = native.x25519(privateKey);
        return counted({
          publicKey: key.publicKey,
          dh: (peer: Uint8Array) => {
            const shared = key.dh(peer);
            if (shared) secrets.push(shared);
            return shared;
          },
          wipe: () => key.wipe(),
        });
      };
      spy.mlKem768 = async (seed) => counted(await native.mlKem768(seed));
      Object.defineProperty(spy, "chacha20Poly1305", {
        value: (key: Uint8Array) => counted(native.chacha20Poly1305(key)),
      });
      Object.defineProperty(spy, "hkdfSha256", {
        value: (ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number) => {
          const out = native.hkdfSha256(ikm, salt, info, length);
          secrets.push(out);
          return out;
        },
      });
      const { i, r } = fixed(pattern, spy);
      await r.readMessage(await i.writeMessage());
      await i.readMessage(await r.writeMessage());
      const message3 = await i.writeMessage();
      if (fails) {
        message3[0]! ^= 1;
        await assertRejects(() => r.readMessage(message3), HtxError);
        i.wipe();
      } else {
        await r.readMessage(message3);
        i.split();
        r.split();
      }
      assert(secrets.length >= 10);
      for (const secret of secrets) assert(secret.every((byte) => byte === 0));
      assertEquals(live, 2); // the two static keys, which belong to their pairs
    }
  }
});
