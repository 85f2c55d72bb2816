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
  /** Names of the positional arguments in their order; `[NAME]` may be left out. @default {[]} */
  readonly positional?: readonly string[];
  /** Options with a value, and what they are when not given. @default {{}} */
  readonly options?: Readonly<Record<string, string | undefined>>;
}

/** Bad arguments: exit status 2. */
export class UsageError extends Error {}

/** Something else that the person at the terminal can mend: exit status 1. */
export class Failure extends Error {}

/** The arguments of a call. */
export class Arguments {
  readonly #values: ReadonlyMap<string, string>;

  constructor(values: ReadonlyMap<string, string>) {
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

  /** A port number; 0 lets the system choose. */
  port(name: string): number {
    const value = this.text(name);
    if (!/^[0-9]{1,5}$/.test(value) || Number(value) > 65_535) {
      throw new UsageError(`${name} is ${show(value)}, not a port number of 0 to 65535`);
    }
    portsAsked.push(Number(value));
    return Number(value);
  }

  /** So many bytes in hexadecimal. */
  bytes(name: string, length: number): Uint8Array<ArrayBuffer> {
    const bytes = fromHex(this.text(name), length);
    if (bytes === undefined) throw new UsageError(`${name} is not ${2 * length} hexadecimal digits`);
    return bytes;
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

/** Ports that were asked for, for the message about one that is taken. */
const portsAsked: number[] = [];

/** Runs a program: reads its arguments, and turns errors into one line and an exit status. */
export async function main(command: Command, run: (args: Arguments) => void | Promise<void>): Promise<void> {
  try {
    const [beforeDashes] = Deno.args.join("\n").split(/^--$/m);
    if (/^(--help|-h)$/m.test(beforeDashes!)) {
      console.log(command.help.trim());
      return;
    }
    await run(readArguments(command, Deno.args));
  } catch (error) {
    console.error(`error: ${describe(error).replaceAll(/\s*\n\s*/g, " ")}`);
    Deno.exit(error instanceof UsageError ? 2 : 1);
  }
}

/** What {@linkcode untilStopped} ends. */
export interface Stoppable {
  shutdown(options?: { graceMs?: number }): Promise<void>;
}

/**
 * Waits for Ctrl-C or SIGTERM, then ends the servers one after another, each with `graceMs` for what still runs.
 * A second Ctrl-C ends the process there and then.
 */
export async function untilStopped(servers: readonly Stoppable[], graceMs = 3000): Promise<void> {
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  const { promise, resolve } = Promise.withResolvers<void>();
  let asked = false;
  const onSignal = () => {
    if (asked) Deno.exit(130);
    asked = true;
    resolve();
  };
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
  await promise;
  console.error("stopping; Ctrl-C again to stop at once");
  for (const server of servers) await server.shutdown({ graceMs });
  for (const signal of signals) Deno.removeSignalListener(signal, onSignal);
}

/** `http://HOST:PORT`, as a person would open it. */
export function httpUrl(addr: { hostname: string; port: number }): string {
  const host = addr.hostname === "0.0.0.0" ? "127.0.0.1" : addr.hostname === "::" ? "::1" : addr.hostname;
  return `http://${host.includes(":") ? `[${host}]` : host}:${addr.port}`;
}

function readArguments(command: Command, args: string[]): Arguments {
  const { positional = [], options = {} } = command;
  const names = Object.keys(options);
  const parsed = parseArgs(args, {
    string: [...names, "_"],
    unknown: (arg, key) => {
      if (key !== undefined) throw new UsageError(`${show(arg)} is not an option; --help names them`);
    },
  });
  const values = new Map<string, string>();
  for (const name of names) {
    const value = parsed[name] ?? options[name];
    if (value === "") throw new UsageError(`--${name} needs a value`);
    if (value !== undefined) values.set(`--${name}`, String(value));
  }
  const given = parsed._.map(String);
  if (given.length > positional.length) {
    throw new UsageError(
      `${show(given[positional.length]!)} is one argument too many; --help shows the usage`,
    );
  }
  for (const [i, name] of positional.entries()) {
    const value = given[i];
    if (value !== undefined) values.set(name.replaceAll(/[[\]]/g, ""), value);
    else if (!name.startsWith("[")) throw new UsageError(`${name} is missing; --help shows the usage`);
  }
  return new Arguments(values);
}

function describe(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) {
    const ports = portsAsked.filter((port) => port !== 0);
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
