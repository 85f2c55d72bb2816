/**
 * Groups of variants: what runs for each of them, once a round.
 *
 * @module
 */

import { INSTALL, type Peers } from "./peers.ts";
import {
  type Command,
  denoRun,
  known,
  measureClient,
  type Measurement,
  measurePair,
  ROOT,
} from "./process.ts";
import { openGateways } from "./gateways.ts";
import type { GroupName } from "./rows.ts";

/** Amounts of work. */
export interface Work {
  /** Seconds of a timed phase. */
  readonly seconds: number;
  /** Phases that are wanted. */
  readonly phases: ReadonlySet<string>;
  /** This library's variants that are wanted. */
  readonly ours: ReadonlySet<string>;
  readonly peers: Peers;
}

/** One measurement of a round. */
export interface Step {
  readonly variant: string;
  run(): Promise<readonly Measurement[]>;
}

/** A group that is ready to run. */
export interface OpenGroup extends AsyncDisposable {
  readonly steps: readonly Step[];
  /** Variants that cannot run here, and why. */
  readonly skipped: readonly { readonly variant: string; readonly why: string }[];
}

/** What variants are called in tables. */
export const LABELS: Readonly<Record<string, string>> = {
  "htx": "htx",
  "htx-streams": "htx, web streams",
  "htx-hybrid": "htx, hybrid",
  "aead": "Deno TCP + ChaCha20-Poly1305 by hand",
  "hand": "the least of it, by hand",
  "tcp": "Deno TCP",
  "tls": "Deno TLS",
  "libp2p": "js-libp2p on Deno",
  "helia": "Helia on Deno",
  "direct": "no gateway: Deno.serve",
  "proxy-h1": "Deno reverse proxy over TLS, h1",
  "proxy-h2": "Deno reverse proxy over TLS, h2",
  "nginx": "nginx over TLS",
  "ssh": "ssh -L",
  "x25519": "the bare X25519",
};

const role = (name: string): URL => new URL(`bench/roles/${name}`, ROOT);

interface Pair {
  readonly variant: string;
  readonly phases: readonly string[];
  /** Names of phases of the role, where they differ from those of the rows. */
  readonly rename?: Readonly<Record<string, string>>;
  readonly why?: string | undefined;
  server(phases: string): Command;
  client(phases: string): Command;
}

function pairs(list: readonly Pair[], work: Work, limitMs: number): OpenGroup {
  const wanted = list.flatMap((pair) => {
    const phases = pair.phases.filter((phase) => work.phases.has(phase));
    const needed = !pair.variant.startsWith("htx") || pair.variant === "htx" || work.ours.has(pair.variant);
    return phases.length > 0 && needed ? [{ ...pair, phases }] : [];
  });
  return {
    steps: wanted.filter(({ why }) => why === undefined).map((pair) => ({
      variant: pair.variant,
      run: async () => {
        const names = pair.phases.map((phase) => pair.rename?.[phase] ?? phase);
        const text = names.join(",");
        const found = await measurePair(pair.server(text), pair.client(text), limitMs);
        return found.map((measurement, i) => ({ ...measurement, phase: pair.phases[i]! }));
      },
    })),
    skipped: wanted.flatMap(({ variant, why }) => why === undefined ? [] : [{ variant, why }]),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function sessionPairs(work: Work): readonly Pair[] {
  const { peers, seconds } = work;
  const total = Math.max(32, Math.round(1024 * seconds)) * 2 ** 20;
  const env = { SECS: `${seconds}`, TOTAL: `${total}` };
  const htx = (variant: string, rename: Record<string, string> = {}): Omit<Pair, "phases"> => ({
    variant,
    rename,
    server: () => denoRun(role("htx_session.ts"), ["server"], { env }),
    client: (phases) => denoRun(role("htx_session.ts"), ["client", phases], { env }),
  });
  const deno = (kind: "tcp" | "tls" | "aead"): Omit<Pair, "phases"> => {
    const { certificate = "", key = "" } = peers.tls ?? {};
    return {
      variant: kind,
      why: kind === "tls" && peers.tls === undefined
        ? "no certificate, and no openssl to make one"
        : undefined,
      server: () => denoRun(role("deno_session.ts"), ["server", kind, certificate, key], { env }),
      client: (phases) => denoRun(role("deno_session.ts"), ["client", kind, certificate, phases], { env }),
    };
  };
  const hand: Omit<Pair, "phases"> = {
    variant: "hand",
    server: () => denoRun(role("hand_session.ts"), ["server"], { env }),
    client: (phases) => denoRun(role("hand_session.ts"), ["client", phases], { env }),
  };
  const modules = peers.file("libp2p_modules.mjs");
  const ofPeers = {
    config: decodeURIComponent(new URL("deno.json", peers.folder).pathname),
    env: { ...env, HTX_BENCH_MODULES: `file://${encodeURI(modules ?? "")}` },
  };
  const libp2p: Omit<Pair, "phases"> = {
    variant: "libp2p",
    why: modules === undefined ? INSTALL : undefined,
    server: () => denoRun(role("libp2p_session.ts"), ["server"], ofPeers),
    client: (phases) => denoRun(role("libp2p_session.ts"), ["client", phases], ofPeers),
  };
  const echo = ["echo1", "echo64each"];
  const streams = ["stream1", "stream64"];
  return [
    { ...htx("htx"), phases: ["bulk", ...echo, ...streams, "dialclose"] },
    { ...htx("htx-streams", { bulk: "bulkstreams" }), phases: ["bulk"] },
    { ...htx("htx-hybrid", { dialclose: "dialclosehybrid" }), phases: ["dialclose"] },
    { ...hand, phases: ["echo1", "dialclose"] },
    { ...deno("aead"), phases: ["bulk"] },
    { ...deno("tcp"), phases: ["bulk", ...echo, "dialclose"] },
    { ...deno("tls"), phases: ["bulk", ...echo, "dialclose"] },
    { ...libp2p, phases: ["bulk", ...echo, ...streams, "dialclose"] },
  ];
}

const CONNECTIONS = 1000;
const STREAMS = 10_000;

function openIdle(work: Work): OpenGroup {
  const { peers } = work;
  const env = { CONNECTIONS: `${CONNECTIONS}`, STREAMS: `${STREAMS}` };
  const gc = ["--v8-flags=--expose-gc"];
  const { certificate = "", key = "" } = peers.tls ?? {};
  const one = (
    variant: string,
    phases: readonly string[],
    server: Command,
    client: (p: string) => Command,
  ): Pair => ({
    variant,
    phases,
    server: () => server,
    client,
  });
  const group = pairs(
    [
      one(
        "htx",
        ["connections", "streams"],
        denoRun(role("htx_idle.ts"), ["server"], { env, flags: gc }),
        (phases) => denoRun(role("htx_idle.ts"), ["client", phases], { env, flags: gc }),
      ),
      ...(["tcp", "tls"] as const).map((kind): Pair => ({
        ...one(
          kind,
          ["connections"],
          denoRun(role("deno_session.ts"), ["server", kind, certificate, key], { env, flags: gc }),
          (phases) =>
            denoRun(role("deno_session.ts"), ["client", kind, certificate, phases], { env, flags: gc }),
        ),
        why: kind === "tls" && peers.tls === undefined
          ? "no certificate, and no openssl to make one"
          : undefined,
      })),
    ],
    work,
    120_000,
  );
  return {
    ...group,
    steps: group.steps.map((step) => ({
      ...step,
      run: async () =>
        (await step.run()).map(({ phase, values }) => ({
          phase,
          values: {
            ...values,
            ...known({
              rssClient: values.rssClient! / values.count! / 1024,
              rssServer: values.rssServer! / values.count! / 1024,
            }),
          },
        })),
    })),
  };
}

function openFairness(work: Work): OpenGroup {
  const env = { SECS: `${work.seconds}` };
  return pairs(
    [{
      variant: "htx",
      phases: ["small", "smallbyob"],
      server: () => denoRun(role("htx_fairness.ts"), ["server"], { env }),
      client: (phases) => denoRun(role("htx_fairness.ts"), ["client", phases], { env }),
    }],
    work,
    60_000 + work.seconds * 3000,
  );
}

function openTickets(): OpenGroup {
  let bare: Measurement | undefined;
  return {
    steps: [
      {
        variant: "htx",
        run: async () => {
          const found = await measureClient(denoRun(role("htx_tickets.ts"), ["client"]), [], 60_000);
          bare = { phase: "tickets", values: { rps: found[0]!.values.bare! } };
          return found;
        },
      },
      { variant: "x25519", run: () => Promise.resolve(bare === undefined ? [] : [bare]) }, // of the same process
    ],
    skipped: [],
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function openBlocks(work: Work): OpenGroup {
  const { peers, seconds } = work;
  const env = { COUNT: `${Math.min(1024, Math.max(16, Math.round(256 * seconds)))}` };
  const modules = peers.file("helia_modules.mjs");
  const ofPeers = {
    config: decodeURIComponent(new URL("deno.json", peers.folder).pathname),
    env: { ...env, HTX_BENCH_MODULES: `file://${encodeURI(modules ?? "")}` },
  };
  const phases = ["get1", "get32", "get256"];
  return pairs(
    [
      {
        variant: "htx",
        phases,
        server: (names) => denoRun(role("htx_blocks.ts"), ["server", names], { env }),
        client: (names) => denoRun(role("htx_blocks.ts"), ["client", names], { env }),
      },
      {
        variant: "helia",
        phases,
        why: modules === undefined ? INSTALL : undefined,
        server: (names) => denoRun(role("helia_blocks.ts"), ["server", names], ofPeers),
        client: (names) => denoRun(role("helia_blocks.ts"), ["client", names], ofPeers),
      },
    ],
    work,
    120_000,
  );
}

/** Makes a group ready. */
export async function openGroup(name: GroupName, work: Work): Promise<OpenGroup> {
  switch (name) {
    case "bulk":
    case "echo":
    case "streams":
    case "handshakes":
      return pairs(sessionPairs(work), work, 60_000 + work.seconds * 10_000);
    case "gateway":
      return await openGateways(work);
    case "idle":
      return openIdle(work);
    case "fairness":
      return openFairness(work);
    case "tickets":
      return openTickets();
    case "blocks":
      return openBlocks(work);
  }
}
