/** What someone sees who has every byte on the wire and both public keys (e-01). */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { concat, deriveSessionKeys, selectCrypto, toHex, utf8 } from "../core/mod.ts";
import { initiate, respond } from "./handshake.ts";
import { KeyPair } from "./key_pair.ts";
import { ReplayGuard } from "./replay_guard.ts";
import { memoryIo } from "./testdata/memory_io.ts";

const crypto = selectCrypto();

async function observed(postQuantum: "require" | "off") {
  const [client, server] = [KeyPair.generate(), KeyPair.generate()];
  const [near, far] = memoryIo();
  const [dialed, accepted] = await Promise.all([
    initiate(near, { keyPair: client, remoteStatic: server.publicKey, postQuantum }),
    respond(far, { keyPair: server, replayGuard: new ReplayGuard() }),
  ]);
  const [up, down] = [near.written(), far.written()];
  const cut = up.length - 66;
  const message1 = up.subarray(2, cut);
  const message2 = down.subarray(2);
  const message3 = up.subarray(cut + 2);
  const values: Record<string, Uint8Array> = {
    "nothing": new Uint8Array(0),
    "zeros": new Uint8Array(32),
    "the protocol name": utf8(dialed.protocol),
    "the prologue": utf8("betanet-htx/1.1"),
    "h": dialed.hash,
    "the client's key": client.publicKey,
    "the server's key": server.publicKey,
    "message 1": message1,
    "message 2": message2,
    "message 3": message3,
    "e of the client": message1.subarray(0, 32),
    "e of the server": message2.subarray(0, 32),
    "the sealed s": message3.subarray(0, 48),
    "all that went up": up,
    "all that went down": down,
    "all": concat(message1, message2, message3),
    "the hash of all": crypto.sha256(message1, message2, message3),
  };
  if (postQuantum === "require") {
    values["the sealed KEM key"] = message1.subarray(32, 32 + 1184 + 16);
    values["the sealed KEM ciphertext"] = message2.subarray(32, 32 + 1088 + 16);
  }
  const keys = deriveSessionKeys(dialed.secrets, crypto);
  assertEquals(keys, deriveSessionKeys(accepted.secrets, crypto));
  return { values, keys };
}

for (const postQuantum of ["off", "require"] as const) {
  Deno.test(`postQuantum "${postQuantum}": no public value in any place of the derivation gives a traffic key (e-01)`, async () => {
    const { values, keys } = await observed(postQuantum);
    const secret = new Set([toHex(keys.client), toHex(keys.server)]);
    assertEquals(secret.size, 2); // e-02
    const parts = Object.entries(values);
    let tried = 0;
    const miss = (key: Uint8Array, what: string) => {
      tried++;
      assert(!secret.has(toHex(key)), what);
    };
    for (const [a, k1] of parts) {
      miss(k1.subarray(0, 32), a);
      for (const [b, k2] of parts) {
        for (const [c, h] of parts) {
          const guess = deriveSessionKeys(
            { k1: new Uint8Array(k1), k2: new Uint8Array(k2), h: new Uint8Array(h) },
            crypto,
          );
          miss(guess.client, `k1 = ${a}, k2 = ${b}, h = ${c}`);
          miss(guess.server, `k1 = ${a}, k2 = ${b}, h = ${c}`);
        }
        const out = crypto.hkdfSha256(k1, k2, new Uint8Array(0), 64); // as Noise Split() would
        miss(out.subarray(0, 32), `Split of ${a}, ${b}`);
        miss(out.subarray(32), `Split of ${a}, ${b}`);
        for (const [c, h] of parts) {
          const split = { k1: out.slice(0, 32), k2: out.slice(32), h: new Uint8Array(h) };
          const guess = deriveSessionKeys(split, crypto);
          miss(guess.client, `Split of ${a}, ${b}; h = ${c}`);
          miss(guess.server, `Split of ${a}, ${b}; h = ${c}`);
        }
      }
    }
    assert(tried > 10_000);
    for (const [what, value] of parts) {
      for (const key of secret) assert(!toHex(value).includes(key), `${what} holds a traffic key`);
    }
  });
}

Deno.test("two sessions between the same two parties share no traffic key (e-01)", async () => {
  const seen = new Set<string>();
  for (let round = 0; round < 4; round++) {
    const { keys, values } = await observed("off");
    for (const key of [keys.client, keys.server]) seen.add(toHex(key));
    assertNotEquals(keys.handshakeHash, values["zeros"]);
    assertEquals(keys.handshakeHash, values["h"]);
  }
  assertEquals(seen.size, 8);
});
