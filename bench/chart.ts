/**
 * The chart of the README, from the JSON of a run: how many times as good as each peer, on a scale of powers.
 *
 *     deno run -R -W bench/chart.ts [JSON, bench/results.json] [SVG, bench/chart.svg]
 *
 * @module
 */

import { type Report, type ReportRow, short } from "./report.ts";

/** Rows of the chart and the peers that stand in it. */
const CHARTED: readonly {
  readonly row: string;
  readonly title: string;
  readonly peers: readonly string[];
}[] = [
  { row: "bulk", title: "bulk, one stream", peers: ["libp2p", "aead"] },
  { row: "echo1", title: "64 B echo, one at a time", peers: ["libp2p", "tcp"] },
  { row: "echo64", title: "64 B echo, 64 outstanding", peers: ["libp2p", "tcp"] },
  { row: "stream1", title: "new stream a request, one at a time", peers: ["libp2p"] },
  { row: "stream64", title: "new stream a request, 64 at a time", peers: ["libp2p"] },
  { row: "handshakes", title: "handshakes, classic", peers: ["libp2p"] },
  { row: "handshakes-hybrid", title: "handshakes, hybrid (post-quantum)", peers: ["libp2p"] },
  {
    row: "gateway-get16-c1",
    title: "gateway, small GET, 1 connection",
    peers: ["proxy-h1", "proxy-h2", "ssh"],
  },
  {
    row: "gateway-get16-c16",
    title: "gateway, small GET, 16 connections",
    peers: ["proxy-h1", "proxy-h2", "ssh"],
  },
  {
    row: "gateway-get16-c64",
    title: "gateway, small GET, 64 connections",
    peers: ["proxy-h1", "proxy-h2", "ssh"],
  },
  {
    row: "gateway-get1m-c16",
    title: "gateway, 1 MiB GET, 16 connections",
    peers: ["proxy-h1", "proxy-h2", "ssh"],
  },
  {
    row: "gateway-post1m-c16",
    title: "gateway, 1 MiB POST, 16 connections",
    peers: ["proxy-h1", "proxy-h2", "ssh"],
  },
  { row: "blocks-32", title: "blocks of 256 KiB, 32 in flight", peers: ["helia"] },
];

const WIDTH = 880;
const NAMES = 300;
const PLOT = 440;
const BAR = 14;
const STEP = 19;
const GAP = 13;
const TOP = 64;

function escape(text: string): string {
  return text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]!);
}

/** The chart as SVG: no script, no outside fonts, colours for light and dark pages. */
export function chart(report: Pick<Report, "rows" | "runtime" | "machine" | "rounds">): string {
  const rows = CHARTED.flatMap(({ row: name, title, peers }) => {
    const row = report.rows.find((r: ReportRow) => r.name === name);
    const bars = peers.flatMap((variant) => row?.peers.find((peer) => peer.variant === variant) ?? []);
    return bars.length === 0 ? [] : [{ title, bars }];
  });
  const all = rows.flatMap(({ bars }) => bars.flatMap(({ ratio }) => [ratio.min, ratio.max]));
  const low = Math.min(0.5, ...all.map((value) => 2 ** Math.floor(Math.log2(value))));
  const high = Math.max(2, ...all.map((value) => 2 ** Math.ceil(Math.log2(value))));
  const x = (value: number) => NAMES + PLOT * Math.log(value / low) / Math.log(high / low);
  const n = (value: number) => value.toFixed(1);
  const parts: string[] = [];
  let y = TOP;
  for (const { title, bars } of rows) {
    for (const [i, { ratio, label }] of bars.entries()) {
      const middle = y + BAR / 2;
      const text = middle + 4;
      const [from, to] = [Math.min(x(1), x(ratio.median)), Math.max(x(1), x(ratio.median))];
      if (i === 0) {
        parts.push(
          `<text class="name" x="${NAMES - 12}" y="${n(text)}" text-anchor="end">${escape(title)}</text>`,
        );
      }
      parts.push(
        `<rect class="${ratio.median >= 1 ? "ahead" : "behind"}" x="${n(from)}" y="${n(y)}" width="${
          n(Math.max(1, to - from))
        }" height="${BAR}" rx="2"/>`,
        `<path class="spread" d="M${n(x(ratio.min))} ${n(middle)}H${n(x(ratio.max))}"/>`,
        `<text x="${n(Math.max(to, x(ratio.max), x(1)) + 8)}" y="${n(text)}"><tspan class="value">${
          short(ratio.median)
        }×</tspan> ${escape(label)}</text>`,
      );
      y += STEP;
    }
    y += GAP;
  }
  const ticks: string[] = [];
  for (let value = low; value <= high; value *= 2) {
    const name = value >= 1 ? `${value}×` : `1/${1 / value}`;
    ticks.push(
      `<path class="${value === 1 ? "one" : "tick"}" d="M${n(x(value))} ${TOP - 12}V${n(y - GAP + 4)}"/>`,
      `<text class="scale" x="${n(x(value))}" y="${TOP - 18}" text-anchor="middle">${name}</text>`,
    );
  }
  const height = y + 22;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH + 140} ${
    n(height)
  }" role="img" aria-labelledby="title">
<title id="title">How many times as fast as its peers: medians of ${report.rounds} interleaved rounds</title>
<style>
text { font: 12px system-ui, sans-serif; fill: #57606a }
.heading { font-size: 14px; font-weight: 600; fill: #1f2328 }
.name, .value { fill: #1f2328 }
.value { font-weight: 600 }
.scale { font-size: 11px }
.ahead { fill: #2da44e }
.behind { fill: #bf8700 }
.tick { stroke: #d0d7de }
.one { stroke: #57606a }
.spread { stroke: #1f2328; stroke-opacity: .55; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 }
.heading, .name, .value { fill: #f0f6fc }
.ahead { fill: #3fb950 }
.behind { fill: #d29922 }
.tick { stroke: #3d444d }
.one { stroke: #9198a1 }
.spread { stroke: #f0f6fc }
}
</style>
<text class="heading" x="${NAMES}" y="22">htx, times as fast as …</text>
${ticks.join("\n")}
${parts.join("\n")}
<text class="scale" x="12" y="${n(height - 6)}">${
    escape(
      `${report.rounds} rounds, medians; lines from least to greatest; ${report.machine}; ${report.runtime}`,
    )
  }</text>
</svg>
`;
}

if (import.meta.main) {
  const [from = "bench/results.json", to = "bench/chart.svg"] = Deno.args;
  await Deno.writeTextFile(to, chart(JSON.parse(await Deno.readTextFile(from))));
}
