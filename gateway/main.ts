/**
 * The gateway as a program: `deno task gateway`, or
 *
 *     deno run -N -R -E gateway/main.ts [--config FILE] [--check | --print-config] [--help]
 *
 * Permissions: -N to listen and dial, -R for the configuration and what it names, -E for `env:` references (and for
 * OTEL variables). `--allow-write=FILE` where `identity.key` names a file that is to be made, and for Deno KV.
 */

import { parseArgs } from "@std/cli/parse-args";
import {
  configureSync,
  getConsoleSink,
  getLogger,
  jsonLinesFormatter,
  type LogRecord,
} from "@logtape/logtape";
import { urlOf } from "./_url.ts";
import { ConfigError, type GatewayConfig, parseConfig, printConfig } from "./config.ts";
import { checkConfig, runDecoyAlone, runGateway } from "./run.ts";
import { readOrMakeKeyPair } from "./secrets.ts";

const HELP = `The HTX gateway: takes HTTP requests and carries them over sealed sessions to an upstream.

Usage: deno run -N -R -E gateway/main.ts [options]

  --config FILE    configuration (default: examples/templates/config/gateway.toml)
  --check          validates the configuration and what it names, and ends
  --print-config   prints the configuration with every default, secrets masked, and ends
  --decoy-alone    serves the decoy and nothing else, for comparing
  -h, --help       this text

Signals: HUP reads tickets, session, limits, decoy and trusted proxies again; INT and TERM stop, a second one at once.
Exit status: 0 after a clean stop, 1 when it cannot run, 2 for bad arguments.`;

/** Ends with one line. */
class Fail extends Error {
  constructor(readonly status: 1 | 2, message: string) {
    super(message);
  }
}

async function main(args: string[]): Promise<void> {
  const unknown: string[] = [];
  // "deno task gateway -- --check" hands the dashes on, too.
  const options = parseArgs(args[0] === "--" ? args.slice(1) : args, {
    string: ["config"],
    boolean: ["check", "print-config", "decoy-alone", "help"],
    alias: { h: "help" },
    unknown: (arg) => {
      unknown.push(arg);
      return false;
    },
  });
  if (options.help) return console.log(HELP);
  unknown.push(...options._.map(String)); // what stands behind "--"
  if (unknown.length > 0) throw new Fail(2, `unknown argument ${unknown[0]}; see --help`);
  if (options.config === "") throw new Fail(2, "--config needs a file; see --help");
  if (options.check && options["print-config"]) {
    throw new Fail(2, "--check and --print-config exclude each other");
  }
  const file = options.config ?? await defaultFile();
  const { config, base } = await load(file);
  if (options["print-config"]) return console.log(printConfig(config).trimEnd());
  const shortName = file ?? "built-in configuration";
  if (options.check) {
    const warnings: string[] = [];
    await checkConfig(config, { base, onWarning: (message) => warnings.push(message) });
    for (const message of warnings) console.error(`gateway: warning: ${message}`);
    return console.log(`${shortName}: ok`);
  }
  configureLogs(config);
  const log = getLogger(["htx", "gateway"]);
  if (options["decoy-alone"]) {
    const front = await runDecoyAlone(config, { base });
    console.log(`decoy listens on ${urlOf(front)}`);
    const stop = () => front.abort();
    onSignals(stop, stop);
    await front.finished;
    return offSignals();
  }
  const running = await runGateway(config, { base });
  let tickets = await ticketLines(config, base);
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  let first: { readonly signal: Deno.Signal; readonly at: number } | undefined;
  const stop = async (signal: Deno.Signal) => {
    const at = performance.now();
    if (first === undefined) first = { signal, at };
    else if (signal === first.signal && at - first.at < SAME_SIGNAL_MS) return;
    else {
      log.warn("Second signal: cutting what runs");
      Deno.exit(1);
    }
    log.info("Stopping: running requests have {ms} ms", { ms: config.limits.shutdown_ms });
    await running.shutdown();
    end();
  };
  const readAgain = async () => {
    try {
      const { config } = await load(file, true);
      const keys = await running.reload(config);
      log.info("Configuration read again");
      const lines = await ticketLines(config, base);
      if (lines !== tickets && lines !== "") console.log(lines);
      tickets = lines;
      if (keys.length > 0) log.warn("These changes take a restart: {keys}", { keys: keys.join(", ") });
    } catch (error) {
      log.error("Configuration not taken, the old one stays: {reason}", { reason: lineOf(error) });
    }
  };
  let reading = Promise.resolve();
  const reload = () => reading = reading.then(readAgain); // one after another: the last signal's file stays
  onSignals(stop, reload); // before anybody is told that it runs: a SIGHUP without a listener ends a process
  console.log(`gateway listens on ${running.url}`);
  if (running.admin !== undefined) {
    console.log(`admin listens on ${urlOf(running.admin)}`);
  }
  if (tickets !== "") console.log(tickets);
  if (!config.tickets.enabled && config.upstream.some(({ address }) => address === "echo")) {
    console.log(`try: curl -d hello ${running.url}/echo`);
  }
  await ended;
  // Connections that outlive a shutdown of Deno's server would keep the process.
  Deno.exit(0);
}

/** What clients have to know to make tickets; empty where none are asked for. */
async function ticketLines({ tickets }: GatewayConfig, base: string): Promise<string> {
  const lines: string[] = [];
  for (const { id, private_key } of tickets.enabled ? tickets.keys : []) {
    // Whoever else can read it was warned of when the gateway read it.
    const { keyPair } = await readOrMakeKeyPair(private_key, { base, onWarning: () => {} });
    lines.push(`ticket_pub=${keyPair.publicKeyHex}`, `ticket_key_id=${id}`);
  }
  return lines.join("\n");
}

/** A terminal's Ctrl-C comes to every process of a task, and `deno task` hands it on: one comes twice within this time. */
const SAME_SIGNAL_MS = 500;

let handlers: [Deno.Signal, () => void][] = [];

function onSignals(stop: (signal: Deno.Signal) => void, reload: () => void): void {
  handlers = [["SIGINT", () => stop("SIGINT")]];
  if (Deno.build.os !== "windows") handlers.push(["SIGTERM", () => stop("SIGTERM")], ["SIGHUP", reload]);
  for (const [signal, handler] of handlers) Deno.addSignalListener(signal, handler);
}

function offSignals(): void {
  for (const [signal, handler] of handlers) Deno.removeSignalListener(signal, handler);
}

/** The template beside this file, when this runs from a folder. */
async function defaultFile(): Promise<string | undefined> {
  const url = new URL("../examples/templates/config/gateway.toml", import.meta.url);
  if (url.protocol !== "file:") return undefined;
  const path = decodeURIComponent(url.pathname);
  return await Deno.stat(path).then(() => path, () => undefined);
}

/** Reads the configuration. At the start an empty file means every default; later it is one about to be written. */
async function load(
  file: string | undefined,
  again = false,
): Promise<{ config: GatewayConfig; base: string }> {
  if (file === undefined) return { config: parseConfig("", "built-in configuration"), base: "." };
  let source: string;
  try {
    source = await Deno.readTextFile(file);
  } catch (error) {
    throw new Fail(
      1,
      `cannot read ${file}: ${
        error instanceof Deno.errors.NotFound ? "there is no such file" : lineOf(error)
      }`,
    );
  }
  if (again && source.trim() === "") throw new Fail(1, `${file} is empty`);
  const slash = file.lastIndexOf("/");
  return {
    config: parseConfig(source, file),
    base: slash < 0 ? "." : slash === 0 ? "/" : file.slice(0, slash),
  };
}

function configureLogs(config: GatewayConfig): void {
  const { level, format } = config.log;
  configureSync({
    sinks: { console: getConsoleSink({ formatter: format === "json" ? jsonLinesFormatter : textLine }) },
    loggers: [
      { category: ["htx"], lowestLevel: level, sinks: ["console"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["console"] },
    ],
  });
}

/** One line for people: time, level, room, message, request id. */
function textLine(record: LogRecord): string {
  const message = record.message.map((part) => typeof part === "string" ? part : String(part)).join("");
  const { id } = record.properties;
  const time = new Date(record.timestamp).toISOString();
  // Whatever a client or an upstream said, a line stays a line, and text is read in its order.
  const clean = message.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, " ");
  const [, ...room] = record.category;
  return `${time} ${record.level.padEnd(7)} ${room.join(".")} ${clean}${
    typeof id === "string" ? ` id=${id}` : ""
  }`;
}

function lineOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0]!;
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    if (error instanceof ConfigError) console.error(error.message);
    else console.error(`gateway: ${lineOf(error)}`);
    Deno.exit(error instanceof Fail ? error.status : 1);
  }
}
