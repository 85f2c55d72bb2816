/**
 * `deno task timing`: whether a refused ticket can be told from a stranger by the clock.
 *
 *     deno run -P=test gateway/timing.ts [--requests 10000] [--equalize work|delay|off] [--front deno|node]
 *
 * Measures the time to answer for every kind of refusal, interleaved so that the machine's moods meet all kinds alike, and
 * compares each kind with a stranger whose request looks alike (no ticket) by the two-sample Kolmogorov-Smirnov test. What can be told
 * apart by as many requests as were made is said so; a decoy alone is measured beside them for information.
 */

import { parseArgs } from "@std/cli/parse-args";
import { encodeBase64Url } from "@std/encoding/base64url";
import { generateTicketKey, makeTicket, MemoryRateLimiter, MemoryReplayStore } from "../tickets/mod.ts";
import { decoyAlone, fixedDecoy } from "./decoy.ts";
import { denoFront, type FrontHandler } from "./front.ts";
import { createGateway } from "./gateway.ts";
import { localUpstream } from "./local.ts";
import { nodeFront } from "./node_front.ts";

/** The distance between two samples' distribution functions, and how likely so large a one is by chance. */
export function kolmogorovSmirnov(
  a: readonly number[],
  b: readonly number[],
): { distance: number; p: number } {
  const x = Float64Array.from(a).sort();
  const y = Float64Array.from(b).sort();
  let distance = 0;
  for (let i = 0, j = 0; i < x.length && j < y.length;) {
    const at = Math.min(x[i]!, y[j]!);
    while (i < x.length && x[i]! <= at) i++;
    while (j < y.length && y[j]! <= at) j++;
    distance = Math.max(distance, Math.abs(i / x.length - j / y.length));
  }
  const n = Math.sqrt(x.length * y.length / (x.length + y.length));
  const lambda = (n + 0.12 + 0.11 / n) * distance;
  // The series does not converge near 0, where the answer is 1.
  if (lambda < 0.2) return { distance, p: 1 };
  let p = 0;
  for (let k = 1; k <= 100; k++) p += 2 * (k % 2 === 1 ? 1 : -1) * Math.exp(-2 * k * k * lambda * lambda);
  return { distance, p: Math.min(1, Math.max(0, p)) };
}

/** One kind of request. */
interface Kind {
  readonly name: string;
  /** The stranger whose request looks alike: that a longer request takes longer tells nothing of tickets. */
  readonly against: string;
  /** A request as text. */
  make(): string;
}

const STRANGER = "stranger";
const STRANGER_QUERY = "stranger, query";
const STRANGER_COOKIE = "stranger, cookie";

function kinds(): { list: Kind[]; key: ReturnType<typeof generateTicketKey>; spent: string } {
  const key = generateTicketKey();
  const spent = makeTicket(key);
  const get = (query: string, cookie = "") =>
    `GET /page${query} HTTP/1.1\r\nHost: site.example\r\n${cookie === "" ? "" : `Cookie: ${cookie}\r\n`}\r\n`;
  const change = (at: number, to: (byte: number) => number) => () => {
    const bytes = Uint8Array.fromBase64(makeTicket(key), { alphabet: "base64url" });
    bytes[at] = to(bytes[at]!);
    return get(`?bn1=${encodeBase64Url(bytes)}`);
  };
  const stranger = generateTicketKey();
  const other = encodeBase64Url(crypto.getRandomValues(new Uint8Array(137)));
  const list: Kind[] = [
    { name: STRANGER, against: STRANGER, make: () => get("") },
    { name: STRANGER_QUERY, against: STRANGER_QUERY, make: () => get(`?ref=${other}`) },
    { name: STRANGER_COOKIE, against: STRANGER_COOKIE, make: () => get("", `_session=${other}`) },
    { name: "the stranger again", against: STRANGER, make: () => get("") },
    { name: "junk", against: STRANGER, make: () => get("?bn1=junk") },
    { name: "wrong version", against: STRANGER_QUERY, make: change(0, () => 9) },
    { name: "unknown key id", against: STRANGER_QUERY, make: () => get(`?bn1=${makeTicket(stranger)}`) },
    { name: "non-canonical key", against: STRANGER_QUERY, make: change(32, (byte) => byte | 0x80) },
    { name: "flipped proof", against: STRANGER_QUERY, make: change(80, (byte) => byte ^ 1) },
    {
      name: "expired",
      against: STRANGER_QUERY,
      make: () => get(`?bn1=${makeTicket(key, { now: () => Date.now() - 5 * 3_600_000 })}`),
    },
    { name: "replayed", against: STRANGER_QUERY, make: () => get(`?bn1=${spent}`) },
    { name: "replayed in a cookie", against: STRANGER_COOKIE, make: () => get("", `__Host-bn1=${spent}`) },
    { name: "two tickets", against: STRANGER_QUERY, make: () => get(`?bn1=${spent}&bn1=${spent}`) },
  ];
  return { list, key, spent };
}

/** A connection on which one request after the other is timed. */
class Probe {
  readonly #conn: Deno.TcpConn;
  readonly #buffer: Uint8Array = new Uint8Array(16_384);

  constructor(conn: Deno.TcpConn) {
    this.#conn = conn;
    conn.setNoDelay(true);
  }

  async time(request: Uint8Array): Promise<number> {
    const started = performance.now();
    await this.#conn.write(request);
    await this.#conn.read(this.#buffer);
    return performance.now() - started;
  }

  close(): void {
    this.#conn.close();
  }
}

/** What one kind's times were, against those of strangers. */
export interface TimingRow {
  /** The kind of request. */
  readonly name: string;
  /** The stranger it is compared with. */
  readonly against: string;
  /** Median in ms. */
  readonly median: number;
  /** 95th percentile in ms. */
  readonly p95: number;
  /** The Kolmogorov-Smirnov distance from strangers. */
  readonly distance: number;
  /** How likely so large a one is by chance. */
  readonly p: number;
}

/** Measures every kind `requests` times. */
export async function measure(
  options: { requests: number; equalize?: "work" | "delay" | "off"; front?: "deno" | "node" },
): Promise<TimingRow[]> {
  const { requests, equalize = "work", front: frontName = "deno" } = options;
  const { list, key, spent } = kinds();
  const decoy = fixedDecoy({ status: 200, body: "an ordinary page\n" });
  await using upstream = localUpstream(() => new Response("inside"));
  await using gateway = createGateway({
    upstream,
    decoy,
    admission: {
      delayRefusals: equalize === "work",
      verifier: {
        keys: [key],
        equalize,
        replay: new MemoryReplayStore(),
        limiter: new MemoryRateLimiter({ perMinute: 1e12, burst: 1e12 }),
      },
      session: { keys: [crypto.getRandomValues(new Uint8Array(32))] },
    },
  });
  const open = (handler: FrontHandler) =>
    frontName === "deno" ? denoFront(handler, { port: 0 }) : nodeFront(handler, { port: 0 });
  await using front = await open(gateway.handler);
  await using alone = await open(decoyAlone(decoy));
  const connect = async (port: number) => new Probe(await Deno.connect({ hostname: "127.0.0.1", port }));
  const probe = await connect(front.addr.port);
  const other = await connect(alone.addr.port);
  const encoder = new TextEncoder();
  await probe.time(encoder.encode(`GET /?bn1=${spent} HTTP/1.1\r\nHost: site.example\r\n\r\n`));
  const times = new Map<string, number[]>([...list.map(({ name }) => [name, []] as [string, number[]]), [
    "decoy alone",
    [],
  ]]);
  const order = [...list.keys(), -1];
  const warmUp = Math.min(200, requests);
  let made: Uint8Array[][] = [];
  for (let round = -warmUp; round < requests; round++) {
    // Made some rounds ahead: making a ticket right before sending it would leave this process's own traces in the times.
    if (made.length === 0) {
      made = Array.from({ length: 64 }, () => list.map((kind) => encoder.encode(kind.make())));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const ready = made.pop()!;
    // A fresh order each round: what came before must not favour a kind.
    for (let i = order.length - 1; i > 0; i--) {
      const j = crypto.getRandomValues(new Uint32Array(1))[0]! % (i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    for (const index of order) {
      const kind = list[index] ?? list[0]!;
      const took = await (index < 0 ? other : probe).time(ready[Math.max(0, index)]!);
      if (round >= 0) times.get(index < 0 ? "decoy alone" : kind.name)!.push(took);
    }
  }
  probe.close();
  other.close();
  return [...times].map(([name, all]) => {
    const against = list.find((kind) => kind.name === name)?.against ?? STRANGER;
    const sorted = all.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
    return { name, against, median: at(0.5), p95: at(0.95), ...kolmogorovSmirnov(all, times.get(against)!) };
  });
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, {
    string: ["requests", "equalize", "front"],
    boolean: ["help"],
    default: { requests: "10000", equalize: "work", front: "deno" },
  });
  const requests = Number(options.requests);
  const { equalize, front } = options;
  if (options.help) {
    console.log("Usage: deno task timing [--requests 10000] [--equalize work|delay|off] [--front deno|node]");
    Deno.exit(0);
  }
  if (
    !Number.isInteger(requests) || requests < 10 ||
    (equalize !== "work" && equalize !== "delay" && equalize !== "off") ||
    (front !== "deno" && front !== "node")
  ) {
    console.error(
      "timing: --requests is a number from 10, --equalize work, delay or off, --front deno or node",
    );
    Deno.exit(2);
  }
  console.log(
    `${requests} requests a kind, equalize ${equalize}, front ${front}; each kind against a stranger whose request looks alike\n`,
  );
  const rows = await measure({ requests, equalize, front });
  // Ten comparisons at once: the bar for each is lower, so that all together err once in a hundred.
  const compared = rows.filter(({ name, against }) => name !== against && name !== "decoy alone");
  const bar = 0.01 / compared.length;
  for (const { name, against, median, p95, distance, p } of rows) {
    const verdict = name === against
      ? ""
      : name === "decoy alone"
      ? "(for information)"
      : p < bar
      ? "can be told apart"
      : "cannot be told apart";
    console.log(
      `${name.padEnd(22)} median ${median.toFixed(3)} ms  p95 ${p95.toFixed(3)} ms  KS ${
        distance.toFixed(4)
      }  ` +
        `p ${p.toPrecision(2).padEnd(8)} ${verdict}`,
    );
  }
  const apart = compared.filter(({ p }) => p < bar);
  console.log(
    apart.length === 0
      ? "\nNo kind of refusal can be told from a stranger by its time."
      : `\nCan be told apart: ${
        apart.map(({ name, distance }) => `${name} (KS ${distance.toFixed(3)})`).join(", ")
      }.`,
  );
}
