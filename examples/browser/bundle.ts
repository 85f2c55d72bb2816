/**
 * The page's script out of `app.ts`, by `deno bundle`.
 *
 * @module
 */

import { Failure } from "../_cli.ts";

/**
 * The script, minified. `Deno.bundle` would do without a child process, but is behind a flag (`--unstable-bundle`).
 *
 * libsodium, 270 KB of WebAssembly, stays out: the library loads it where a carrier asks for it, and does without where
 * it is not to be had.
 */
export async function bundle(): Promise<string> {
  const command = new Deno.Command("deno", {
    args: ["bundle", "--quiet", "--platform", "browser", "--minify", "--external=libsodium", "app.ts"],
    cwd: new URL(".", import.meta.url).pathname,
    env: { NO_COLOR: "1" },
  });
  const { success, stdout, stderr } = await command.output();
  if (success) return new TextDecoder().decode(stdout);
  const [line] = new TextDecoder().decode(stderr).split("\n").filter((line) => line.startsWith("error"));
  throw new Failure(`the page's script cannot be bundled: ${line ?? "deno bundle failed"}`);
}
