/** Test vectors, from this folder and, where it is there, from ../shared/vectors. */

import { type CryptoBackend, fromHex, selectCrypto } from "../../core/mod.ts";

/** One handshake of htx.json. */
export interface HtxHandshake {
  protocol: string;
  prologue_ascii: string;
  initiator_static: string;
  initiator_ephemeral: string;
  responder_static: string;
  responder_ephemeral: string;
  kem_keygen_seed: string | null;
  kem_encaps_message: string | null;
  responder_public: string;
  message1: string;
  message2: string;
  message3: string;
  handshake_hash: string;
  split_k1: string;
  split_k2: string;
}

/** An entry of the cacophony kind. */
export interface CacophonyVector {
  protocol_name: string;
  init_prologue: string;
  init_static: string;
  init_ephemeral: string;
  init_remote_static: string;
  init_kem_seed_d_z?: string;
  resp_prologue: string;
  resp_static: string;
  resp_ephemeral: string;
  resp_encaps_m?: string;
  handshake_hash: string;
  k1?: string;
  k2?: string;
  messages: { payload: string; ciphertext: string }[];
}

function load<T>(url: URL): T | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(url));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.warn(`SKIPPED: ${url.pathname.split("/").slice(-3).join("/")} is not there`);
    return undefined;
  }
}

/** A file of ../shared/vectors, or `undefined` (with a visible message) where the folder is absent. */
export function shared<T>(name: string): T | undefined {
  return load(new URL(`../../../shared/vectors/${name}`, import.meta.url));
}

/** A file of this folder. */
export function local<T>(name: string): T {
  return load<T>(new URL(name, import.meta.url))!;
}

/** Hexadecimal, where there is any. */
export function bytes(hex: string | null | undefined): Uint8Array | undefined {
  return hex === null || hex === undefined ? undefined : fromHex(hex);
}

/** Both backends, and each with the other. */
export function sides(): [string, CryptoBackend, CryptoBackend][] {
  const native = selectCrypto("native");
  const noble = selectCrypto("noble");
  return [
    ["native", native, native],
    ["noble", noble, noble],
    ["native to noble", native, noble],
    ["noble to native", noble, native],
  ];
}
