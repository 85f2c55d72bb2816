/**
 * The rules above the transport, one scenario a subject. Nothing is contacted and no permission is needed.
 *
 *     deno run examples/overlay.ts [SUBJECT]
 *
 * @module
 */

import { ed25519PublicKey, HtxError, toHex } from "@betanet/htx/core";
import {
  aliasPayloadHash,
  type AliasState,
  beaconSet,
  bootstrap,
  BootstrapLimiter,
  type BootstrapMethodName,
  type ChainEvidence,
  DifficultyController,
  effectiveWeights,
  encodeControlMap,
  encodeVoucher,
  epochDay,
  evaluateActivation,
  evaluateAlias,
  evaluateProposal,
  formatAlias,
  formatPeerId,
  formatServiceUri,
  HopHistory,
  hopSeed,
  makeKeyset,
  negotiateTransport,
  parseAlias,
  PathSet,
  peerIdOf,
  peerTrust,
  privacyEpoch,
  rawWeight,
  rendezvousIds,
  requiredHops,
  selectHops,
  serviceId,
  settlementDue,
  signAlias,
  signControlMap,
  signQuorum,
  solveProofOfWork,
  TransitionReader,
  TRANSPORT_HTX,
  TRANSPORT_WEBRTC,
  TRANSPORTS,
  verifyHops,
  verifyPeerId,
  verifyProofOfWork,
  verifyQuorumCertificate,
  VoucherGate,
} from "@betanet/htx/overlay";
import { ed25519_FROST } from "@noble/curves/ed25519.js";
import { main } from "./_cli.ts";

/** A morning in January 2027: rules take the time as an argument, so the walk is the same on every day. */
const NOW = 1_800_000_000;
const DAY = 86_400;

/** A key that is the same at every run. Never make keys like this outside an example. */
const demoKey = (n: number) => new Uint8Array(32).fill(n);

function title(text: string): void {
  console.log(`\n${text}\n${"-".repeat(text.length)}`);
}

function say(what: string, value: unknown = ""): void {
  console.log(`  ${what.padEnd(44)} ${value}`.trimEnd());
}

/** A verdict in words: what every `{ ok, reason }` of the library has in common. */
function verdict(what: string, result: { readonly ok: boolean; readonly reason?: string }, more = ""): void {
  say(what, `${result.ok ? "accepted" : `refused: ${result.reason ?? "see the conditions"}`}${more}`);
}

function conditions(
  all: readonly { name: string; value: number; relation: string; bound: number; held: boolean }[],
): void {
  for (const { name, value, relation, bound, held } of all) {
    say(`  ${held ? "held  " : "failed"} ${name}`, `${round(value)} ${relation} ${round(bound)}`);
  }
}

const round = (value: number) => Number.isInteger(value) ? value : Number(value.toFixed(4));
const short = (bytes: Uint8Array) => `${toHex(bytes).slice(0, 16)}…`;

function identity(): void {
  title("identity: who is that, and what do we both speak?");
  const publicKey = ed25519PublicKey(demoKey(1));
  const id = peerIdOf(publicKey);
  say("peer id", `${formatPeerId(id).slice(0, 24)}…`);
  verdict("its own key", verifyPeerId(id, publicKey));
  verdict("somebody else's key", verifyPeerId(id, ed25519PublicKey(demoKey(2))));
  say("the peer has no QUIC", negotiateTransport(TRANSPORTS, [TRANSPORT_WEBRTC, TRANSPORT_HTX]));
  try {
    negotiateTransport(TRANSPORTS, ["/other/1.0.0"]);
  } catch (error) {
    if (error instanceof HtxError) say("the peer speaks something else", `error ${error.code}`);
  }
}

function paths(): void {
  title("paths: the fibre is cut, and comes back");
  const set = new PathSet();
  const links = [["fibre", 12], ["satellite", 600], ["mobile", 45]] as const;
  for (const [id, rtt] of links) {
    set.add({ id, elements: [`${id} operator`] }, 0);
    set.succeeded(id, 0, { rtt });
  }
  verdict("a fourth path", set.add({ id: "neighbour's WLAN" }, 0));
  say("best first", set.candidates().join(", "));
  const moved = set.failed("fibre", 10_000);
  say(
    "at 10.0 s the fibre is cut: traffic moves to",
    `${moved?.to}, by ${moved && moved.deadline / 1000} s at the latest`,
  );
  const probes: number[] = [];
  for (let now = 10_000; now < 130_000; now = set.nextWakeAt()) {
    set.settle(now);
    for (let id = set.probe(now); id !== undefined; id = set.probe(now)) {
      if (id === "fibre") {
        probes.push(now / 1000);
        set.failed(id, now);
      } else set.succeeded(id, now);
    }
  }
  say("the fibre is probed at (s)", probes.join(", "));
  set.succeeded("fibre", 130_000, { rtt: 12 });
  say("it answers again; loss counts before speed", set.candidates().join(", "));
}

async function bootstrapping(): Promise<void> {
  title("bootstrap: a new node looks for its first peers");
  const { value } = beaconSet({ drand: demoKey(3), nist: demoKey(5) }, {
    k0c: demoKey(0),
    epoch: epochDay(NOW),
  });
  const ids = rendezvousIds(value);
  say(`rendezvous ids of day ${epochDay(NOW)}`, `${ids.length}, the first ${short(ids[0]!)}`);
  const method = (name: BootstrapMethodName, ...found: string[]) => ({
    name,
    async *discover() {
      for (const id of found) yield await Promise.resolve({ id, addresses: [] });
    },
  });
  const result = await bootstrap([
    method("dns-list", "x", "y", "z"),
    method("mdns", "printer", "laptop"),
    method("rendezvous-dht", "far", "farther", "laptop"),
  ]);
  for (const { method, found, end } of result.attempts) say(`  ${method}`, `${found} new peers, ${end}`);
  verdict("five peers", result);

  const challenge = demoKey(7);
  const nonce = solveProofOfWork(challenge, 12)!;
  verdict("a proof of 12 bits where 12 are asked for", verifyProofOfWork(challenge, nonce, 12));
  verdict("the same where the rules ask for 22", verifyProofOfWork(challenge, nonce));
  const limiter = new BootstrapLimiter(100);
  for (let i = 0; i < 5; i++) limiter.accept({ address: `192.0.2.${i}` }, NOW);
  verdict("the sixth of one /24 in a second, of 100", limiter.accept({ address: "192.0.2.99" }, NOW));
  const difficulty = new DifficultyController(100, NOW);
  for (let second = 0; second < 60; second++) {
    for (let i = 0; i < 99; i++) difficulty.accepted(NOW + second);
  }
  say("after a minute at 99 % the work is", `${difficulty.bits(NOW + 60)} bits`);
}

function privacy(): void {
  title("privacy: which mixnodes carry this stream?");
  for (
    const request of [{ mode: "strict" }, { trust: 0.79 }, { trust: 0.8 }, {
      mode: "performance",
      destination: "clinic.mixreq",
    }] as const
  ) {
    const { hops, reason } = requiredHops(request);
    say(JSON.stringify(request), `${hops} hops (${reason})`);
  }
  const secret = demoKey(1);
  const source = peerIdOf(ed25519PublicKey(secret));
  const destination = peerIdOf(ed25519PublicKey(demoKey(2)));
  const epoch = privacyEpoch(NOW);
  const beacons = beaconSet({}, {
    k0c: demoKey(9),
    epoch,
    onFallback: (epoch) => say("no beacon answered", `epoch ${epoch} falls back on the session's secret`),
  });
  const history = new HopHistory();
  const [src, dst] = [
    { id: formatPeerId(source), asGroup: "north" },
    { id: formatPeerId(destination), asGroup: "south" },
  ];
  const nodes = Array.from({ length: 12 }, (_, i) => ({
    id: `mix ${String(i).padStart(2, "0")}`,
    asGroup: ["north", "south", "east", "west"][i % 4]!,
  }));
  for (let stream = 0; stream < 2; stream++) {
    const streamNonce = new Uint8Array(16).fill(stream);
    const seed = hopSeed({ beaconSet: beacons.value, src: source, dst: destination, streamNonce });
    const rules = { nodes, hops: 3, src, dst, seed, used: history.used(src.id, dst.id, epoch) };
    const choice = selectHops(secret, rules);
    const ids = choice.hops.map(({ id }) => id);
    say(`stream ${stream}`, choice.hops.map(({ id, asGroup }) => `${id} (${asGroup})`).join(" > "));
    verdict(
      "  the other side repeats the draw",
      verifyHops(ed25519PublicKey(secret), ids, choice.proof, rules),
    );
    const tampered = [...ids.slice(0, 2), "mix 11"];
    verdict("  with a hop exchanged", verifyHops(ed25519PublicKey(secret), tampered, choice.proof, rules));
    history.record(src.id, dst.id, epoch, ids);
  }
  try {
    selectHops(secret, { nodes: nodes.slice(0, 2), hops: 3, src, dst, seed: demoKey(0) });
  } catch (error) {
    if (error instanceof HtxError) say("two nodes for three hops", `error ${error.code}`);
  }
}

function trust(): void {
  title("trust: how well do we know this peer?");
  const today = epochDay(NOW);
  const attested = (groups: number, days: number) =>
    Array.from({ length: groups * days }, (_, i) => ({
      asGroup: `group ${i % groups}`,
      day: today - Math.floor(i / groups),
      up: true,
    }));
  const rows = [
    ["a stranger", attested(0, 0), 0, 0, 0n],
    ["attested by 7 AS groups", attested(7, 30), 0, 0, 0n],
    ["by 8", attested(8, 30), 0, 0, 0n],
    ["and it relayed 98 of 100", attested(8, 30), 98, 2, 0n],
    ["and it staked its cap twice over", attested(8, 30), 98, 2, 200_000n],
  ] as const;
  for (const [who, attestations, good, bad, sat] of rows) {
    const { value } = peerTrust({
      attestations,
      today,
      observations: { good, bad },
      stake: { sat, cap: 100_000n },
    });
    say(who, `${value.toFixed(3)}, ${requiredHops({ trust: value }).hops} hops in balanced mode`);
  }
}

function naming(): void {
  title("naming: an alias moves to a new key record");
  const key = demoKey(4);
  const pk = ed25519PublicKey(key);
  say("service", formatServiceUri({ id: serviceId(pk), resource: "index" }).slice(0, 42) + "…");
  const exp = BigInt(NOW + 90 * DAY);
  const first = signAlias({ pk, seq: 1n, exp }, key);
  say("record", formatAlias(first).slice(0, 40) + "…");
  try {
    parseAlias(formatAlias(first).replace(" seq=1", " seq=01"));
  } catch (error) {
    if (error instanceof HtxError) say("the same with seq=01", `error ${error.code}, field ${error.field}`);
  }
  const evidence = (record: typeof first, confirmations: number): ChainEvidence[] => {
    const payloadHash = aliasPayloadHash(record);
    return [
      { chain: "handshake", payloadHash, confirmations, quietSeconds: 7_200 },
      { chain: "filecoin", payloadHash, finalized: true },
      { chain: "ethereum-l2", payloadHash, finalized: false },
    ];
  };
  verdict(
    "Filecoin, and 11 confirmations",
    evaluateAlias(undefined, first, { now: NOW, evidence: evidence(first, 11) }),
  );
  const accepted = evaluateAlias(undefined, first, { now: NOW, evidence: evidence(first, 12) });
  verdict("Filecoin, and 12 confirmations", accepted);
  const state: AliasState | undefined = accepted.state;
  const same = signAlias({ pk, seq: 1n, exp: exp + 1n }, key);
  verdict(
    "another record of the same seq",
    evaluateAlias(state, same, { now: NOW, evidence: evidence(same, 99) }),
  );

  const next = signAlias({ pk, seq: 2n, exp }, key);
  const payloadHash = aliasPayloadHash(next);
  const signers = [11, 12, 13].map(demoKey);
  const weights = new Map(signers.map((signer, i) => [toHex(ed25519PublicKey(signer)), [40, 30, 30][i]!]));
  const certify = (count: number, claimed: readonly number[]) => ({
    payloadHash,
    epoch: 5n,
    signers: signers.slice(0, count).map(ed25519PublicKey),
    weights: claimed.slice(0, count),
    sigs: signers.slice(0, count).map((signer) => signQuorum(payloadHash, 5n, signer)),
  });
  const lastFinality = { filecoin: NOW - DAY, handshake: NOW - 14 * DAY, "ethereum-l2": NOW - 20 * DAY };
  for (
    const [what, certificate] of [
      ["14 days without finality, 40 % sign", certify(1, [40])],
      ["the same, said to be 70 %", certify(1, [70])],
      ["70 % sign", certify(2, [40, 30])],
    ] as const
  ) {
    say(
      "a certificate alone",
      JSON.stringify(verifyQuorumCertificate(certificate, { payloadHash, weights })),
    );
    verdict(
      what,
      evaluateAlias(state, next, { now: NOW, emergency: { lastFinality, certificate, weights } }),
    );
  }
  const urgent = {
    lastFinality: { ...lastFinality, handshake: NOW - 13 * DAY },
    certificate: certify(2, [40, 30]),
    weights,
  };
  const early = evaluateAlias(state, next, { now: NOW, emergency: urgent });
  verdict("after 13 days only", early);
  conditions(early.conditions);
}

function payments(): void {
  title("payments: a mint of five, any three of which can sign");
  const { public: group, secretShares } = ed25519_FROST.trustedDealer({ min: 3, max: 5 });
  const made = makeKeyset(
    [21, 22, 23, 24, 25].map((n) => ed25519PublicKey(demoKey(n))),
    group.commitments[0]!,
  );
  if (!made.ok) throw new Error(made.reason);
  const { keyset } = made;
  say("keyset", short(keyset.id));
  const secret = demoKey(42);
  const rounds = Object.keys(secretShares).slice(1, 4).map((id) => ({
    id,
    ...ed25519_FROST.commit(secretShares[id]!),
  }));
  const commitments = rounds.map((round) => round.commitments);
  const shares = Object.fromEntries(rounds.map(({ id, nonces }) => [
    id,
    ed25519_FROST.signShare(secretShares[id]!, group, nonces, commitments, secret),
  ]));
  const aggregateSig = new Uint8Array(ed25519_FROST.aggregate(group, commitments, secret, shares));
  const voucher = encodeVoucher({ keysetId: keyset.id, secret, aggregateSig });
  const gate = new VoucherGate({ now: () => NOW * 1000 });
  const early = gate.accept(voucher, "alice");
  verdict(
    "before the keyset is known",
    early,
    early.ok ? "" : `, ${early.parked ? "kept for later" : "dropped"}`,
  );
  for (const { peer, verdict: result } of gate.addKeyset(keyset)) {
    verdict(`the keyset is listed: ${peer}'s`, result);
  }
  verdict("spent again", gate.accept(voucher, "mallory"));
  verdict("another secret, the same signature", gate.accept(voucher.with(40, voucher[40]! ^ 1), "mallory"));
  try {
    gate.accept(voucher.subarray(1), "mallory");
  } catch (error) {
    if (error instanceof HtxError) say("a byte short", `error ${error.code}, field ${error.field}`);
  }
  for (const sat of [9_999n, 10_000n]) {
    say(`settlement at ${sat} sat`, settlementDue(sat).due ? "due" : "not yet");
  }
}

function governance(): void {
  title("governance: weights, a proposal, and when it takes effect");
  const nodes = Array.from({ length: 30 }, (_, i) => ({
    id: `node ${i}`,
    as: `AS ${i < 6 ? 0 : i}`, // six nodes in one AS
    organisation: `organisation ${Math.floor(i / 3)}`,
    weight: rawWeight((i + 1) * 100 * DAY, i < 6 ? 1_000_000_000n : 50_000n),
  }));
  const raw = nodes.reduce((sum, { weight }) => sum + weight, 0);
  const { weights, total } = effectiveWeights(nodes);
  const ofAs0 = nodes.slice(0, 6).reduce((sum, { id }) => sum + weights.get(id)!, 0);
  say("weight in all, before and under the caps", `${round(raw)}, ${round(total)}`);
  const rawOfAs0 = nodes.slice(0, 6).reduce((sum, { weight }) => sum + weight, 0);
  say("share of AS 0, before and under the caps", `${round(rawOfAs0 / raw)}, ${round(ofAs0 / total)}`);
  try {
    effectiveWeights(nodes.slice(0, 9));
  } catch (error) {
    if (error instanceof HtxError) say("with too few ASes", `error ${error.code}, field ${error.field}`);
  }
  const facts = {
    voters: nodes.map(({ id, as, organisation }, i) => ({
      id,
      as,
      asGroup: as,
      organisation,
      isd: `isd ${i % 3}`,
      weight: weights.get(id)!,
      lastActive: NOW - (i === 29 ? 15 : 1) * DAY,
      ack: true,
    })),
    paths: [{ name: "over SCION", loss: [0.001, 0.004, 0.03] }, { name: "over the Internet", loss: [0.019] }],
    pathDiversity: { now: 8, weekAgo: 10 },
    ackComposition: { now: 21, weekAgo: 22 },
    now: NOW,
  };
  const fewer = facts.voters.map((voter, i) => ({ ...voter, ack: i > 0 }));
  const proposals = [
    ["all ACK: AS 0 has too much of it", facts],
    ["a node of AS 0 abstains", { ...facts, voters: fewer }],
    ["then paths are lost", { ...facts, voters: fewer, pathDiversity: { now: 7, weekAgo: 10 } }],
  ] as const;
  for (const [what, given] of proposals) {
    const result = evaluateProposal(given);
    verdict(what, result);
    conditions(result.conditions);
  }
  const samples = [{ at: 25 * DAY, held: false }, { at: 26 * DAY, held: true }];
  for (const day of [24, 25, 30, 33]) {
    const { state, at } = evaluateActivation(0, samples, day * DAY);
    say(`day ${day}`, `${state}${at === undefined ? "" : `, activation on day ${at / DAY}`}`);
  }
}

function transition(): void {
  title("transition: a server moves from AS 64500 to AS 64501");
  const key = demoKey(6);
  const handshakeHash = demoKey(0x48); // of the session that both ends share
  const now = NOW * 1000;
  const reader = new TransitionReader(
    { handshakeHash, remoteStatic: demoKey(8) },
    { keys: new Map([[64500n, ed25519PublicKey(key)]]), now: () => now },
  );
  const make = (flow: number, change: { ts?: bigint; h?: Uint8Array; key?: Uint8Array } = {}) =>
    encodeControlMap(signControlMap(
      {
        prevAs: 64500n,
        nextAs: 64501n,
        ts: change.ts ?? BigInt(NOW),
        flow: new Uint8Array(8).fill(flow),
        nonce: new Uint8Array(8),
      },
      change.key ?? key,
      change.h ?? handshakeHash,
    ));
  const push = (what: string, map: Uint8Array) => {
    for (const result of reader.push(map)) verdict(what, result);
  };
  push("a map", make(1));
  push("the same map again", make(1));
  push("one of another session", make(2, { h: demoKey(0) }));
  push("one under another key", make(3, { key: demoKey(7) }));
  push("one 300 s old", make(4, { ts: BigInt(NOW - 300) }));
  push("one 301 s old", make(5, { ts: BigInt(NOW - 301) }));
  say("in force", reader.current ? `AS ${reader.current.prevAs} to AS ${reader.current.nextAs}` : "nothing");
  reader.serverRekeyed();
  say(
    "after a KEY_UPDATE of the server",
    reader.current ? "still in force" : "nothing, until a fresh map comes",
  );
  push("the fresh map", make(6));
  try {
    reader.push(Uint8Array.of(0xff));
  } catch (error) {
    if (error instanceof HtxError) say("bytes that are no map", `error ${error.code}; the stream is reset`);
  }
}

const SUBJECTS: Readonly<Record<string, () => void | Promise<void>>> = {
  identity,
  paths,
  bootstrap: bootstrapping,
  privacy,
  trust,
  naming,
  payments,
  governance,
  transition,
};

await main({
  help: `
Walks through the rules of the overlay, one scenario a subject, and prints the verdicts.

usage: deno run examples/overlay.ts [SUBJECT]

  SUBJECT   one of ${Object.keys(SUBJECTS).join(", ")}; all of them if left out
  --help    this text
`,
  positional: ["[SUBJECT]"],
}, async (args) => {
  const subject = args.optional("SUBJECT") === undefined
    ? undefined
    : args.oneOf("SUBJECT", Object.keys(SUBJECTS));
  for (const [name, walk] of Object.entries(SUBJECTS)) {
    if (subject === undefined || subject === name) await walk();
  }
});
