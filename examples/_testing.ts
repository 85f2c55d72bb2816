/**
 * Running the examples as a person would: as child processes, with the permissions that their first comment names.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";

const ROOT = new URL("..", import.meta.url).pathname;

/** How a process ended, and what it said. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** A running example. */
export class Example implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<unknown>;
  #stdout = "";
  #stderr = "";
  #ended = false;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers();

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#reading = Promise.all([
      this.#collect(child.stdout, (text) => this.#stdout += text),
      this.#collect(child.stderr, (text) => this.#stderr += text),
    ]).finally(() => {
      this.#ended = true;
      this.#changed.resolve();
    });
  }

  /** Starts `examples/SCRIPT` with these permissions and arguments. */
  static start(script: string, permissions: readonly string[], args: readonly string[]): Example {
    return new Example(
      new Deno.Command("deno", {
        args: ["run", "--no-prompt", "--quiet", ...permissions, `examples/${script}`, ...args],
        cwd: ROOT,
        env: { NO_COLOR: "1" },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
  }

  /** What it printed so far. */
  get stdout(): string {
    return this.#stdout;
  }

  /** Waits until it has printed what the pattern asks for, and gives the first group. */
  async find(pattern: RegExp): Promise<string> {
    for (;;) {
      const match = pattern.exec(this.#stdout);
      if (match !== null) return match[1] ?? match[0];
      assert(!this.#ended, `ended without printing ${pattern}: ${this.#stdout}${this.#stderr}`);
      await this.#changed.promise;
    }
  }

  /** Waits for its end. */
  async outcome(): Promise<Outcome> {
    const [{ code }] = await Promise.all([this.#child.status, this.#reading]);
    return { code, stdout: this.#stdout, stderr: this.#stderr };
  }

  /** Sends it a signal, and waits for its end. */
  async stop(signal: Deno.Signal = "SIGINT"): Promise<Outcome> {
    this.#child.kill(signal);
    return await this.outcome();
  }

  /** Ends it, whatever it does. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended
    }
    await this.outcome();
  }

  async #collect(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    add: (text: string) => void,
  ): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      add(text);
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
  }
}

/** Runs an example to its end. */
export async function run(
  script: string,
  permissions: readonly string[],
  args: readonly string[],
): Promise<Outcome> {
  await using example = Example.start(script, permissions, args);
  return await example.outcome();
}

/** Runs curl, and gives what it printed. */
export async function curl(...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("curl", {
    args: ["-sS", "--max-time", "20", ...args],
  })
    .output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** Waits until a server that is stopping refuses what is new, with 503 or without a word. */
export async function refuses(url: string): Promise<void> {
  for (;;) {
    try {
      const response = await fetch(url);
      await response.body?.cancel();
      if (response.status === 503) return;
    } catch (error) {
      assert(error instanceof TypeError, `${error}`);
      return;
    }
  }
}

/** That a process failed with one line and no more: no stack trace, no second thought. */
export function assertOneLine(outcome: Outcome, code: number, pattern: RegExp): void {
  assertMatch(outcome.stderr, /^error: [^\n]+\n$/);
  assertMatch(outcome.stderr, pattern);
  assertEquals(outcome.stdout, "");
  assertEquals(outcome.code, code);
}

/** That a server ended well after Ctrl-C. */
export function assertStopped(outcome: Outcome): void {
  assertMatch(outcome.stderr, /stopping; Ctrl-C again to stop at once\n$/);
  assertEquals(outcome.code, 0);
}
