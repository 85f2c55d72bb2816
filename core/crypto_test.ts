import { assert, assertEquals, assertFalse, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { fromHex, toHex, utf8 } from "./bytes.ts";
import {
  type CryptoBackend,
  ed25519PublicKey,
  ed25519Sign,
  ed25519Verify,
  isCanonicalX25519,
  selectCrypto,
} from "./crypto.ts";
import { answersKnown } from "./crypto_kat.ts";
import { findNodeCrypto, type NodeCryptoModule } from "./crypto_native.ts";
import { CryptoSelector } from "./crypto_select.ts";
import { probeWebCryptoKem, webCryptoKem } from "./crypto_webkem.ts";
import { HtxError } from "./errors.ts";
import { loadSodium } from "./sodium.ts";

const native = selectCrypto("native");
const noble = selectCrypto("noble");
const portable = new CryptoSelector(() => undefined).select("auto");
const backends: [string, CryptoBackend][] = [["native", native], ["noble", noble], ["portable", portable]];
const EMPTY = new Uint8Array(0);

/** A file of ../shared/vectors, or `undefined` (with a visible message) where the folder is absent. */
function shared<T>(name: string): T | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(new URL(`../../shared/vectors/${name}`, import.meta.url)));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.warn(`SKIPPED: ../shared/vectors/${name} is not there`);
    return undefined;
  }
}

function seal(crypto: CryptoBackend, key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, text: Uint8Array) {
  const out = new Uint8Array(text.length + 16);
  crypto.chacha20Poly1305(key).seal(nonce, aad, text, out, 0);
  return out;
}

// ---- literal vectors ----

for (const [name, crypto] of backends) {
  Deno.test(`${name}: ChaCha20-Poly1305 gives RFC 8439 §2.8.2`, () => {
    const sunscreen = utf8(
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
    );
    const key = fromHex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    const nonce = fromHex("070000004041424344454647");
    const aad = fromHex("50515253c0c1c2c3c4c5c6c7");
    const sealed = seal(crypto, key, nonce, aad, sunscreen);
    assertEquals(
      toHex(sealed),
      "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b" +
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    );
    assertEquals(crypto.chacha20Poly1305(key).open(nonce, aad, sealed), sunscreen);
  });

  Deno.test(`${name}: SHA-256, HMAC-SHA-256 and HKDF give FIPS 180-4, RFC 4231 and RFC 5869`, () => {
    assertEquals(
      toHex(crypto.sha256()),
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    );
    assertEquals(
      toHex(crypto.sha256(utf8("ab"), EMPTY, utf8("c"))),
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
    assertEquals(
      toHex(crypto.hmacSha256(new Uint8Array(20).fill(0x0b), utf8("Hi "), utf8("There"))),
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    );
    const ikm = new Uint8Array(22).fill(0x0b);
    // RFC 5869 A.1
    assertEquals(
      toHex(
        crypto.hkdfSha256(ikm, fromHex("000102030405060708090a0b0c"), fromHex("f0f1f2f3f4f5f6f7f8f9"), 42),
      ),
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    );
    // RFC 5869 A.2
    const range = (from: number, to: number) => Uint8Array.from({ length: to - from }, (_, i) => from + i);
    assertEquals(
      toHex(crypto.hkdfSha256(range(0, 80), range(0x60, 0xb0), range(0xb0, 0x100), 82)),
      "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09" +
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    );
    // RFC 5869 A.3
    assertEquals(
      toHex(crypto.hkdfSha256(ikm, EMPTY, EMPTY, 42)),
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    );
  });

  Deno.test(`${name}: X25519 gives RFC 7748 §5.2 and §6.1`, () => {
    const once = (scalar: string, u: string) => toHex(crypto.x25519(fromHex(scalar)).dh(fromHex(u))!);
    assertEquals(
      once(
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
      ),
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    );
    assertEquals(
      once(
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
      ),
      "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    );
    const alice = crypto.x25519(fromHex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    const bob = crypto.x25519(fromHex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    assertEquals(toHex(alice.publicKey), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    assertEquals(toHex(bob.publicKey), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    assertEquals(
      toHex(alice.dh(bob.publicKey)!),
      "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    );
  });

  Deno.test(`${name}: ML-KEM-768 gives the known key, shared secret and implicit rejection`, async () => {
    const seed = Uint8Array.from({ length: 64 }, (_, i) => i);
    const message = Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i);
    const key = await crypto.mlKem768(seed);
    assertEquals(
      toHex(crypto.sha256(key.publicKey)),
      "0b7934c83125c788995e2ba6bd761e33046b3e40571be53e023309a29f398cc9",
    );
    const made = await crypto.mlKem768Encapsulate(key.publicKey, message);
    const secret = "ef91db44b6cd5b2c50f483481a3d6e2a08cc149764fcb8dc568851332da45ed9";
    assertEquals(toHex(made!.sharedSecret), secret);
    assertEquals(toHex(await key.decapsulate(made!.ciphertext)), secret);
    assertEquals(
      toHex(await key.decapsulate(new Uint8Array(1088))),
      "c8fbeddafdacef2ffeb8b354ea644f11b5c150f3e2c4a74ce38abba8f854ae16",
    );
    key.wipe();
  });
}

Deno.test("native: X25519 iterated a thousand times gives RFC 7748 §5.2", () => {
  let k = fromHex("09" + "00".repeat(31));
  let u = k;
  for (let i = 0; i < 1000; i++) [k, u] = [native.x25519(k).dh(u)!, k];
  assertEquals(toHex(k), "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
});

// ---- Wycheproof ----

interface Wycheproof<T> {
  testGroups: { tests: (T & { tcId: number; comment: string; result: string; flags: string[] })[] }[];
}

const sodium: [string, CryptoBackend] = ["libsodium", selectCrypto()];

for (const [name, crypto] of [...backends.slice(0, 2), sodium]) {
  Deno.test(`${name}: ChaCha20-Poly1305 passes Wycheproof`, async () => {
    if (name === sodium[0]) assert(await loadSodium());
    const file = shared<
      Wycheproof<{ key: string; iv: string; aad: string; msg: string; ct: string; tag: string }>
    >(
      "wycheproof_chacha20_poly1305.json",
    );
    let count = 0;
    for (const test of file?.testGroups.flatMap((group) => group.tests) ?? []) {
      const aead = crypto.chacha20Poly1305(fromHex(test.key));
      const [nonce, aad, text] = [fromHex(test.iv), fromHex(test.aad), fromHex(test.msg)];
      const sealed = fromHex(test.ct + test.tag);
      if (nonce.length !== 12) {
        assertThrows(() => aead.open(nonce, aad, sealed), TypeError, "nonce");
        assertThrows(
          () => aead.seal(nonce, aad, text, new Uint8Array(text.length + 16), 0),
          TypeError,
          "nonce",
        );
      } else if (test.result === "valid") {
        const out = new Uint8Array(text.length + 16 + 2).fill(0xee);
        aead.seal(nonce, aad, text, out, 1);
        assertEquals(toHex(out), `ee${test.ct}${test.tag}ee`, `case ${test.tcId}`);
        assertEquals(aead.open(nonce, aad, sealed), text, `case ${test.tcId}`);
      } else {
        assertEquals(aead.open(nonce, aad, sealed), undefined, `case ${test.tcId}`);
      }
      count++;
    }
    if (file) assertEquals(count, 325);
  });

  Deno.test(`${name}: X25519 passes Wycheproof and refuses just the shared values of zero`, () => {
    const file = shared<Wycheproof<{ public: string; private: string; shared: string }>>(
      "wycheproof_x25519.json",
    );
    let zero = 0;
    for (const test of file?.testGroups.flatMap((group) => group.tests) ?? []) {
      const got = crypto.x25519(fromHex(test.private)).dh(fromHex(test.public));
      if (test.flags.includes("ZeroSharedSecret")) {
        assertEquals(got, undefined, `case ${test.tcId}`);
        zero++;
      } else {
        assertEquals(got && toHex(got), test.shared, `case ${test.tcId}`);
      }
    }
    if (file) assertEquals(zero, 31);
  });

  Deno.test(`${name}: HKDF-SHA-256 passes Wycheproof`, async () => {
    if (name === sodium[0]) assert(await loadSodium());
    const file = shared<Wycheproof<{ ikm: string; salt: string; info: string; size: number; okm: string }>>(
      "wycheproof_hkdf_sha256.json",
    );
    let count = 0;
    for (const test of file?.testGroups.flatMap((group) => group.tests) ?? []) {
      const derive = () =>
        crypto.hkdfSha256(fromHex(test.ikm), fromHex(test.salt), fromHex(test.info), test.size);
      if (test.result === "valid") assertEquals(toHex(derive()), test.okm, `case ${test.tcId}`);
      else assertThrows(derive, RangeError);
      count++;
    }
    if (file) assertEquals(count, 86);
  });
}

// ---- the two against each other ----

const bytes = (minLength: number, maxLength = minLength) => fc.uint8Array({ minLength, maxLength });

Deno.test("native and noble seal alike and open each other's boxes on random input", () => {
  fc.assert(
    fc.property(
      bytes(32),
      bytes(12),
      bytes(0, 40),
      bytes(0, 400),
      fc.nat(9),
      (key, nonce, aad, text, pad) => {
        // A subarray at an odd offset must do as well.
        const shifted = new Uint8Array(pad + text.length);
        shifted.set(text, pad);
        const a = seal(native, key, nonce, aad, shifted.subarray(pad));
        const b = seal(noble, key, nonce, aad, text);
        assertEquals(a, b);
        assertEquals(native.chacha20Poly1305(key).open(nonce, aad, b), new Uint8Array(text));
        assertEquals(noble.chacha20Poly1305(key).open(nonce, aad, a), new Uint8Array(text));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("native and noble refuse the same changed boxes", () => {
  fc.assert(
    fc.property(bytes(32), bytes(12), bytes(0, 20), bytes(0, 60), fc.nat(), (key, nonce, aad, text, at) => {
      const sealed = seal(native, key, nonce, aad, text);
      sealed[at % sealed.length]! ^= 1 << (at % 8);
      for (const crypto of [native, noble]) {
        const aead = crypto.chacha20Poly1305(key);
        assertEquals(aead.open(nonce, aad, sealed), undefined);
        assertEquals(aead.open(nonce, aad, sealed.subarray(0, at % 16)), undefined);
      }
    }),
    { numRuns: 200 },
  );
});

Deno.test("native and noble hash, authenticate and derive alike on random input", () => {
  const parts = fc.array(bytes(0, 200), { maxLength: 4 });
  fc.assert(
    fc.property(
      bytes(0, 80),
      bytes(0, 80),
      bytes(0, 80),
      fc.integer({ min: 1, max: 300 }),
      parts,
      (a, b, c, n, p) => {
        assertEquals(native.sha256(...p), noble.sha256(...p));
        assertEquals(native.hmacSha256(a, ...p), noble.hmacSha256(a, ...p));
        assertEquals(native.hkdfSha256(a, b, c, n), noble.hkdfSha256(a, b, c, n));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("HKDF takes an info of any length, and no length at all", () => {
  for (const size of [0, 1023, 1024, 1025, 5000]) {
    const info = new Uint8Array(size).fill(3);
    assertEquals(native.hkdfSha256(EMPTY, EMPTY, info, 40), noble.hkdfSha256(EMPTY, EMPTY, info, 40));
  }
  for (const crypto of [native, noble]) assertEquals(crypto.hkdfSha256(EMPTY, EMPTY, EMPTY, 0).length, 0);
});

Deno.test("native and noble agree on X25519 for random and for non-canonical keys", () => {
  fc.assert(
    fc.property(bytes(32), bytes(32), (scalar, u) => {
      const [a, b] = [native.x25519(scalar), noble.x25519(scalar)];
      assertEquals(a.publicKey, b.publicKey);
      assertEquals(a.dh(u), b.dh(u));
    }),
    { numRuns: 40 },
  );
});

Deno.test("native and noble agree on ML-KEM-768 from a random seed, whoever encapsulates", async () => {
  await fc.assert(
    fc.asyncProperty(bytes(64), async (seed) => {
      const [a, b] = [await native.mlKem768(seed), await noble.mlKem768(seed)];
      assertEquals(a.publicKey, b.publicKey);
      for (const crypto of [native, noble]) {
        const made = (await crypto.mlKem768Encapsulate(a.publicKey))!;
        assertEquals(await a.decapsulate(made.ciphertext), made.sharedSecret);
        assertEquals(await b.decapsulate(made.ciphertext), made.sharedSecret);
        made.ciphertext[7]! ^= 1;
        const rejected = await a.decapsulate(made.ciphertext);
        assertNotEquals(rejected, made.sharedSecret);
        assertEquals(await b.decapsulate(made.ciphertext), rejected);
      }
    }),
    { numRuns: 12 },
  );
});

// ---- refusals, the same in every backend ----

for (const [name, crypto] of backends) {
  Deno.test(`${name}: refuses every nonce length but 12, before anything is written`, () => {
    const aead = crypto.chacha20Poly1305(new Uint8Array(32));
    for (let length = 0; length <= 32; length++) {
      if (length === 12) continue;
      const out = new Uint8Array(20);
      assertThrows(() => aead.seal(new Uint8Array(length), EMPTY, new Uint8Array(4), out, 0), TypeError);
      assertThrows(() => aead.open(new Uint8Array(length), EMPTY, new Uint8Array(20)), TypeError);
      assertEquals(out, new Uint8Array(20));
    }
  });

  Deno.test(`${name}: refuses arguments of the wrong length`, async () => {
    assertThrows(() => crypto.chacha20Poly1305(new Uint8Array(31)), TypeError);
    assertThrows(() => crypto.x25519(new Uint8Array(33)), TypeError);
    assertThrows(() => crypto.x25519().dh(new Uint8Array(31)), TypeError);
    assertThrows(() => crypto.hkdfSha256(EMPTY, EMPTY, EMPTY, 255 * 32 + 1), RangeError);
    assertThrows(() => crypto.hkdfSha256(EMPTY, EMPTY, EMPTY, -1), RangeError);
    const aead = crypto.chacha20Poly1305(new Uint8Array(32));
    const out = new Uint8Array(19);
    assertThrows(() => aead.seal(new Uint8Array(12), EMPTY, new Uint8Array(4), out, 0), RangeError);
    assertThrows(() => aead.seal(new Uint8Array(12), EMPTY, new Uint8Array(3), out, 1), RangeError);
    assertThrows(() => aead.seal(new Uint8Array(12), EMPTY, new Uint8Array(3), out, -1), RangeError);
    await assertRejects(() => crypto.mlKem768(new Uint8Array(63)), TypeError);
    await assertRejects(() => crypto.mlKem768Encapsulate(new Uint8Array(1183)), TypeError);
    await assertRejects(
      () => crypto.mlKem768Encapsulate(new Uint8Array(1184), new Uint8Array(31)),
      TypeError,
    );
    const key = await crypto.mlKem768();
    await assertRejects(async () => await key.decapsulate(new Uint8Array(1087)), TypeError);
  });

  Deno.test(`${name}: refuses an ML-KEM key that fails the modulus check (FIPS 203 §7.2)`, async () => {
    const { publicKey } = await crypto.mlKem768();
    const bad = new Uint8Array(publicKey);
    bad[0] = 0x01;
    bad[1] = (bad[1]! & 0xf0) | 0x0d; // first coefficient 0xd01 = 3329 = q
    assertEquals(await crypto.mlKem768Encapsulate(bad), undefined);
    bad[0] = 0x00; // 3328 is the largest that is right
    assert(await crypto.mlKem768Encapsulate(bad) !== undefined);
    assertEquals(await crypto.mlKem768Encapsulate(new Uint8Array(1184).fill(0xff)), undefined);
  });

  Deno.test(`${name}: what was wiped cannot be used`, async () => {
    const aead = crypto.chacha20Poly1305(new Uint8Array(32));
    const dh = crypto.x25519();
    const kem = await crypto.mlKem768();
    for (const key of [aead, dh, kem]) key.wipe();
    for (const key of [aead, dh, kem]) key.wipe(); // twice is fine
    assertThrows(() => aead.seal(new Uint8Array(12), EMPTY, EMPTY, new Uint8Array(16), 0), TypeError);
    assertThrows(() => aead.open(new Uint8Array(12), EMPTY, new Uint8Array(16)), TypeError);
    assertThrows(() => dh.dh(new Uint8Array(32).fill(9)), TypeError);
    await assertRejects(async () => await kem.decapsulate(new Uint8Array(1088)), TypeError);
  });

  Deno.test(`${name}: keys are copied, not borrowed`, () => {
    const key = new Uint8Array(32).fill(7);
    const aead = crypto.chacha20Poly1305(key);
    const expected = seal(crypto, key, new Uint8Array(12), EMPTY, utf8("same"));
    key.fill(0);
    const out = new Uint8Array(20);
    aead.seal(new Uint8Array(12), EMPTY, utf8("same"), out, 0);
    assertEquals(out, expected);
  });

  Deno.test(`${name}: an opened plaintext aliases neither the box nor a shared pool`, () => {
    const key = new Uint8Array(32);
    const box = seal(crypto, key, new Uint8Array(12), EMPTY, utf8("0123456789"));
    const opened = crypto.chacha20Poly1305(key).open(new Uint8Array(12), EMPTY, box)!;
    box.fill(0);
    assertEquals(opened, utf8("0123456789"));
    assertEquals(opened.buffer.byteLength, 10);
    assertEquals(Object.getPrototypeOf(opened), Uint8Array.prototype);
  });

  Deno.test(`${name}: random bytes of any length, fresh each time (e-50)`, () => {
    assertEquals(crypto.randomBytes(0).length, 0);
    assertEquals(crypto.randomBytes(70_000).length, 70_000);
    assertNotEquals(crypto.randomBytes(32), crypto.randomBytes(32));
    assertNotEquals(crypto.x25519().publicKey, crypto.x25519().publicKey);
  });
}

// ---- the choice of a backend ----

Deno.test("selectCrypto() goes by the native backend here, and keeps it", () => {
  assertEquals(selectCrypto().name, "native");
  assert(selectCrypto() === selectCrypto("auto"));
  assert(selectCrypto("native") === selectCrypto("native"));
  assert(selectCrypto("noble") === selectCrypto("noble"));
  // @ts-expect-error: a name that does not exist
  assertThrows(() => selectCrypto("openssl"), TypeError);
});

Deno.test("where there is no node:crypto, auto is noble and native says what to do", () => {
  const selector = new CryptoSelector(() => undefined);
  assertEquals(selector.select("auto").name, "noble");
  const error = assertThrows(() => selector.select("native"), HtxError, '"noble"');
  assertEquals(error.code, "UNSUPPORTED");
});

Deno.test("a native primitive that answers wrongly is not trusted, whatever its name", () => {
  const node = findNodeCrypto()!;
  const lies: Partial<Record<keyof NodeCryptoModule, unknown>>[] = [
    { createHash: () => ({ update() {}, digest: () => new Uint8Array(32) }) },
    { createHmac: () => ({ update() {}, digest: () => new Uint8Array(32) }) },
    { hkdfSync: () => new ArrayBuffer(42) },
    { diffieHellman: () => new Uint8Array(32).fill(1) },
    { diffieHellman: undefined },
    {
      createCipheriv: () => ({
        setAAD() {},
        update: (x: Uint8Array) => x,
        final() {},
        getAuthTag: () => new Uint8Array(16),
      }),
    },
    { createDecipheriv: () => ({ setAAD() {}, setAuthTag() {}, update: (x: Uint8Array) => x, final() {} }) },
    { generateKeyPairSync: () => ({}) },
  ];
  for (const lie of lies) {
    const selector = new CryptoSelector(() => Object.assign(Object.create(node), lie) as NodeCryptoModule);
    assertEquals(selector.select("auto").name, "noble", Object.keys(lie)[0]!);
    assertThrows(() => selector.select("native"), HtxError);
  }
});

Deno.test("answersKnown() notices an AEAD that skips its tag or its header", () => {
  assert(answersKnown(native) && answersKnown(noble));
  const lax = Object.create(noble) as CryptoBackend;
  lax.sha256 = (...parts) => noble.sha256(...parts);
  lax.chacha20Poly1305 = (key) => {
    const aead = noble.chacha20Poly1305(key);
    return {
      seal: (...args) => aead.seal(...args),
      open: (nonce, aad, sealed) =>
        aead.open(nonce, aad, sealed) ?? new Uint8Array(Math.max(0, sealed.length - 16)),
      wipe: () => aead.wipe(),
    };
  };
  assertFalse(answersKnown(lax));
});

Deno.test("the WebCrypto ML-KEM of this runtime passes; one that lies or is not there is not taken", async () => {
  assert(await webCryptoKem() !== undefined);
  assertEquals(await probeWebCryptoKem(undefined), undefined);
  assertEquals(await probeWebCryptoKem({}), undefined);
  const subtle = crypto.subtle as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
  const names = [
    "importKey",
    "exportKey",
    "generateKey",
    "getPublicKey",
    "encapsulateBits",
    "decapsulateBits",
  ];
  const honest = () =>
    Object.fromEntries(names.map((name) => [name, (...args: unknown[]) => subtle[name]!(...args)]));
  assert(await probeWebCryptoKem(honest()) !== undefined);
  for (const name of names) {
    assertEquals(
      await probeWebCryptoKem({ ...honest(), [name]: () => Promise.resolve(new ArrayBuffer(32)) }),
      undefined,
      name,
    );
    assertEquals(
      await probeWebCryptoKem({ ...honest(), [name]: () => Promise.reject(new Error("no")) }),
      undefined,
      name,
    );
  }
});

// ---- X25519 identities ----

Deno.test("isCanonicalX25519() takes values below 2^255-19 with the top bit clear, and nothing else", () => {
  const p = (low: string, high = "7f") => fromHex(low + "ff".repeat(30) + high);
  const table: [Uint8Array, boolean][] = [
    [new Uint8Array(32), true],
    [p("ec"), true], // p - 1
    [p("ed"), false], // p
    [p("ee"), false],
    [p("ff"), false], // 2^255 - 1
    [p("ec", "ff"), false], // the top bit
    [fromHex("00".repeat(31) + "80"), false],
    [fromHex("ff".repeat(31) + "7e"), true],
    [fromHex("ff" + "ff".repeat(29) + "fe7f"), true],
    [fromHex("ff00" + "ff".repeat(29) + "7f"), true],
    [new Uint8Array(31), false],
    [new Uint8Array(33), false],
    [new Uint8Array(0), false],
  ];
  for (const [key, expected] of table) assertEquals(isCanonicalX25519(key), expected, toHex(key));
});

Deno.test("every public key that a backend makes is canonical, and its other spellings are not", () => {
  for (let i = 0; i < 50; i++) {
    const { publicKey } = native.x25519();
    assert(isCanonicalX25519(publicKey));
    publicKey[31]! |= 0x80;
    assertFalse(isCanonicalX25519(publicKey));
  }
});

// ---- Ed25519 ----

Deno.test("Ed25519 gives RFC 8032 §7.1 tests 1 to 3", () => {
  const tests = [
    [
      "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
      "",
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155" +
      "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ],
    [
      "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
      "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
      "72",
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
      "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
      "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
      "af82",
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac" +
      "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ],
  ] as const;
  for (const [secret, publicKey, message, signature] of tests) {
    assertEquals(toHex(ed25519PublicKey(fromHex(secret))), publicKey);
    assertEquals(toHex(ed25519Sign(fromHex(message), fromHex(secret))), signature);
    assert(ed25519Verify(fromHex(signature), fromHex(message), fromHex(publicKey)));
  }
});

Deno.test("ed25519Verify() refuses every flipped bit of the signature", () => {
  const secret = new Uint8Array(32).fill(5);
  const publicKey = ed25519PublicKey(secret);
  const signature = ed25519Sign(utf8("message"), secret);
  assertFalse(ed25519Verify(signature, utf8("messagf"), publicKey));
  for (let bit = 0; bit < 512; bit += 7) {
    const changed = new Uint8Array(signature);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    assertFalse(ed25519Verify(changed, utf8("message"), publicKey), `bit ${bit}`);
  }
});

Deno.test("ed25519Verify() is strict: no S above the order, no small-order key, no other spelling of a point", () => {
  const secret = new Uint8Array(32).fill(5);
  const publicKey = ed25519PublicKey(secret);
  const signature = ed25519Sign(utf8("m"), secret);
  // S + L is the same number modulo L: RFC 8032 §5.1.7 refuses it.
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  let s = order;
  for (let i = 0; i < 32; i++) s += BigInt(signature[32 + i]!) << BigInt(8 * i);
  const malleable = new Uint8Array(signature);
  for (let i = 0; i < 32; i++) malleable[32 + i] = Number((s >> BigInt(8 * i)) & 0xffn);
  assertFalse(ed25519Verify(malleable, utf8("m"), publicKey));
  // R = identity, S = 0 verifies any message under the identity key where small orders are let through.
  const identity = fromHex("01" + "00".repeat(31));
  const forged = fromHex("01" + "00".repeat(63));
  for (
    const small of [
      identity,
      fromHex("00".repeat(32)),
      fromHex("ec" + "ff".repeat(30) + "7f"),
      fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
      fromHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
      fromHex("01" + "00".repeat(30) + "80"), // non-canonical zero sign
      fromHex("ee" + "ff".repeat(30) + "7f"), // p + 1
    ]
  ) {
    for (let i = 0; i < 16; i++) assertFalse(ed25519Verify(forged, Uint8Array.of(i), small), toHex(small));
  }
});

Deno.test("ed25519Verify() never throws; signing wants a key of 32 bytes", () => {
  fc.assert(
    fc.property(bytes(0, 70), bytes(0, 10), bytes(0, 40), (signature, message, key) => {
      assertFalse(ed25519Verify(signature, message, key));
    }),
    { numRuns: 100 },
  );
  fc.assert(
    fc.property(bytes(64), bytes(32), (signature, key) => assertFalse(ed25519Verify(signature, EMPTY, key))),
    { numRuns: 50 },
  );
  assertThrows(() => ed25519Sign(EMPTY, new Uint8Array(31)), TypeError);
  assertThrows(() => ed25519PublicKey(new Uint8Array(33)), TypeError);
});
