/**
 * The status page of the admin listener: one HTML document with its script and style inside, made without a build step.
 *
 * @module
 */

/** The page's style; the policy names its hash. */
export const STATUS_PAGE_STYLE = `
:root { color-scheme: light dark; --line: #2a6fdb; --soft: #8884; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
.state { border-radius: 1rem; padding: .1rem .7rem; border: 1px solid var(--soft); }
.good { color: #178a3b; } .bad { color: #c62828; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--soft); border-radius: .5rem; padding: .6rem .8rem; }
figcaption { display: flex; justify-content: space-between; }
svg { width: 100%; height: 5rem; display: block; }
polyline { fill: none; stroke: var(--line); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
rect { fill: var(--line); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .15rem .6rem; border-bottom: 1px solid var(--soft); }
th:first-child, td:first-child { text-align: left; }
`;

/** The page's script; the policy names its hash. */
export const STATUS_PAGE_SCRIPT = `
"use strict";
const KEEP = 120, EVERY = 1000;
const series = { requests: [], latency: [], out: [], active: [] };
let last, lastAt;
const byId = (id) => document.getElementById(id);
function human(n) {
  if (!isFinite(n)) return "–";
  for (const unit of ["", "k", "M", "G"]) { if (Math.abs(n) < 1000) return n.toFixed(n < 10 && n !== 0 ? 1 : 0) + unit; n /= 1000; }
  return n.toFixed(1) + "T";
}
function draw(name, unit) {
  const values = series[name], top = Math.max(1e-9, ...values);
  const points = values.map((v, i) => (i * 100 / (KEEP - 1)).toFixed(2) + "," + (38 - 36 * v / top).toFixed(2)).join(" ");
  byId(name + "-line").setAttribute("points", points);
  byId(name + "-now").textContent = human(values.at(-1) ?? 0) + " " + unit;
}
function rows(id, data) {
  const body = byId(id);
  body.replaceChildren(...data.map((cells) => {
    const tr = document.createElement("tr");
    for (const cell of cells) { const td = document.createElement("td"); td.textContent = cell; tr.append(td); }
    return tr;
  }));
}
function histogram(counts) {
  const top = Math.max(1, ...counts), width = 100 / counts.length;
  const svg = byId("histogram");
  svg.replaceChildren(...counts.map((n, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = 36 * n / top;
    bar.setAttribute("x", String(i * width + width * .1)); bar.setAttribute("width", String(width * .8));
    bar.setAttribute("y", String(38 - height)); bar.setAttribute("height", String(height));
    return bar;
  }));
}
const sum = (object) => Object.values(object).reduce((a, b) => a + b, 0);
async function tick() {
  try {
    const response = await fetch("status.json", { cache: "no-store" });
    const now = await response.json(), at = performance.now();
    const state = byId("state");
    state.textContent = now.stopping ? "stopping" : now.ready ? "ready" : "not ready";
    state.className = "state " + (now.ready ? "good" : "bad");
    const m = now.metrics;
    if (last) {
      const seconds = (at - lastAt) / 1000;
      const requests = sum(m.outcomes) - sum(last.outcomes);
      const push = (name, value) => { series[name].push(value); if (series[name].length > KEEP) series[name].shift(); };
      push("requests", requests / seconds);
      push("latency", requests > 0 ? 1000 * (m.latencySum - last.latencySum) / requests : 0);
      push("out", (m.bytesOut - last.bytesOut) / seconds);
      push("active", m.active);
      draw("requests", "/s"); draw("latency", "ms"); draw("out", "B/s"); draw("active", "");
    }
    last = m; lastAt = at;
    histogram(m.latency);
    rows("outcomes", Object.entries(m.outcomes).filter(([, n]) => n > 0));
    rows("tickets", Object.entries(m.tickets).filter(([, n]) => n > 0));
    rows("upstreams", now.upstreams.map((u) => [u.name, u.state + (u.active ? ", in use" : ""), u.sessions, u.streams,
      u.rttMs === undefined ? "–" : u.rttMs.toFixed(1) + " ms", human(u.bytesSent), human(u.bytesReceived), u.rekeys,
      u.handshakeFailures]));
  } catch {
    const state = byId("state");
    state.textContent = "gone"; state.className = "state bad";
  }
  setTimeout(tick, EVERY);
}
tick();
`;

const CHART = (id: string, title: string): string =>
  `<figure><figcaption><span>${title}</span><b id="${id}-now">–</b></figcaption>` +
  `<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="${title}"><polyline id="${id}-line"/></svg></figure>`;

/** The page. */
export const STATUS_PAGE: string = /* @__PURE__ */ (() =>
  `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HTX gateway</title>
<style>${STATUS_PAGE_STYLE}</style>
</head>
<body>
<h1>HTX gateway <span id="state" class="state">…</span></h1>
<div class="charts">
${CHART("requests", "Requests")}
${CHART("latency", "Time to first byte")}
${CHART("out", "Response bytes")}
${CHART("active", "Running")}
<figure><figcaption><span>Latency, 1 ms to over 30 s</span></figcaption>
<svg id="histogram" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="Latency histogram"></svg></figure>
</div>
<h2>Upstreams</h2>
<table><thead><tr><th>name<th>state<th>sessions<th>streams<th>round trip<th>sent<th>received<th>rekeys<th>failed handshakes</tr></thead>
<tbody id="upstreams"></tbody></table>
<h2>Requests</h2>
<table><tbody id="outcomes"></tbody></table>
<h2>Tickets</h2>
<table><tbody id="tickets"></tbody></table>
<script>${STATUS_PAGE_SCRIPT}</script>
</body>
</html>
`)();
