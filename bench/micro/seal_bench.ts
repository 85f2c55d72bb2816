/**
 * Sealing and opening with each backend, by size: `deno bench bench/micro/seal_bench.ts`.
 *
 * @module
 */

import { selectCrypto, TrafficKeys } from "../../core/mod.ts";

const SIZES = [64, 256, 1024, 4096, 16_384, 65_535];
const TAG = 16;

for (const size of SIZES) {
  const plaintext = new Uint8Array(size).fill(0x5a);
  const header = new Uint8Array([1, 2, 3, 0, 1]);
  for (const backend of ["native", "noble"] as const) {
    const aead = selectCrypto(backend).chacha20Poly1305(new Uint8Array(32).fill(1));
    const nonce = new Uint8Array(12);
    const sealed = new Uint8Array(size + TAG);
    aead.seal(nonce, header, plaintext, sealed, 0);
    const out = new Uint8Array(size + TAG);
    Deno.bench(
      `seal ${size} B (${backend})`,
      { group: `seal ${size}`, baseline: backend === "native" },
      () => {
        aead.seal(nonce, header, plaintext, out, 0);
      },
    );
    Deno.bench(
      `open ${size} B (${backend})`,
      { group: `open ${size}`, baseline: backend === "native" },
      () => {
        if (aead.open(nonce, header, sealed) === undefined) throw new Error("does not open");
      },
    );
  }
}

// What an engine pays: nonce, counter and cipher together, with the change of keys.
const crypto = selectCrypto();
const hash = new Uint8Array(32);
const make = () => new TrafficKeys(crypto, "client-to-server", new Uint8Array(32).fill(1), hash);
const keys = make();
const small = new Uint8Array(64);
const into = new Uint8Array(80);
Deno.bench("TrafficKeys.seal 64 B", { group: "keys" }, () => {
  keys.seal(small.subarray(0, 5), small, into, 0);
});
Deno.bench("TrafficKeys.update", { group: "keys" }, () => {
  keys.update();
});
Deno.bench("new TrafficKeys", { group: "keys" }, () => {
  make();
});
