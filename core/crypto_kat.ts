/**
 * Known answers that a native primitive must give before it is trusted. Each comes from a published vector, and
 * none from the code that is tested.
 *
 * @module
 */

import { fromHex, toHex, utf8 } from "./bytes.ts";
import type { Bytes, CryptoBackend } from "./crypto.ts";

const NONE = /* @__PURE__ */ new Uint8Array(0);

/** Whether the synchronous primitives of `backend` answer rightly. Never throws. */
export function answersKnown(backend: CryptoBackend): boolean {
  try {
    return aeadAnswers(backend) && hashAnswers(backend) && dhAnswers(backend);
  } catch {
    return false; // a primitive that throws on good input is no primitive
  }
}

/** RFC 8439 §2.8.2, and the refusal of a changed tag, of a changed text and of a changed header. */
function aeadAnswers(backend: CryptoBackend): boolean {
  const plaintext = utf8(
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
  );
  const expected =
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b" +
    "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9d" +
    "e576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
  const aead = backend.chacha20Poly1305(
    fromHex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"),
  );
  const nonce = fromHex("070000004041424344454647");
  const aad = fromHex("50515253c0c1c2c3c4c5c6c7");
  const sealed = new Uint8Array(plaintext.length + 16 + 3);
  aead.seal(nonce, aad, plaintext, sealed, 3);
  const box = sealed.subarray(3);
  if (toHex(box) !== expected) return false;
  const opened = aead.open(nonce, aad, box);
  if (opened === undefined || toHex(opened) !== toHex(plaintext)) return false;
  for (const changed of [0, box.length - 1]) {
    const forged = new Uint8Array(box);
    forged[changed]! ^= 1;
    if (aead.open(nonce, aad, forged) !== undefined) return false;
  }
  if (aead.open(nonce, aad.subarray(1), box) !== undefined) return false;
  // No text, no header: the tag alone, as Noise seals an empty payload.
  const tag = new Uint8Array(16);
  aead.seal(nonce, NONE, NONE, tag, 0);
  return aead.open(nonce, NONE, tag)?.length === 0 &&
    aead.open(nonce, NONE, tag.map((byte) => byte ^ 128)) === undefined;
}

/** FIPS 180-4 "abc"; RFC 4231 case 2; RFC 5869 A.1 and A.3. */
function hashAnswers(backend: CryptoBackend): boolean {
  const hkdf1 = backend.hkdfSha256(
    fromHex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
    fromHex("000102030405060708090a0b0c"),
    fromHex("f0f1f2f3f4f5f6f7f8f9"),
    42,
  );
  const hkdf3 = backend.hkdfSha256(fromHex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"), NONE, NONE, 42);
  return toHex(backend.sha256(utf8("a"), utf8("bc"))) ===
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" &&
    toHex(backend.hmacSha256(utf8("Jefe"), utf8("what do ya want "), utf8("for nothing?"))) ===
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" &&
    toHex(hkdf1) === "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865" &&
    toHex(hkdf3) === "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
}

/** RFC 7748 §6.1, from both sides, and the refusal of a shared value of zero. */
function dhAnswers(backend: CryptoBackend): boolean {
  const alice = backend.x25519(fromHex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
  const bob = backend.x25519(fromHex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
  const shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
  const fresh = [backend.x25519(), backend.x25519()] as const;
  return toHex(alice.publicKey) === "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a" &&
    toHex(bob.publicKey) === "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f" &&
    toHex(alice.dh(bob.publicKey) ?? NONE) === shared &&
    toHex(bob.dh(alice.publicKey) ?? NONE) === shared &&
    alice.dh(new Uint8Array(32)) === undefined &&
    toHex(fresh[0].dh(fresh[1].publicKey) ?? NONE) ===
      toHex(fresh[1].dh(fresh[0].publicKey) ?? new Uint8Array(1));
}

/** ML-KEM-768 (FIPS 203): one key, one encapsulation, and what a ciphertext of zeros gives by implicit rejection. */
export const KEM_KAT = {
  /** d, then z. */
  seed: (): Bytes => Uint8Array.from({ length: 64 }, (_, i) => i),
  /** SHA-256 of the encapsulation key. */
  publicKeyHash: "0b7934c83125c788995e2ba6bd761e33046b3e40571be53e023309a29f398cc9",
  /** The ciphertext of the message 80 81 … 9f. */
  ciphertext: (): Bytes => Uint8Array.from(atob(KEM_CIPHERTEXT), (c) => c.charCodeAt(0)),
  /** The shared secret in it. */
  sharedSecret: "ef91db44b6cd5b2c50f483481a3d6e2a08cc149764fcb8dc568851332da45ed9",
  /** What 1088 bytes of zero decapsulate to. */
  rejected: "c8fbeddafdacef2ffeb8b354ea644f11b5c150f3e2c4a74ce38abba8f854ae16",
} as const;

const KEM_CIPHERTEXT = /* @__PURE__ */ [
  "BMHkO9ghOeRgCqh/3cB5P3wUfg633Mw3fwGdIsFuzcvSLgW7ReL9OMoYTnvMW7UEzcE/xtkVzAKQVzEYFL2RaSPeJTMKIqU7YGHc",
  "F9iSxDcnYQjxyxK7uzfc4X60/s/2iFmFDbrE4Lb8IYokyqgqRDSwiG5j6CRjKqMrDc4gdjbL60CiK4QywJTwf1SvN5PWRJMiBmiQ",
  "V259GRNH40V48mTFQGN558DEbbwYV9zQfO0C3RSl6ILLgHOgkGrik+emOUmTIXUbfZs94eOO6/IPwJV/5yZDEG64qHs4YuaAwjXZ",
  "mn5DL3vOZcy+0Wlz7UbyPCB+QJalY6lFqGf+qtsqAdVw07/3WFxfJ2oj6PiZUHaQT4nQ0ESs9mqTVQMJMmcx70wFCQRwFeAGiGLe",
  "lD6EzJ+rM4UMhuKV3KgtRLPOI2wYaq2BINkTTU9ll+cnhTT0IzkoaYfAbEug1SyC5FEEEQbO3bPGFU1yqCFN5qtOevlmI2hKNhMN",
  "lkmGmHJOS1/gL5jmAuXYnzUzVBK7fT2TUL1huZ3Y9Sm49h5dT2y3hzPTBI5JHzKW+5lyyor0M4cCh/LuUsz0hxZtftu6/kdb0wwa",
  "qDHlw0l16bInxQBczkg9n+rCs5Lvvl58G4HXLWHvapxV83FwxpS0C65ea4knSyVhPbPeB9Qmv7Iduaj4zSvrh1b9ya+GPJBML/lF",
  "PSHOFHyWxW4uBS366mrQ7G3H66Na8YXS35nuPQriKIbTE12gTZDcOEhX0SjTjqEo95TTfXwtx01UBkVfBL59dbW8/8KyD6NKXLYz",
  "xTh0o5MKvzh/FvWw2lMyDcV0eVYBXyimq1RRnQUo5P5WUVrOAQnL6hF/7654RuTBZ3NIgOpq2wYqu3pTD1hVEzAX/N9LJWF4gesW",
  "U4v2nzY9b0v5gAs2h+Cxj2NIml2iGst4JY82ww52ttJox3Ex32ToYlqvj9HUPekqH6hXj7IszeW5foQP6XUDxhIZnn6Z17SEkDWz",
  "vSdCKN4K1Ib7eIAX4hJONOv7CIXPocVEXRL2TaNpTKDu4gVQaVCghJXxvoa6DXVs41xZnpUHo9vuqEA/eOceHwlypLlVGdNKsgsw",
  "KpOQITlmamAA9FSe0tsHriEXM8kFChAVPdVfOwLpw0X/tKWMC9LKNOI8PT3EXs2HUyFCD5IVJ+fR3ie/lSWuTAFKtS0Ud3G+Ap0d",
  "wYNS2T9Hw6x6LS1gBNGnDaIgfLfeZkFm4r5Tf97kTZaX+aWtgJNM8YnNNMYWDwWFLeYB78jnRVQzacqU19b2Yd4CDDK2P/+g5fhd",
  "qHSU+ChrSfA6PjAG32qLnLxN14RoCdJNI9ChrhkcuP0ZRtcTdioUosTmiSd3RXDB9uRyBHVQ7YuD5ad8wVDXAPgEM1AtrxLDPaRA",
  "ng93at1LmQ3G7ZpCAuo+yl3sn74CgcounmLCGNPcXNkv/AQKnOA=",
].join("");
