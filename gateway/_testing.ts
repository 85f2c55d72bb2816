/** Help for this room's tests. */

import {
  type HttpHandler,
  type HtxServer,
  memoryDuplexPair,
  serve,
  serveStreams,
  type StreamHandler,
} from "../transport/mod.ts";
import { createGateway, type Gateway, type GatewayOptions } from "./gateway.ts";
import type { FrontInfo } from "./front.ts";
import { localStreams, type LocalUpstream, localUpstream } from "./local.ts";

export const PEER: FrontInfo = { remoteAddr: { hostname: "192.0.2.7", port: 1234 }, encrypted: false };

/** A gateway over a handler in this process, called without a socket. */
export function over(
  handler: HttpHandler,
  options: Partial<GatewayOptions> = {},
): { gateway: Gateway; upstream: LocalUpstream; ask: Ask; [Symbol.asyncDispose](): Promise<void> } {
  const upstream = localUpstream(handler);
  const gateway = createGateway({ upstream, ...options });
  return {
    gateway,
    upstream,
    ask: asker(gateway),
    [Symbol.asyncDispose]: async () => {
      await gateway.close();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

export function overStreams(handler: StreamHandler, options: Partial<GatewayOptions> = {}) {
  const upstream = localStreams(handler);
  const gateway = createGateway({ upstream, ...options });
  return {
    gateway,
    upstream,
    ask: asker(gateway),
    [Symbol.asyncDispose]: async () => {
      await gateway.close();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

export type Ask = (
  target: string,
  init?: RequestInit & { info?: Partial<FrontInfo>; duplex?: "half" },
) => Promise<Response>;

export function asker(gateway: Gateway): Ask {
  return async (target, init = {}) => {
    const { info, ...rest } = init;
    const url = target.startsWith("/") ? `http://site.example${target}` : target;
    return await gateway.handler(new Request(url, rest), { ...PEER, ...info });
  };
}

/** A handler that tells what it was asked. */
export const tell: HttpHandler = async (request, info) =>
  Response.json({
    method: request.method,
    path: info.rawPath,
    headers: [...request.headers],
    body: await request.text(),
  });

export interface Told {
  method: string;
  path: string;
  headers: [string, string][];
  body: string;
}

export async function told(response: Response): Promise<Told & { header(name: string): string | undefined }> {
  const answer = await response.json() as Told;
  return { ...answer, header: (name) => answer.headers.find(([one]) => one === name)?.[1] };
}

/** Sends text to a port and reads what comes until the end, or until nothing more came for `quiet` ms. */
export async function raw(
  port: number,
  text: string | Uint8Array,
  quiet = 300,
  end = false,
): Promise<string> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  try {
    await conn.write(typeof text === "string" ? new TextEncoder().encode(text) : text);
    if (end) await conn.closeWrite();
    let all = "";
    const buffer = new Uint8Array(65536);
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const wait = all === "" ? Math.max(quiet, 3000) : quiet;
      const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), wait));
      const read = conn.read(buffer).catch(() => null);
      const n = await Promise.race([read, late]);
      clearTimeout(timer);
      if (n === undefined) {
        conn.close();
        await read;
        return all;
      }
      if (n === null) return `${all}<end>`;
      all += new TextDecoder("latin1").decode(buffer.subarray(0, n));
    }
  } finally {
    try {
      conn.close();
    } catch { /* closed */ }
  }
}

/** Runs curl; standard output as text. */
export async function curl(...args: string[]): Promise<{ code: number; out: string }> {
  const { code, stdout } = await new Deno.Command("curl", {
    args: ["-s", "--path-as-is", "--max-time", "20", ...args],
    stderr: "null",
  }).output();
  return { code, out: new TextDecoder().decode(stdout) };
}

/** Waits for a condition, at most `ms`. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  const end = performance.now() + ms;
  while (!await condition()) {
    if (performance.now() > end) throw new Error("the awaited did not happen");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Whether the long rows run in full. */
export function long(): boolean {
  return Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
    Deno.env.get("HTX_LONG") === "1";
}

export { type HtxServer, memoryDuplexPair, serve, serveStreams };

/** Bytes to lines of text. */
export class TextLineStream extends TransformStream<Uint8Array, string> {
  constructor() {
    const decoder = new TextDecoder();
    let rest = "";
    super({
      transform: (chunk, controller) => {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) controller.enqueue(line);
      },
      flush: (controller) => {
        if (rest !== "") controller.enqueue(rest);
      },
    });
  }
}

const ROOT = new URL("..", import.meta.url).pathname;

/** A deno process whose standard output is read line by line. */
export class Child implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly lines: string[] = [];
  readonly #reading: Promise<unknown>;
  #waiters: (() => void)[] = [];
  #ended = false;

  constructor(args: string[], env: Record<string, string> = {}) {
    this.#process = new Deno.Command("deno", {
      args,
      cwd: ROOT,
      env: { NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const read = async (stream: ReadableStream<Uint8Array>) => {
      for await (const line of stream.pipeThrough(new TextLineStream())) {
        this.lines.push(line);
        for (const wake of this.#waiters.splice(0)) wake();
      }
    };
    this.#reading = Promise.all([read(this.#process.stdout), read(this.#process.stderr)]).then(() => {
      this.#ended = true;
      for (const wake of this.#waiters.splice(0)) wake();
    });
  }

  get pid(): number {
    return this.#process.pid;
  }

  get status(): Promise<Deno.CommandStatus> {
    return this.#process.status;
  }

  /** The first line that fits, from `from` on. */
  async line(pattern: RegExp, ms = 20_000): Promise<RegExpExecArray> {
    const end = performance.now() + ms;
    for (let at = 0;;) {
      for (; at < this.lines.length; at++) {
        const match = pattern.exec(this.lines[at]!);
        if (match !== null) return match;
      }
      if (this.#ended || performance.now() > end) {
        throw new Error(`no line like ${pattern}:\n${this.lines.join("\n")}`);
      }
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        timer = setTimeout(resolve, end - performance.now());
      });
      clearTimeout(timer);
    }
  }

  kill(signal: Deno.Signal): void {
    try {
      this.#process.kill(signal);
    } catch { /* ended */ }
  }

  /** Resident memory in MiB. */
  async rss(): Promise<number> {
    const { stdout } = await new Deno.Command("ps", { args: ["-o", "rss=", "-p", String(this.pid)] })
      .output();
    return Number(new TextDecoder().decode(stdout).trim()) / 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGKILL");
    await this.#process.status;
    await this.#reading;
  }
}

/** A gateway process with the configuration `source`; its URL. */
export async function startGateway(
  source: string,
  more: { args?: string[]; env?: Record<string, string>; base?: string } = {},
): Promise<{ child: Child; url: string; file: string }> {
  const file = `${more.base ?? await Deno.makeTempDir()}/gateway-${crypto.randomUUID()}.toml`;
  await Deno.writeTextFile(file, source);
  const child = new Child(
    ["run", "--quiet", "-N", "-R", "-E", ...(more.args ?? []), "gateway/main.ts", "--config", file],
    more.env,
  );
  const [, url] = await child.line(/gateway listens on (\S+)/);
  return { child, url: url!, file };
}

/** An upstream process. */
export async function startUpstream(
  port = 0,
  key = "",
): Promise<{ child: Child; port: number; publicKey: string }> {
  const child = new Child(["run", "--quiet", "-N", "gateway/testdata/upstream.ts", String(port), key]);
  const [, bound, publicKey] = await child.line(/^ready (\d+) ([0-9a-f]+)/);
  return { child, port: Number(bound), publicKey: publicKey! };
}
