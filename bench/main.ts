/**
 * `deno task bench`: this library beside its peers, in turns, on loopback, as ratios.
 *
 * @module
 */

import { cpus } from "node:os";
import { parseArgs } from "@std/cli/parse-args";
import { LABELS, openGroup } from "./groups.ts";
import { findPeers } from "./peers.ts";
import { endChildren } from "./process.ts";
import { type Report, reportRows, type Sample, table } from "./report.ts";
import { type GroupName, type Row, ROWS, selectRows } from "./rows.ts";

const HELP = `This library beside its peers, on loopback, every variant once a round.

    deno task bench [options]

    --rounds N      rounds, 1 to 100 (default 5)
    --seconds N     seconds of a timed phase, 0.1 to 60 (default 2; wrk takes whole ones)
    --only NAMES    rows, by name or by the beginning of it, with commas between them; may be repeated
    --json [FILE]   the figures as JSON, to a file below bench/ or, without one, to stdout in place of the table
    --list          the names of the rows
    --help          this

Peers that are not installed are left out and named; deno task bench:install installs them.
A chart is drawn from the JSON by: deno run -R -W bench/chart.ts FILE bench/chart.svg
`;

interface Settings {
  readonly rounds: number;
  readonly seconds: number;
  readonly rows: readonly Row[];
  /** A file; "" is stdout. */
  readonly json: string | undefined;
}

/** The settings in the arguments; a number is the exit code of a run that is over. */
function readArgs(args: string[]): Settings | number {
  const unknown: string[] = [];
  const flags = parseArgs(args, {
    string: ["rounds", "seconds", "json", "only"],
    collect: ["only"],
    boolean: ["help", "list"],
    alias: { help: "h" },
    unknown: (arg: string) => {
      unknown.push(arg);
      return false;
    },
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  if (flags.list) {
    for (const { name, title } of ROWS) console.log(`${name.padEnd(26)}${title}`);
    return 0;
  }
  const wrong = (why: string) => {
    console.error(`bench: ${why}\nbench: --help tells what there is`);
    return 2;
  };
  if (unknown.length > 0) return wrong(`what is ${unknown[0]}?`);
  const number = (text: string | undefined, usual: number) =>
    text === undefined ? usual : text === "" ? NaN : Number(text);
  const rounds = number(flags.rounds, 5);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    return wrong(`--rounds ${flags.rounds} is not 1 to 100`);
  }
  const seconds = number(flags.seconds, 2);
  if (!(seconds >= 0.1 && seconds <= 60)) return wrong(`--seconds ${flags.seconds} is not 0.1 to 60`);
  const only = flags.only.join(",").split(",").map((name) => name.trim()).filter((name) => name !== "");
  if (args.some((arg) => arg === "--only" || arg.startsWith("--only=")) && only.length === 0) {
    return wrong("--only wants the names of rows");
  }
  let rows: readonly Row[];
  try {
    rows = selectRows(only);
  } catch (error) {
    return wrong(error instanceof Error ? error.message : `${error}`);
  }
  if (flags.json) {
    try {
      Deno.openSync(flags.json, { create: true, append: true }).close();
    } catch (error) {
      return wrong(`cannot write ${flags.json}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return { rounds, seconds, rows, json: flags.json };
}

/** A line that is written over on a terminal, and lines elsewhere. */
class Progress {
  readonly #live = Deno.stderr.isTerminal();
  readonly #out = new TextEncoder();

  #write(text: string): void {
    const bytes = this.#out.encode(text);
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  }

  /** Of little note: seen on terminals alone. */
  step(text: string): void {
    if (this.#live) this.#write(`\r\x1b[2K${text.slice(0, 100)}`);
  }

  line(text: string): void {
    this.#write(this.#live ? `\r\x1b[2K${text}\n` : `${text}\n`);
  }

  end(): void {
    if (this.#live) this.#write("\r\x1b[2K");
  }
}

function machine(): string {
  const model = cpus()[0]?.model || Deno.build.arch;
  const gibibytes = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  const { hardwareConcurrency } = navigator;
  return `${model}, ${hardwareConcurrency} cores, ${gibibytes} GiB, ${Deno.build.os} ${Deno.osRelease()}`;
}

async function run(settings: Settings, scratch: string): Promise<Report> {
  const { rounds, seconds, rows } = settings;
  const progress = new Progress();
  const peers = await findPeers(scratch);
  const samples: Sample[] = [];
  const skipped: { group: string; variant: string; why: string }[] = [];
  const failed: { group: string; variant: string; why: string }[] = [];
  const started = performance.now();
  const elapsed = () => {
    const passed = Math.round((performance.now() - started) / 1000);
    return `${Math.floor(passed / 60)}:${`${passed % 60}`.padStart(2, "0")}`;
  };
  const groups = [...new Set(rows.map((row) => row.group))] satisfies GroupName[];
  for (const [index, name] of groups.entries()) {
    const ofGroup = rows.filter((row) => row.group === name);
    // A variant of ours that another of ours is measured against is wanted too.
    const ours = new Set(
      ofGroup.flatMap((row) => [row.ours ?? "htx", ...(row.goals ?? []).map(({ peer }) => peer)]),
    );
    const phases = new Set(ofGroup.map((row) => row.phase));
    await using group = await openGroup(name, { seconds, phases, ours, peers });
    for (const { variant, why } of group.skipped) {
      skipped.push({ group: name, variant, why });
      progress.line(`${elapsed()}  ${name}: ${LABELS[variant] ?? variant}: skipped, ${why}`);
    }
    const broken = new Set<string>();
    for (let round = 0; round < rounds; round++) {
      for (const [at, { variant, run }] of group.steps.entries()) {
        if (broken.has(variant)) continue;
        progress.step(
          `${elapsed()}  ${name} (${index + 1}/${groups.length})  round ${round + 1}/${rounds}  ` +
            `${at + 1}/${group.steps.length}  ${LABELS[variant] ?? variant}`,
        );
        try {
          for (const { phase, values } of await run()) {
            samples.push({ group: name, variant, round, phase, values });
          }
        } catch (error) {
          const why = error instanceof Error ? error.message : `${error}`;
          broken.add(variant);
          failed.push({ group: name, variant, why });
          progress.line(`${elapsed()}  ${name}: ${LABELS[variant] ?? variant}: failed, ${why}`);
        }
      }
    }
    progress.line(
      `${elapsed()}  ${name}: ${rounds} round${rounds === 1 ? "" : "s"} done (${index + 1}/${groups.length})`,
    );
  }
  progress.end();
  return {
    at: new Date().toISOString(),
    machine: machine(),
    runtime: `Deno ${Deno.version.deno}, V8 ${Deno.version.v8}`,
    rounds,
    seconds,
    rows: reportRows(rows, samples),
    skipped,
    failed,
    samples,
  };
}

async function main(): Promise<number> {
  const settings = readArgs(Deno.args);
  if (typeof settings === "number") return settings;
  const scratch = await Deno.makeTempDir({ prefix: "htx-bench-" });
  const clean = async () => {
    await endChildren();
    await Deno.remove(scratch, { recursive: true }).catch(() => {});
  };
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    Deno.addSignalListener(signal, () => clean().finally(() => Deno.exit(code)));
  }
  try {
    const report = await run(settings, scratch);
    const json = `${JSON.stringify(report, null, 1)}\n`;
    if (settings.json === "") console.log(json.trimEnd());
    else {
      console.log(table(report));
      if (settings.json !== undefined) await Deno.writeTextFile(settings.json, json);
    }
    return report.rows.length === 0 || report.failed.some(({ variant }) => variant.startsWith("htx")) ? 1 : 0;
  } finally {
    await clean();
  }
}

if (import.meta.main) Deno.exit(await main());
