import { assert, assertEquals } from "@std/assert";
import { ed25519PublicKey, toHex } from "../core/mod.ts";
import {
  beaconSet,
  BootstrapLimiter,
  DifficultyController,
  evaluateAlias,
  evaluateProposal,
  PathSet,
  POW_MIN_BITS,
  signAlias,
  signQuorum,
  transitionSender,
  verifyQuorumCertificate,
} from "./mod.ts";

Deno.test("an option that is undefined is as if it were left out, in every rule", () => {
  const none = undefined;
  const key = new Uint8Array(32).fill(1);
  const pk = ed25519PublicKey(key);
  assertEquals(new DifficultyController(1, 0, { bits: none }).bits(0), POW_MIN_BITS);
  assert(new BootstrapLimiter(20).accept({ address: "192.0.2.1", as: none }, 0).ok);
  const paths = new PathSet();
  paths.add({ id: "a", elements: none, validated: none }, 0);
  assertEquals(paths.succeeded("a", 0, { rtt: none })?.to, "a");
  assert(!beaconSet({ drand: key, nist: none }, { k0c: key, epoch: 0, onFallback: none }).fallback);
  const record = signAlias({ pk, seq: 1n, exp: 2n }, key);
  const refused = evaluateAlias(none, record, { now: 1, evidence: none, emergency: none });
  assertEquals(refused.ok || refused.reason, "not-final");
  const trend = { now: 1, weekAgo: 1 };
  const path = { name: "a", elements: none, loss: [0] };
  const facts = { voters: [], paths: [path], pathDiversity: trend, ackComposition: trend, now: 1 };
  assertEquals(evaluateProposal(facts).conditions.find(({ name }) => name === "path-classes")?.value, 1);
  const certificate = {
    payloadHash: key,
    epoch: 0n,
    signers: [pk],
    weights: [1],
    sigs: [signQuorum(key, 0n, key)],
  };
  const weights = new Map([[toHex(pk), 1]]);
  assert(verifyQuorumCertificate(certificate, { payloadHash: key, weights, minEpoch: none }).ok);
  const sender = transitionSender({ prevAs: 1n, nextAs: 2n, privateKey: key, now: none, random: none });
  sender.announce({ prevAs: 1n, nextAs: 3n, privateKey: none }); // under the key it had
});
