import { assertEquals, assertThrows } from "@std/assert";
import { fromHex, selectCrypto, toHex, utf8 } from "../core/mod.ts";
import { CipherState } from "./cipher_state.ts";

const key = new Uint8Array(32).fill(7);

for (const crypto of [selectCrypto("native"), selectCrypto("noble")]) {
  Deno.test(`${crypto.name}: CipherState: a forged message changes nothing, the true one then opens, once`, () => {
    const writer = new CipherState(key, crypto);
    const reader = new CipherState(key, crypto);
    const message = writer.encryptWithAd(utf8("ad"), utf8("text"));
    const forged = new Uint8Array(message);
    forged[0]! ^= 1;
    assertEquals(reader.decryptWithAd(utf8("ad"), forged), undefined);
    assertEquals(reader.decryptWithAd(utf8("AD"), message), undefined);
    assertEquals(reader.n, 0);
    assertEquals(reader.decryptWithAd(utf8("ad"), message), utf8("text"));
    assertEquals(reader.n, 1);
    assertEquals(reader.decryptWithAd(utf8("ad"), message), undefined); // its nonce has gone by
  });

  Deno.test(`${crypto.name}: CipherState: the nonce is 32 bits of zeros, then LE64(n), past 2^32 too (e-46)`, () => {
    for (
      const [n, nonce] of [[1, "0000000001"], [0x01020304, "0000000004030201"], [
        2 ** 32 + 5,
        "000000000500000001",
      ]]
    ) {
      const state = new CipherState(key, crypto);
      state.setNonce(n as number);
      const sealed = new Uint8Array(17);
      crypto.chacha20Poly1305(key).seal(
        fromHex((nonce as string).padEnd(24, "0")),
        utf8(""),
        utf8("x"),
        sealed,
        0,
      );
      assertEquals(toHex(state.encryptWithAd(utf8(""), utf8("x"))), toHex(sealed));
    }
  });

  Deno.test(`${crypto.name}: CipherState: never wraps its counter, and refuses once it is used up (e-46)`, () => {
    const state = new CipherState(key, crypto);
    state.setNonce(Number.MAX_SAFE_INTEGER - 1);
    state.encryptWithAd(utf8(""), utf8("last"));
    assertThrows(() => state.encryptWithAd(utf8(""), utf8("one more")), RangeError);
    assertThrows(() => state.decryptWithAd(utf8(""), new Uint8Array(16)), RangeError);
    for (const n of [-1, 0.5, NaN, 2 ** 53]) assertThrows(() => state.setNonce(n), RangeError);
  });

  Deno.test(`${crypto.name}: CipherState: a wiped key cannot be used`, () => {
    const state = new CipherState(key, crypto);
    state.wipe();
    assertThrows(() => state.encryptWithAd(utf8(""), utf8("")), TypeError);
  });
}
