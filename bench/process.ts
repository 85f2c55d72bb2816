/**
 * Child processes of the benchmarks: starting peers, reading their lines, and what a phase cost each side in CPU
 * time and memory. Only processes that were started here are ever ended.
 *
 * Protocol on stdout, one line each: a server says `READY <json>`, which its client gets as the last argument; a
 * client says `START <phase>` and `END <phase> <json>` around what it measures.
 *
 * @module
 */

/** The checkout. */
export const ROOT: URL = new URL("../", import.meta.url);

const READY_TIMEOUT_MS = 20_000;
const GRACE_MS = 1500;

/** A command, its arguments and its environment. */
export interface Command {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** What one phase of one run gave. */
export interface Measurement {
  readonly phase: string;
  readonly values: Readonly<Record<string, number>>;
}

/** Deno on a script of the checkout, or with `config` on one that has its own packages. */
export function denoRun(script: URL, args: readonly string[], options: {
  env?: Record<string, string>;
  config?: string;
  flags?: readonly string[];
} = {}): Command {
  const config = options.config ?? decodeURIComponent(new URL("deno.json", ROOT).pathname);
  return {
    command: "deno",
    args: [
      "run",
      "--allow-all",
      "--no-check",
      "--no-lock",
      "--quiet",
      `--config=${config}`,
      ...options.flags ?? [],
      script.href,
      ...args,
    ],
    env: { NO_COLOR: "1", ...options.env },
  };
}

const living = new Set<Child>();

/** Ends whatever was started here and still runs. */
export async function endChildren(): Promise<void> {
  await Promise.all([...living].map((child) => child[Symbol.asyncDispose]()));
}

/** A process that was started here. */
export class Child implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: Promise<void>;
  readonly #errors: Promise<void>;
  #errorText = "";
  #ended = false;
  /** Settles when it has ended. */
  readonly status: Promise<Deno.CommandStatus>;

  constructor(command: Command, onLine: (line: string) => void = () => {}) {
    this.#process = new Deno.Command(command.command, {
      args: [...command.args],
      env: { ...command.env },
      cwd: decodeURIComponent(ROOT.pathname),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.status = this.#process.status.then((status) => {
      this.#ended = true;
      living.delete(this);
      return status;
    });
    living.add(this);
    this.#lines = eachLine(this.#process.stdout, onLine);
    this.#errors = eachLine(this.#process.stderr, (line) => {
      this.#errorText = `${this.#errorText}${line}\n`.slice(-2000);
    });
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** The last of what it wrote to stderr. */
  get errorText(): string {
    return this.#errorText.trim();
  }

  /** Waits until it has ended and every line of it has been seen. */
  async finished(): Promise<Deno.CommandStatus> {
    const status = await this.status;
    await Promise.all([this.#lines, this.#errors]);
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const signal = (name: Deno.Signal) => {
      if (this.#ended) return;
      try {
        this.#process.kill(name);
      } catch { /* it has just ended */ }
    };
    signal("SIGTERM");
    const timer = setTimeout(() => signal("SIGKILL"), GRACE_MS);
    await this.finished();
    clearTimeout(timer);
  }
}

async function eachLine(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  onLine: (line: string) => void,
): Promise<void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  }
  if (rest !== "") onLine(rest);
}

/** A server that has said `READY`, and what it said. */
export async function startServer(command: Command): Promise<{ child: Child; info: string }> {
  const ready = Promise.withResolvers<string>();
  ready.promise.catch(() => {});
  const child = new Child(command, (line) => {
    if (line.startsWith("READY ")) ready.resolve(line.slice(6));
  });
  child.finished().then(({ code }) => ready.reject(new Error(`ended with ${code}: ${child.errorText}`)));
  const timer = setTimeout(() => ready.reject(new Error("not ready in time")), READY_TIMEOUT_MS);
  try {
    return { child, info: await ready.promise };
  } catch (error) {
    await child[Symbol.asyncDispose]();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** A server and its client, once; what the client measured, with the CPU seconds and memory of both sides. */
export async function measurePair(server: Command, client: Command, limitMs: number): Promise<Measurement[]> {
  const { child, info } = await startServer(server);
  await using _server = child;
  return await measureClient({ ...client, args: [...client.args, info] }, [child.pid], limitMs);
}

/** A client, once, beside servers that run already. */
export async function measureClient(
  client: Command,
  servers: readonly number[],
  limitMs: number,
): Promise<Measurement[]> {
  const found: Measurement[] = [];
  let before: { server: Usage; client: Usage } | undefined;
  const usage = () => ({ server: usageOf(servers), client: usageOf([child.pid]) });
  const child: Child = new Child(client, (line) => {
    if (line.startsWith("START ")) before = usage();
    if (!line.startsWith("END ") || before === undefined) return;
    const space = line.indexOf(" ", 4);
    const after = usage();
    found.push({
      phase: line.slice(4, space),
      values: {
        ...known({
          cpuServer: after.server.cpu - before.server.cpu,
          cpuClient: after.client.cpu - before.client.cpu,
          rssServer: after.server.rss - before.server.rss,
        }),
        ...JSON.parse(line.slice(space + 1)), // with its own memory: it may be gone by now
      },
    });
  });
  await using _child = child;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child[Symbol.asyncDispose]();
  }, limitMs);
  const { code } = await child.finished();
  clearTimeout(timer);
  if (late) throw new Error(`not done within ${limitMs / 1000} s`);
  if (code !== 0) throw new Error(`ended with ${code}: ${child.errorText}`);
  return found;
}

/** The values that are numbers. */
export function known(values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => Number.isFinite(value)));
}

interface Usage {
  /** CPU seconds, user and system; `NaN` where they cannot be had. */
  readonly cpu: number;
  /** Resident bytes; `NaN` where they cannot be had. */
  readonly rss: number;
}

/** What processes and their living children have used so far: from `/proc` where that may be read, else from `ps`. */
export function usageOf(pids: readonly number[]): Usage {
  if (pids.length === 0) return { cpu: 0, rss: 0 };
  try {
    return usageFromProc(pids);
  } catch { /* no such system, or not with these permissions */ }
  try {
    const { stdout } = new Deno.Command("ps", { args: ["-o", "rss=", "-p", pids.join(",")] }).outputSync();
    const sizes = new TextDecoder().decode(stdout).trim().split(/\s+/).map((size) =>
      size === "" ? NaN : Number(size)
    );
    return { cpu: NaN, rss: sizes.reduce((sum, size) => sum + size, 0) * 1024 };
  } catch {
    return { cpu: NaN, rss: NaN };
  }
}

function usageFromProc(pids: readonly number[]): Usage {
  let [cpu, rss] = [0, 0];
  for (const pid of pids) {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    cpu += (Number(fields[11]) + Number(fields[12])) / 100;
    rss += Number(fields[21]) * 4096;
    const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
    if (children === "") continue;
    const below = usageFromProc(children.split(/\s+/).map(Number));
    cpu += below.cpu;
    rss += below.rss;
  }
  return { cpu, rss };
}
