/**
 * Which peers are here. Packages are in `bench/.peers`, where `deno task bench:install` puts them, or in the folder
 * that `HTX_BENCH_PEERS` names; programs are where Debian has them.
 *
 * @module
 */

import { ROOT } from "./process.ts";

/** What the benchmarks beside peers need. */
export interface Peers {
  /** Folder of the packages and keys, with a slash at its end. */
  readonly folder: URL;
  /** Certificate and key for TLS on loopback. */
  readonly tls: { readonly certificate: string; readonly key: string } | undefined;
  /** Scratch space for configurations. */
  readonly scratch: string;
  /** The path of a program; `undefined` when it is not installed. */
  program(name: string): string | undefined;
  /** Why a program cannot be run; `undefined` when it can. */
  missing(name: string): string | undefined;
  /** The path of a file in the folder; `undefined` when it is not there. */
  file(name: string): string | undefined;
}

/** What to say of a peer that is not here. */
export const INSTALL = "not installed: deno task bench:install";

const PROGRAM_FOLDERS = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/** Looks around. `scratch` is a folder that the caller removes again. */
export async function findPeers(scratch: string): Promise<Peers> {
  const folder = Deno.env.get("HTX_BENCH_PEERS");
  const at = folder === undefined ? new URL("bench/.peers/", ROOT) : new URL(`file://${encodeURI(folder)}/`);
  const file = (name: string) => existing(decodeURIComponent(new URL(name, at).pathname));
  const program = (name: string) => {
    for (const where of PROGRAM_FOLDERS) {
      const path = existing(`${where}/${name}`);
      if (path !== undefined) return path;
    }
    return undefined;
  };
  const missing = (name: string) => {
    const command = program(name);
    if (command === undefined) return INSTALL;
    const { state } = Deno.permissions.querySync({ name: "run", command });
    return state === "granted" ? undefined : `${command} may not be run: deno.json, permissions.bench.run`;
  };
  const [certificate, key] = [file("certs/cert.pem"), file("certs/key.pem")];
  const tls = certificate !== undefined && key !== undefined
    ? { certificate, key }
    : await makeCertificate(scratch, program("openssl"));
  return { folder: at, tls, scratch, program, missing, file };
}

function existing(path: string): string | undefined {
  try {
    Deno.statSync(path);
    return path;
  } catch {
    return undefined;
  }
}

async function makeCertificate(
  scratch: string,
  openssl: string | undefined,
): Promise<{ certificate: string; key: string } | undefined> {
  if (openssl === undefined) return undefined;
  const [certificate, key] = [`${scratch}/cert.pem`, `${scratch}/key.pem`];
  const args =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost " +
    "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
  const { success } = await new Deno.Command(openssl, {
    args: [...args.split(" "), "-keyout", key, "-out", certificate],
    stdout: "null",
    stderr: "null",
  }).output();
  return success ? { certificate, key } : undefined;
}
