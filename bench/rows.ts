/**
 * The rows of the table: what is measured, in which unit, and what this library has set itself.
 *
 * @module
 */

/** One row. */
export interface Row {
  /** For `--only`. */
  readonly name: string;
  /** The group that measures it: its variants run in turns. */
  readonly group: GroupName;
  /** For people. */
  readonly title: string;
  /** The phase and the value in it. */
  readonly phase: string;
  readonly value: string;
  readonly unit: "MB/s" | "/s" | "µs" | "KiB" | "times";
  /** Which is better. */
  readonly better: "more" | "less";
  /** This library's variant. @default {"htx"} */
  readonly ours?: string;
  /** At least so many times as good as a peer. */
  readonly goals?: readonly { readonly peer: string; readonly times: number }[];
  /** At most so much, by itself. */
  readonly atMost?: number;
}

/** Groups, in the order in which they run. */
export type GroupName =
  | "bulk"
  | "echo"
  | "streams"
  | "handshakes"
  | "gateway"
  | "idle"
  | "fairness"
  | "tickets"
  | "blocks";

const GATEWAY_PROXY = (times: number) => [{ peer: "proxy-h1", times }, { peer: "proxy-h2", times }];

function gatewayRow(
  kind: "get16" | "get1m" | "post1m",
  connections: number,
  value: "rate" | "p50us" | "p99us",
): Row {
  const what = { get16: "16 B GET", get1m: "1 MiB GET", post1m: "1 MiB POST" }[kind];
  const goals = value !== "rate"
    ? {}
    : kind === "get16"
    ? { goals: [...GATEWAY_PROXY(1.3), { peer: "ssh", times: 1 }] }
    : connections === 16
    ? { goals: GATEWAY_PROXY(1) }
    : {};
  return {
    name: `gateway-${kind}-c${connections}${value === "rate" ? "" : `-${value.slice(0, 3)}`}`,
    group: "gateway",
    title: `gateway, ${what}, c=${connections}${value === "rate" ? "" : `, ${value.slice(0, 3)}`}`,
    phase: `${kind}-c${connections}`,
    value: value !== "rate" ? value : kind === "get16" ? "rps" : "MBps",
    unit: value !== "rate" ? "µs" : kind === "get16" ? "/s" : "MB/s",
    better: value === "rate" ? "more" : "less",
    ...goals,
    // Without its 40 ms steps a request for a MiB takes a few milliseconds.
    ...kind !== "get16" && connections === 1 && value === "p99us" ? { atMost: 40_000 } : {},
  };
}

/** Every row. */
export const ROWS: readonly Row[] = [
  {
    name: "bulk",
    group: "bulk",
    title: "bulk, one stream",
    phase: "bulk",
    value: "MBps",
    unit: "MB/s",
    better: "more",
    goals: [{ peer: "aead", times: 0.95 }, { peer: "libp2p", times: 2.8 }],
  },
  {
    name: "bulk-streams",
    group: "bulk",
    title: "bulk through HtxStream.readable / writable",
    phase: "bulk",
    value: "MBps",
    unit: "MB/s",
    better: "more",
    ours: "htx-streams",
    goals: [{ peer: "htx", times: 0.9 }],
  },
  {
    name: "echo1",
    group: "echo",
    title: "64 B echo, one at a time",
    phase: "echo1",
    value: "rps",
    unit: "/s",
    better: "more",
    goals: [{ peer: "tcp", times: 0.9 }],
  },
  ...(["p50us", "p99us"] as const).map((value): Row => ({
    name: `echo1-${value.slice(0, 3)}`,
    group: "echo",
    title: `64 B echo, one at a time, ${value.slice(0, 3)}`,
    phase: "echo1",
    value,
    unit: "µs",
    better: "less",
    ...value === "p99us" ? { goals: [{ peer: "libp2p", times: 1 }] } : {},
  })),
  {
    name: "echo64",
    group: "echo",
    title: "64 B echo, 64 outstanding on one stream",
    phase: "echo64each",
    value: "rps",
    unit: "/s",
    better: "more",
    goals: [{ peer: "libp2p", times: 10 }],
  },
  {
    name: "stream1",
    group: "streams",
    title: "new stream per request, one at a time",
    phase: "stream1",
    value: "rps",
    unit: "/s",
    better: "more",
    goals: [{ peer: "libp2p", times: 6 }],
  },
  {
    name: "stream64",
    group: "streams",
    title: "new stream per request, 64 at a time",
    phase: "stream64",
    value: "rps",
    unit: "/s",
    better: "more",
    goals: [{ peer: "libp2p", times: 12 }],
  },
  {
    name: "handshakes",
    group: "handshakes",
    title: "handshakes one after another, classic",
    phase: "dialclose",
    value: "rps",
    unit: "/s",
    better: "more",
    goals: [{ peer: "libp2p", times: 5 }],
  },
  {
    name: "handshakes-hybrid",
    group: "handshakes",
    title: "handshakes one after another, hybrid",
    phase: "dialclose",
    value: "rps",
    unit: "/s",
    better: "more",
    ours: "htx-hybrid",
    goals: [{ peer: "libp2p", times: 2.5 }],
  },
  ...[1, 16, 64].map((c) => gatewayRow("get16", c, "rate")),
  gatewayRow("get1m", 1, "rate"),
  gatewayRow("get1m", 1, "p99us"),
  gatewayRow("get1m", 16, "rate"),
  gatewayRow("post1m", 1, "rate"),
  gatewayRow("post1m", 1, "p99us"),
  gatewayRow("post1m", 16, "rate"),
  ...(["connection", "stream"] as const).flatMap((what) =>
    (["Client", "Server"] as const).map((side): Row => ({
      name: `idle-${what}${side === "Server" ? "-server" : ""}`,
      group: "idle",
      title: `memory of an idle ${what}, ${side.toLowerCase()}`,
      phase: `${what}s`,
      value: `rss${side}`,
      unit: "KiB",
      better: "less",
      atMost: what === "connection" ? 64 : 4,
    }))
  ),
  {
    name: "fairness",
    group: "fairness",
    title: "small requests beside a saturating download: p99, times the unloaded",
    phase: "small",
    value: "p99Ratio",
    unit: "times",
    better: "less",
    atMost: 5,
  },
  {
    name: "fairness-byob",
    group: "fairness",
    title: "the same, the download read into one buffer (BYOB)",
    phase: "smallbyob",
    value: "p99Ratio",
    unit: "times",
    better: "less",
    atMost: 5,
  },
  {
    name: "fairness-alone",
    group: "fairness",
    title: "small requests alone, p99",
    phase: "small",
    value: "aloneP99us",
    unit: "µs",
    better: "less",
  },
  {
    name: "fairness-beside",
    group: "fairness",
    title: "small requests beside a download, p99",
    phase: "small",
    value: "besideP99us",
    unit: "µs",
    better: "less",
  },
  {
    name: "tickets",
    group: "tickets",
    title: "tickets verified, one core",
    phase: "tickets",
    value: "rps",
    unit: "/s",
    better: "more",
  },
  ...[1, 32, 256].map((depth): Row => ({
    name: `blocks-${depth}`,
    group: "blocks",
    title: `blocks of 256 KiB, ${depth} in flight`,
    phase: `get${depth}`,
    value: "MBps",
    unit: "MB/s",
    better: "more",
  })),
];

/** The rows that `--only` names: a row, or every row whose name begins so. Throws `RangeError` for a name of none. */
export function selectRows(only: readonly string[]): readonly Row[] {
  if (only.length === 0) return ROWS;
  const matches = (row: Row, name: string) =>
    row.name === name || row.group === name || row.name.startsWith(`${name}-`);
  for (const name of only) {
    if (!ROWS.some((row) => matches(row, name))) {
      throw new RangeError(`No row is called ${name}. Rows: ${ROWS.map((row) => row.name).join(", ")}`);
    }
  }
  return ROWS.filter((row) => only.some((name) => matches(row, name)));
}
