import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { selectCrypto } from "./crypto.ts";
import { loadSodium } from "./sodium.ts";

Deno.test("loadSodium() brings a cipher that agrees with the portable one around every bound", async () => {
  assert(await loadSodium());
  assertEquals(await loadSodium(), true, "once is enough");
  const noble = selectCrypto("noble");
  const auto = selectCrypto();
  const bytes = (length: number) => auto.randomBytes(length);
  fc.assert(
    fc.property(
      fc.oneof(fc.constantFrom(0, 1, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 5000), fc.nat(1100)),
      fc.constantFrom(0, 4, 12, 32, 33),
      fc.nat(7),
      (length, aadLength, offset) => {
        const [key, nonce, aad, plaintext] = [bytes(32), bytes(12), bytes(aadLength), bytes(length)];
        const [here, there] = [auto.chacha20Poly1305(key), noble.chacha20Poly1305(key)];
        const sealed = new Uint8Array(offset + length + 16);
        const expected = new Uint8Array(offset + length + 16);
        here.seal(nonce, aad, plaintext, sealed, offset);
        there.seal(nonce, aad, plaintext, expected, offset);
        assertEquals(sealed, expected);
        const box = sealed.subarray(offset);
        assertEquals(here.open(nonce, aad, box), plaintext);
        box[length >> 1]! ^= 0x10;
        assertEquals(here.open(nonce, aad, box), undefined);
        box[length >> 1]! ^= 0x10;
        if (aadLength > 0) {
          aad[0]! ^= 1;
          assertEquals(here.open(nonce, aad, box), undefined);
        }
        here.wipe();
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("loadSodium() brings a key derivation that agrees with the portable one around every bound", async () => {
  assert(await loadSodium());
  const noble = selectCrypto("noble");
  const auto = selectCrypto();
  const size = fc.oneof(fc.constantFrom(0, 1, 31, 32, 33, 63, 64, 65, 128, 200), fc.nat(70));
  fc.assert(
    fc.property(size, size, size, size, (ikmLength, saltLength, infoLength, length) => {
      const [ikm, salt, info] = [ikmLength, saltLength, infoLength].map((size) => auto.randomBytes(size)) as [
        Uint8Array,
        Uint8Array,
        Uint8Array,
      ];
      assertEquals(auto.hkdfSha256(ikm, salt, info, length), noble.hkdfSha256(ikm, salt, info, length));
    }),
    { numRuns: 500 },
  );
  for (const length of [-1, 1.5, 8161, NaN]) {
    assertThrows(
      () => auto.hkdfSha256(new Uint8Array(1), new Uint8Array(1), new Uint8Array(1), length),
      RangeError,
    );
  }
});

Deno.test("a cipher that was wiped is of no use, whichever route it would take", async () => {
  await loadSodium();
  for (const length of [10, 5000]) {
    const aead = selectCrypto().chacha20Poly1305(new Uint8Array(32));
    aead.wipe();
    let refused = false;
    try {
      aead.seal(
        new Uint8Array(12),
        new Uint8Array(0),
        new Uint8Array(length),
        new Uint8Array(length + 16),
        0,
      );
    } catch {
      refused = true;
    }
    assert(refused);
  }
});
