/// <reference lib="dom" />
/**
 * The page: what a person sees and presses. The tunnel is `tunnel.ts`, what goes through it `exchange.ts`.
 *
 * @module
 */

import { HtxError, toHex } from "@betanet/htx/core";
import { Exchange, fetchText, type Moved, readEvents, receiveFile, sendFile } from "./exchange.ts";
import { fileStream } from "./sample.ts";
import { Tunnel, type TunnelState } from "./tunnel.ts";

/** Characters of a response that are shown. */
const SHOWN_BYTES = 64 * 1024;
/** Rows and lines kept. */
const MAX_ROWS = 40;
const MAX_LINES = 100;
const RENDER_EVERY_MS = 200;

const tunnel = new Tunnel({ state: onState, note });
const rows = new Map<Exchange, HTMLTableRowElement>();
const moving = new Map<"receive" | "send", { readonly exchange: Exchange; readonly length: number }>();

show("own-key", toHex(tunnel.keyPair.publicKey));
element("retry", HTMLButtonElement).addEventListener("click", () => tunnel.retryNow());
element("cut", HTMLButtonElement).addEventListener("click", () => tunnel.cut());
element("rekey", HTMLButtonElement).addEventListener("click", () => {
  const { connection } = tunnel;
  connection.updateKey();
  connection.ping().catch(() => {}); // the frame with which it happens
});
addEventListener("online", () => tunnel.retryNow());
element("fetch-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  fetchPath(element("path", HTMLInputElement).value);
});
element("receive", HTMLButtonElement).addEventListener("click", () => {
  const length = chosenLength();
  const exchange = track(new Exchange("GET", `/file?bytes=${length}`));
  move("receive", exchange, length, () => receiveFile(exchange, tunnel.connection));
});
element("send", HTMLButtonElement).addEventListener("click", () => {
  const length = chosenLength();
  upload(fileStream(length), length);
});
element("file", HTMLInputElement).addEventListener("change", (event) => {
  if (!(event.target instanceof HTMLInputElement)) return;
  const file = event.target.files?.[0];
  if (file !== undefined) upload(file.stream(), file.size);
  event.target.value = "";
});
setInterval(render, RENDER_EVERY_MS);
tunnel.run();

/** The tunnel went up or down. */
function onState(state: TunnelState): void {
  const pill = element("state", HTMLElement);
  pill.dataset["state"] = state.kind;
  element("connection", HTMLElement).dataset["state"] = state.kind;
  pill.textContent = state.kind === "open"
    ? "Connected"
    : state.kind === "waiting"
    ? "Not connected"
    : tunnel.made > 0
    ? "Connecting again"
    : "Connecting";
  for (const control of document.querySelectorAll("[data-needs-connection]")) {
    if (control instanceof HTMLButtonElement || control instanceof HTMLInputElement) {
      control.disabled = state.kind !== "open";
    }
  }
  if (state.kind === "waiting") {
    const [title, detail] = explain(state.error);
    show("alert-title", tunnel.made > 0 && state.attempts === 1 ? `Connection lost: ${title}` : title);
    show("alert-detail", detail);
    element("alert", HTMLElement).hidden = false;
    note(`${title} ${detail}`);
  }
  if (state.kind === "open") {
    const { handshake, remoteStatic } = state.connection;
    element("alert", HTMLElement).hidden = true;
    show("handshake", handshake.hybrid ? "Hybrid" : "Classic");
    show("handshake-parts", handshake.hybrid ? "X25519 with ML-KEM-768" : "X25519 alone");
    element("handshake", HTMLElement).dataset["hybrid"] = String(handshake.hybrid);
    show("protocol", handshake.protocol);
    show("server-key", toHex(remoteStatic));
    note(`Connection ${tunnel.made} is open (${handshake.hybrid ? "hybrid" : "classic"} handshake)`);
    fetchPath(element("path", HTMLInputElement).value);
    const events = track(new Exchange("GET", "/counter"));
    readEvents(events, state.connection, (data) => show("counter", String(countOf(data)))).catch(() => {}); // in its row
  }
  render();
}

async function fetchPath(path: string): Promise<void> {
  const exchange = track(new Exchange("GET", path));
  show("fetch-status", `Fetching ${path} …`);
  try {
    const response = await fetchText(exchange, tunnel.connection, SHOWN_BYTES);
    const type = response.fields.find(([name]) => name === "content-type")?.[1] ?? "no content type";
    show("fetch-status", `${response.status} · ${type} · ${milliseconds(exchange.elapsed)}`);
    show("fetch-body", pretty(type, response.text) + (response.cut ? "\n… and more" : ""));
  } catch (error) {
    show("fetch-status", `Failed: ${explain(error).join(" ")}`);
    show("fetch-body", "");
  }
}

function upload(content: ReadableStream<Uint8Array>, length: number): void {
  const exchange = track(new Exchange("POST", "/upload"));
  move("send", exchange, length, () => sendFile(exchange, tunnel.connection, content, length));
}

/** Moves a file and says how that goes; a second one in the same direction takes the first one's place. */
async function move(
  direction: "receive" | "send",
  exchange: Exchange,
  length: number,
  start: () => Promise<Moved>,
): Promise<void> {
  moving.get(direction)?.exchange.stop();
  const mine = { exchange, length };
  moving.set(direction, mine);
  const row = element(`${direction}-row`, HTMLElement);
  row.dataset["result"] = "moving";
  show(`${direction}-here`, "–");
  show(`${direction}-there`, "–");
  show(`${direction}-verdict`, "");
  let verdict: string;
  let result: string;
  try {
    const moved = await start();
    if (moving.get(direction) !== mine) return;
    const same = moved.here === moved.there && moved.bytes === length;
    show(`${direction}-here`, moved.here);
    show(`${direction}-there`, moved.there);
    verdict = same ? "✓ The same at both ends" : "✗ Not the same at both ends";
    result = same ? "same" : "failed";
  } catch (error) {
    if (moving.get(direction) !== mine) return;
    verdict = `✗ ${explain(error).join(" ")}`;
    result = "failed";
  }
  render();
  row.dataset["result"] = result;
  show(`${direction}-verdict`, verdict);
}

/** Puts an exchange into the table. */
function track(exchange: Exchange): Exchange {
  const row = document.createElement("tr");
  for (const name of ["stream", "request", "status", "sent", "received", "time", "state"]) {
    const cell = row.insertCell();
    if (name === "sent" || name === "received" || name === "time") cell.className = "number";
  }
  rows.set(exchange, row);
  element("exchanges", HTMLElement).prepend(row);
  if (rows.size > MAX_ROWS) {
    for (const [old, oldRow] of rows) {
      if (old.outcome === undefined) continue;
      rows.delete(old);
      oldRow.remove();
      break;
    }
  }
  return exchange;
}

/** Brings every number up to date. */
function render(): void {
  const { state } = tunnel;
  if (state.kind === "waiting") {
    const seconds = Math.max(0, state.retryAt - performance.now()) / 1000;
    show("alert-retry", `Trying again in ${seconds.toFixed(1)} s.`);
  }
  if (state.kind === "connecting") show("alert-retry", "Trying again now.");
  if (state.kind === "open") {
    const { stats } = state.connection;
    show("round-trip", stats.roundTripMs === undefined ? "–" : milliseconds(stats.roundTripMs));
    show("connected", `connection ${tunnel.made}, ${clock(performance.now() - state.since)}`);
    show("streams", `${stats.streams} open`);
    show("streams-opened", `${stats.streamsOpened} opened`);
    show("received", bytes(stats.bytesReceived));
    show("frames-received", `${count(stats.framesReceived)} frames`);
    show("sent", bytes(stats.bytesSent));
    show("frames-sent", `${count(stats.framesSent)} frames`);
    show("rekeys", count(stats.rekeysSent + stats.rekeysReceived));
    show("rekeys-detail", `${count(stats.rekeysSent)} here, ${count(stats.rekeysReceived)} there`);
  }
  for (const [direction, { exchange, length }] of moving) {
    const moved = direction === "send" ? exchange.sent : exchange.received;
    const bar = element(`${direction}-progress`, HTMLProgressElement);
    bar.value = length === 0 ? 1 : moved / length;
    const rate = exchange.elapsed > 0 ? `, ${bytes(moved / exchange.elapsed * 1000)}/s` : "";
    show(`${direction}-text`, `${bytes(moved)} of ${bytes(length)}${rate}`);
  }
  for (const [exchange, row] of rows) {
    const { outcome } = exchange;
    const state = outcome === undefined ? "open" : typeof outcome === "string" ? outcome : "failed";
    if (row.dataset["state"] === state && state !== "open") continue; // it changes no more
    row.dataset["state"] = state;
    const cells = [
      exchange.stream === undefined ? "–" : String(exchange.stream),
      `${exchange.method} ${exchange.path}`,
      exchange.status === undefined ? "–" : String(exchange.status),
      bytes(exchange.sent),
      bytes(exchange.received),
      duration(exchange.elapsed),
      typeof outcome === "object" ? `failed (${codeOf(outcome.error)})` : state,
    ];
    for (const [i, text] of cells.entries()) {
      const cell = row.cells[i];
      if (cell !== undefined && cell.textContent !== text) cell.textContent = text;
    }
  }
}

/** A line in the log. */
function note(text: string): void {
  const line = document.createElement("li");
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString(undefined, { hour12: false });
  line.append(time, text);
  const log = element("log", HTMLElement);
  log.prepend(line);
  while (log.childElementCount > MAX_LINES) log.lastElementChild?.remove();
}

/** An error in words, and the code behind it. */
function explain(error: unknown): [title: string, detail: string] {
  const words: Partial<Record<string, string>> = {
    CONNECT_FAILED: "The server does not answer.",
    HANDSHAKE_FAILED: "The server did not prove that it has the pinned key.",
    TRUNCATED: "The connection broke off.",
    TIMEOUT: "The server has gone silent.",
    TimeoutError: "The server does not answer.",
    CLOSED: "The connection was closed.",
    GOING_AWAY: "The server is going away.",
  };
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  return [words[code] ?? "That did not work.", `(${code}: ${message})`];
}

function codeOf(error: unknown): string {
  return error instanceof HtxError ? error.code : error instanceof Error ? error.name : "unknown";
}

function countOf(data: string): unknown {
  const value: unknown = JSON.parse(data);
  return typeof value === "object" && value !== null ? Reflect.get(value, "count") : undefined;
}

function pretty(type: string, text: string): string {
  if (!/\bjson\b/.test(type)) return text;
  try {
    return JSON.stringify(JSON.parse(text), undefined, 2);
  } catch {
    return text; // cut short, or not what it says it is
  }
}

function chosenLength(): number {
  return Number(element("size", HTMLSelectElement).value);
}

function show(id: string, text: string): void {
  const found = element(id, HTMLElement);
  if (found.textContent !== text) found.textContent = text;
}

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (found instanceof type) return found;
  throw new TypeError(`The page has no #${id} of this kind`);
}

function bytes(length: number): string {
  for (const [unit, size] of [["GiB", 1024 ** 3], ["MiB", 1024 ** 2], ["KiB", 1024]] as const) {
    if (length >= size) return `${(length / size).toFixed(length < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(length)} B`;
}

function count(number: number): string {
  return number.toLocaleString("en");
}

function milliseconds(ms: number): string {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

function clock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}
