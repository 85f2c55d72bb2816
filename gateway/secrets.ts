/**
 * Keys from files and the environment: `file:PATH` and `env:NAME`.
 *
 * @module
 */

import { fromHex, HtxError, toHex } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";

/** What reading secrets may tell. */
export interface SecretOptions {
  /** Folder that relative paths begin at. @default {"."} */
  readonly base?: string | undefined;
  /** Told of files that others can read. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

/** A file's path: relative ones begin at `base`. */
export function resolvePath(path: string, base = "."): string {
  return path.startsWith("/") || /^[A-Za-z]:[\\/]/.test(path) ? path : `${base}/${path}`;
}

/**
 * Reads a secret.
 *
 * @param reference `file:PATH` or `env:NAME`
 * @throws {HtxError} `STORE_FAILED`, with the reference but never the secret
 * @throws {TypeError} when the reference is of neither form
 */
export async function readSecret(reference: string, options: SecretOptions = {}): Promise<string> {
  if (!/^(?:file|env):./.test(reference)) {
    // What stands there may be the secret itself: it is not shown.
    throw new TypeError("Cannot read secret: it must be named by file:PATH or env:NAME");
  }
  const colon = reference.indexOf(":");
  const name = reference.slice(colon + 1);
  if (reference.startsWith("env:")) {
    const value = await environment(name);
    if (value === undefined || value === "") {
      throw new HtxError("STORE_FAILED", `Cannot read ${reference}: the variable is not set`);
    }
    return value.trim();
  }
  const path = resolvePath(name, options.base);
  let text: string;
  try {
    text = await Deno.readTextFile(path);
    await warnOfMode(path, options.onWarning);
  } catch (cause) {
    throw new HtxError("STORE_FAILED", `Cannot read ${reference}: ${why(cause)}`, { cause });
  }
  return text.trim();
}

/**
 * As {@linkcode readSecret}, for bytes in hexadecimal.
 *
 * @param length how many bytes there must be
 * @throws {HtxError} `STORE_FAILED`, too, when it is not as many
 */
export async function readSecretBytes(
  reference: string,
  length: number,
  options: SecretOptions = {},
): Promise<Uint8Array> {
  const text = await readSecret(reference, options);
  if (!new RegExp(`^[0-9a-fA-F]{${2 * length}}$`).test(text)) {
    throw new HtxError(
      "STORE_FAILED",
      `Cannot use ${reference}: it does not hold ${2 * length} hexadecimal digits`,
    );
  }
  return fromHex(text);
}

/**
 * The static key of a file, which is made with mode 0600 where it is not there yet: the same identity at every start.
 *
 * @example The key of a server
 * ```ts
 * import { readOrMakeKeyPair } from "@betanet/htx/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = await Deno.makeTempDir();
 * const { keyPair, made } = await readOrMakeKeyPair(`file:${folder}/server.key`);
 * const again = await readOrMakeKeyPair(`file:${folder}/server.key`);
 * assertEquals([made, again.made], [true, false]);
 * assertEquals(again.keyPair.publicKeyHex, keyPair.publicKeyHex); // what clients pin
 * await Deno.remove(folder, { recursive: true });
 * ```
 *
 * @param reference `file:PATH`, or `env:NAME`, which is never made
 * @throws {HtxError} `STORE_FAILED` when it can be neither read nor made, or is no 64 hexadecimal digits
 * @throws {TypeError} when the reference is of neither form
 */
export async function readOrMakeKeyPair(
  reference: string,
  options: SecretOptions = {},
): Promise<{ keyPair: KeyPair; made: boolean }> {
  if (reference.startsWith("file:")) {
    const path = resolvePath(reference.slice(5), options.base);
    const there = await Deno.stat(path).then(() => true, (error) => {
      if (error instanceof Deno.errors.NotFound) return false;
      throw new HtxError("STORE_FAILED", `Cannot read ${reference}: ${why(error)}`, { cause: error });
    });
    if (!there) {
      const keyPair = KeyPair.generate();
      if ((await Deno.permissions.query({ name: "write", path })).state !== "granted") {
        throw new HtxError(
          "STORE_FAILED",
          `Cannot make ${reference}: writing it is not allowed; start with --allow-write=${path}`,
        );
      }
      try {
        // Nobody else can read it at any moment, and a file made meanwhile is not written over.
        await Deno.writeTextFile(path, `${keyPair.exportPrivateHex()}\n`, { createNew: true, mode: 0o600 });
      } catch (cause) {
        throw new HtxError("STORE_FAILED", `Cannot make ${reference}: ${why(cause)}`, { cause });
      }
      return { keyPair, made: true };
    }
  }
  const bytes = await readSecretBytes(reference, 32, options);
  const keyPair = KeyPair.fromHex(toHex(bytes));
  bytes.fill(0);
  return { keyPair, made: false };
}

async function environment(name: string): Promise<string | undefined> {
  if ((await Deno.permissions.query({ name: "env", variable: name })).state !== "granted") {
    throw new HtxError("STORE_FAILED", `Cannot read env:${name}: start with --allow-env=${name}`);
  }
  return Deno.env.get(name);
}

async function warnOfMode(path: string, onWarning: SecretOptions["onWarning"]): Promise<void> {
  const { mode } = await Deno.stat(path);
  if (mode !== null && (mode & 0o077) !== 0) {
    onWarning?.(`${path} can be read by others (mode ${(mode & 0o777).toString(8)}): chmod 600 it`);
  }
}

function why(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is no such file";
  if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
    return "permission denied";
  }
  return error instanceof Error ? error.message.split("\n", 1)[0]! : String(error);
}
