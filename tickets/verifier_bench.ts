/**
 * What a verification costs beside the one X25519 in it: `deno bench tickets/verifier_bench.ts`, or
 * {@linkcode measureVerifier} for a table of one's own.
 *
 * @module
 */

import { type CryptoBackend, selectCrypto } from "../core/mod.ts";
import { generateTicketKey, makeTicket } from "./client.ts";
import { MemoryReplayStore } from "./replay_store.ts";
import { TicketVerifier } from "./verifier.ts";

/** What {@linkcode measureVerifier} found. */
export interface VerifierFigures {
  /** Good tickets verified, and spent, in a second. */
  readonly verificationsPerSecond: number;
  /** Bare X25519 in a second: one key of ours with ever other public keys, as a verifier does it. */
  readonly exchangesPerSecond: number;
  /** What a verification costs in X25519s. */
  readonly costInExchanges: number;
}

/** Options of {@linkcode measureVerifier}. */
export interface MeasureVerifierOptions {
  /** Tickets in a round. @default {1000} */
  readonly tickets?: number | undefined;
  /** Rounds; the fastest counts. @default {5} */
  readonly rounds?: number | undefined;
  /** The primitives. @default {selectCrypto()} */
  readonly crypto?: CryptoBackend | undefined;
}

/** Measures verifications and bare key exchanges in turns, on one core, for a second or so. */
export async function measureVerifier(options: MeasureVerifierOptions = {}): Promise<VerifierFigures> {
  const { tickets = 1000, rounds = 5, crypto = selectCrypto() } = options;
  const key = generateTicketKey(undefined, { crypto });
  const texts = Array.from({ length: tickets }, () => makeTicket(key, { crypto }));
  const own = crypto.x25519(key.privateKey);
  const peers = Array.from({ length: tickets }, () => crypto.x25519().publicKey);
  let [verifying, exchanging] = [Infinity, Infinity];
  for (let round = 0; round < rounds; round++) {
    const verifier = fresh(key, crypto);
    let start = performance.now();
    for (const text of texts) {
      const result = await verifier.verify(text, { address: "192.0.2.1" });
      if (!result.ok) throw new Error(`a good ticket was refused: ${result.reason}`);
    }
    verifying = Math.min(verifying, performance.now() - start);
    start = performance.now();
    for (const peer of peers) own.dh(peer);
    exchanging = Math.min(exchanging, performance.now() - start);
  }
  return {
    verificationsPerSecond: tickets / verifying * 1000,
    exchangesPerSecond: tickets / exchanging * 1000,
    costInExchanges: verifying / exchanging,
  };
}

function fresh(key: ReturnType<typeof generateTicketKey>, crypto: CryptoBackend): TicketVerifier {
  return new TicketVerifier({
    keys: [key],
    crypto,
    limiter: { take: () => true },
    replay: new MemoryReplayStore(),
  });
}

for (const name of ["native", "noble"] as const) {
  Deno.bench({
    name: `bare X25519 (${name})`,
    group: name,
    baseline: true,
    fn: (bench) => {
      const crypto = selectCrypto(name);
      const own = crypto.x25519();
      const peer = crypto.x25519().publicKey;
      bench.start();
      own.dh(peer);
      bench.end();
    },
  });
  const crypto = () => selectCrypto(name);
  const key = generateTicketKey();
  Deno.bench({
    name: `a good ticket (${name})`,
    group: name,
    fn: async (bench) => {
      const verifier = fresh(key, crypto());
      await verifier.verify(""); // the salts of the hour are made once
      const text = makeTicket(key, { crypto: crypto() });
      bench.start();
      await verifier.verify(text);
      bench.end();
    },
  });
  Deno.bench({
    name: `a refusal with as much work (${name})`,
    group: name,
    fn: async (bench) => {
      const verifier = fresh(key, crypto());
      await verifier.verify("");
      bench.start();
      await verifier.verify("");
      bench.end();
    },
  });
}
