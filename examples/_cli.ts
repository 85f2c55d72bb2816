/**
 * What the examples share: arguments, errors of one line, an orderly end. Nothing in here is about HTX.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";

/** How a program is called. */
export interface Command {
  /** What `--help` prints. */
  readonly help: string;
  /**
   * Names of the positional arguments in their order; `[NAME]` may be left out. Where the first one is a word that
   * decides about the rest, the rest by that word.
   *
   * @default {[]}
   */
  readonly positional?: readonly string[] | Readonly<Record<string, readonly string[]>>;
  /** Options with a value, and what they are when not given. @default {{}} */
  readonly options?: Readonly<Record<string, string | undefined>>;
  /**
   * Whether it ends by {@linkcode untilStopped}, or the words with which it does: a Ctrl-C that comes before is kept for it.
   *
   * @default {false}
   */
  readonly stays?: boolean | readonly string[];
}

/** Bad arguments: exit status 2. */
export class UsageError extends Error {}

/** Something else that the person at the terminal can mend: exit status 1. */
export class Failure extends Error {}

/** The arguments of a call. */
export class Arguments {
  /** The word that decides about the rest; empty where there is none. */
  readonly word: string;
  readonly #values: ReadonlyMap<string, string>;

  constructor(word: string, values: ReadonlyMap<string, string>) {
    this.word = word;
    this.#values = values;
  }

  /** The value of an argument or option, if there is one. */
  optional(name: string): string | undefined {
    return this.#values.get(name);
  }

  /** The value of an argument or option that must be there. */
  text(name: string): string {
    const value = this.#values.get(name);
    if (value === undefined) throw new UsageError(`${name} is missing`);
    return value;
  }

  /** One of several words. */
  oneOf<T extends string>(name: string, words: readonly T[]): T {
    const value = this.text(name);
    const word = words.find((one) => one === value);
    if (word === undefined) throw new UsageError(`${name} is ${show(value)}, not one of ${words.join(", ")}`);
    return word;
  }

  /** A port number to listen on; 0 lets the system choose. */
  port(name: string): number {
    const port = this.#port(name, 0);
    portsAsked.push(port);
    return port;
  }

  /** The port number of a server. */
  remotePort(name: string): number {
    return this.#port(name, 1);
  }

  #port(name: string, lowest: number): number {
    const value = this.text(name);
    if (!/^[0-9]{1,5}$/.test(value) || Number(value) < lowest || Number(value) > 65_535) {
      throw new UsageError(`${name} is ${show(value)}, not a port number of ${lowest} to 65535`);
    }
    return Number(value);
  }

  /** So many bytes in hexadecimal. */
  bytes(name: string, length: number): Uint8Array<ArrayBuffer> {
    const bytes = fromHex(this.text(name), length);
    if (bytes === undefined) throw new UsageError(`${name} is not ${2 * length} hexadecimal digits`);
    return bytes;
  }

  /** A cookie's name. */
  cookieName(name: string): string {
    const value = this.text(name);
    // RFC 6265 §4.1.1, RFC 9110 §5.6.2: token
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(value)) throw new UsageError(`${name} is no cookie's name`);
    return value;
  }

  /** A public key: 32 bytes in hexadecimal. A bad one is a failure rather than bad usage. */
  key(name: string): Uint8Array<ArrayBuffer> {
    const key = fromHex(this.text(name), 32);
    if (key === undefined) {
      throw new Failure(`${name} is not a key: it must be the 64 hexadecimal digits that the server printed`);
    }
    return key;
  }
}

/** Ports to listen on that were asked for, for the message about one that is taken. */
const portsAsked: number[] = [];

/** Runs a program: reads its arguments, and turns errors into one line and an exit status. */
export async function main(command: Command, run: (args: Arguments) => void | Promise<void>): Promise<void> {
  try {
    const [beforeDashes] = Deno.args.join("\n").split(/^--$/m);
    if (/^(--help|-h)$/m.test(beforeDashes!)) {
      console.log(command.help.trim());
      return;
    }
    const args = readArguments(command, Deno.args);
    const { stays = false } = command;
    if (typeof stays === "boolean" ? stays : stays.includes(args.word)) {
      listenForStop();
    }
    await run(args);
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(SIGPIPE_STATUS); // such as "| head": it has what it wanted
    console.error(`error: ${describe(error).trim().replaceAll(/\s*\n\s*/g, "; ")}`);
    Deno.exit(error instanceof UsageError ? 2 : 1);
  }
}

/** What {@linkcode untilStopped} ends. */
export interface Stoppable {
  shutdown(options?: { graceMs?: number }): Promise<void>;
}

/** Milliseconds that running work gets to finish. */
const GRACE_MS = 3000;
/** What a shell tells of a program that SIGPIPE ended, which the runtime ignores. */
const SIGPIPE_STATUS = 141;
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];

const stop: PromiseWithResolvers<void> = Promise.withResolvers();
/** A terminal's Ctrl-C comes to every process of a task, and `deno task` hands it on: one comes twice within this time. */
const SAME_SIGNAL_MS = 500;
let first: { readonly signal: Deno.Signal; readonly at: number } | undefined;

const handlers = SIGNALS.map((signal) => [signal, () => onSignal(signal)] as const);
let listening = false;

function listenForStop(): void {
  if (listening) return;
  listening = true;
  for (const [signal, handler] of handlers) Deno.addSignalListener(signal, handler);
}

/** The second Ctrl-C ends the process there and then. */
function onSignal(signal: Deno.Signal): void {
  const at = performance.now();
  if (first === undefined) first = { signal, at };
  else if (signal !== first.signal || at - first.at >= SAME_SIGNAL_MS) Deno.exit(130);
  stop.resolve();
}

/**
 * Waits for Ctrl-C or SIGTERM, then ends the servers stage by stage, from the one that clients see to the one behind
 * it. What still runs gets three seconds a stage.
 */
export async function untilStopped(...stages: readonly (readonly Stoppable[])[]): Promise<void> {
  listenForStop();
  await stop.promise;
  console.error("stopping; Ctrl-C again to stop at once");
  // A client that will not let go must not hold the process.
  Deno.unrefTimer(setTimeout(() => Deno.exit(0), 5 * GRACE_MS));
  for (const servers of stages) {
    await Promise.all(servers.map((server) => server.shutdown({ graceMs: GRACE_MS })));
  }
  for (const [signal, handler] of handlers) Deno.removeSignalListener(signal, handler);
}

/** `HOST:PORT`, with the brackets of an IPv6 address. */
export function hostPort(addr: { hostname?: string | undefined; port?: number | undefined }): string {
  const { hostname = "", port = 0 } = addr;
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** `http://HOST:PORT`, as a person would open it. */
export function httpUrl(addr: { hostname: string; port: number }): string {
  const everywhere: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  return `http://${hostPort({ hostname: everywhere[addr.hostname] ?? addr.hostname, port: addr.port })}`;
}

function readArguments(command: Command, args: string[]): Arguments {
  const { positional = [], options = {} } = command;
  const parsed = parseArgs(args, {
    string: [...Object.keys(options), "_"],
    unknown: (arg, key) => {
      if (key !== undefined) throw new UsageError(`${show(arg)} is not an option; --help names them`);
    },
  });
  const values = new Map<string, string>();
  for (const [name, usual] of Object.entries(options)) {
    const value = parsed[name] ?? usual;
    if (value === "") throw new UsageError(`--${name} needs a value`);
    if (value !== undefined) values.set(`--${name}`, String(value));
  }
  const given = parsed._.map(String);
  let word = "";
  let names = positional;
  if (!isList(names)) {
    const words = Object.keys(names);
    word = given.shift() ?? "";
    if (!words.includes(word)) {
      const found = word === "" ? "the first argument is missing" : `the first argument is ${show(word)}`;
      throw new UsageError(`${found}: it must be ${words.join(" or ")}; --help shows the usage`);
    }
    names = names[word] ?? [];
  }
  if (given.length > names.length) {
    throw new UsageError(`${show(given[names.length]!)} is one argument too many; --help shows the usage`);
  }
  for (const [i, name] of names.entries()) {
    const value = given[i];
    if (value !== undefined) values.set(name.replaceAll(/[[\]]/g, ""), value);
    else if (!name.startsWith("[")) throw new UsageError(`${name} is missing; --help shows the usage`);
  }
  return new Arguments(word, values);
}

function isList(names: NonNullable<Command["positional"]>): names is readonly string[] {
  return Array.isArray(names);
}

function describe(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) {
    const ports = portsAsked.filter((port) => port !== 0);
    if (ports.length === 0) return error.message; // no argument named it: whoever read it from elsewhere says where
    const which = ports.length === 1 ? `port ${ports[0]}` : `one of the ports ${ports.join(", ")}`;
    return `${which} is taken: choose another one, or 0 to let the system choose`;
  }
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return "that address is not one of this machine: listen on 127.0.0.1, or 0.0.0.0 for every address";
  }
  return error instanceof Error ? error.message : String(error);
}

function fromHex(text: string, length: number): Uint8Array<ArrayBuffer> | undefined {
  if (text.length !== 2 * length || !/^[0-9a-fA-F]*$/.test(text)) return undefined;
  return Uint8Array.from(text.match(/../g) ?? [], (digits) => parseInt(digits, 16));
}

/** A value as a message shows it: quoted, and short. */
function show(value: string): string {
  return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
}
