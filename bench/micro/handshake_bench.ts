/**
 * The steps of a handshake and the primitives below them: `deno bench bench/micro/handshake_bench.ts`.
 *
 * @module
 */

import { deriveSessionKeys, selectCrypto } from "../../core/mod.ts";
import { KeyPair } from "../../noise/mod.ts";
import { acceptDuplex, connectDuplex, memoryDuplexPair } from "../../transport/mod.ts";

for (const backend of ["native", "noble"] as const) {
  const crypto = selectCrypto(backend);
  const own = crypto.x25519();
  const peer = crypto.x25519().publicKey;
  const group = (name: string) => ({ group: name, baseline: backend === "native" });
  Deno.bench(`X25519: make a key (${backend})`, group("x25519 key"), () => {
    crypto.x25519();
  });
  Deno.bench(`X25519: agree (${backend})`, group("x25519"), () => {
    own.dh(peer);
  });
  Deno.bench(`HKDF-SHA-256 to 64 B (${backend})`, group("hkdf"), () => {
    crypto.hkdfSha256(peer, peer, new Uint8Array(0), 64);
  });
  Deno.bench(`SHA-256 of 64 B (${backend})`, group("sha256"), () => {
    crypto.sha256(peer, peer);
  });
  const kem = await crypto.mlKem768();
  const encapsulated = await crypto.mlKem768Encapsulate(kem.publicKey);
  Deno.bench(`ML-KEM-768: make a key (${backend})`, group("kem key"), async () => {
    await crypto.mlKem768();
  });
  Deno.bench(`ML-KEM-768: encapsulate (${backend})`, group("kem encapsulate"), async () => {
    await crypto.mlKem768Encapsulate(kem.publicKey);
  });
  Deno.bench(`ML-KEM-768: decapsulate (${backend})`, group("kem decapsulate"), async () => {
    await kem.decapsulate(encapsulated!.ciphertext);
  });
}

const crypto = selectCrypto();
const part = new Uint8Array(32).fill(1);
Deno.bench("deriveSessionKeys", { group: "keys" }, () => {
  deriveSessionKeys({ k1: part.slice(), k2: part.slice(), h: part }, crypto);
});

const clientKey = KeyPair.generate();
const serverKey = KeyPair.generate();
for (const postQuantum of ["off", "require"] as const) {
  const name = postQuantum === "off" ? "classic" : "hybrid";
  Deno.bench(`handshake, ${name}: both sides, in memory`, {
    group: "handshake",
    baseline: postQuantum === "off",
  }, async () => {
    const [near, far] = memoryDuplexPair();
    const [client, server] = await Promise.all([
      connectDuplex(near, { remoteStatic: serverKey.publicKey, keyPair: clientKey, postQuantum }),
      acceptDuplex(far, { keyPair: serverKey }),
    ]);
    client.abort();
    server.abort();
  });
}
