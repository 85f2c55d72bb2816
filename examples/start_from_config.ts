/**
 * Starts an echo server or a gateway from a file, with keys that stay the same from one start to the next: a key file
 * that is not there yet is made, readable by its owner alone.
 *
 *     deno run -N -R examples/start_from_config.ts gateway examples/templates/config/gateway.toml
 *     deno run -N -R -W=keys examples/start_from_config.ts echo echo.toml
 *
 * Permissions: `-N` (to listen, and to dial upstreams), `-R=FILE` and what it names, `-W=FOLDER` where key files are to
 * be made, `-E=NAME` for each `env:NAME` in the file.
 *
 * @module
 */

import { toHex } from "@betanet/htx/core";
import { type GatewayConfig, parseConfig, readOrMakeKeyPair, runGateway } from "@betanet/htx/gateway";
import type { KeyPair } from "@betanet/htx/noise";
import { echo, serveStreams } from "@betanet/htx/transport";
import { configure } from "@logtape/logtape";
import { Failure, hostPort, httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
Starts a server from a configuration file.

Usage: deno run -N -R [-W=FOLDER] [-E=NAME] examples/start_from_config.ts echo|gateway FILE

  echo      a raw echo, for client_cli.ts: takes [listen] hostname and port, and [identity] key
  gateway   a gateway: takes every key that examples/templates/config/gateway.toml explains
  FILE      the configuration; paths in it begin at its own folder

A key "file:PATH" that is not there yet is made with mode 0600 (with -W), and is the same at every start from then on.
For a gateway that reads its file again at SIGHUP see "deno task gateway --config FILE".
Exit status: 0 stopped, 1 failed (a port is taken, the file does not hold), 2 bad arguments.`;

await main({ help, stays: true, positional: { echo: ["FILE"], gateway: ["FILE"] } }, async (args) => {
  const file = args.text("FILE");
  const config = parseConfig(await read(file), file);
  const base = file.includes("/") ? file.slice(0, file.lastIndexOf("/")) || "/" : ".";
  await configure({
    sinks: { stderr: (record) => console.error(record.message.join("")) },
    loggers: [
      { category: "htx", sinks: ["stderr"], lowestLevel: config.log.level },
      { category: ["logtape", "meta"], lowestLevel: "error" },
    ],
  });
  await (args.word === "echo" ? startEcho : startGateway)(config, base);
});

async function startEcho({ listen, identity }: GatewayConfig, base: string): Promise<void> {
  const keyPair = identity.key === "" ? undefined : await key(identity.key, base);
  const { hostname, port } = listen;
  let server;
  try {
    server = serveStreams(echo(), { hostname, port, keyPair });
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new Failure(`Cannot use listen.port: ${hostPort({ hostname, port })} is taken`);
  }
  console.log(`echo on ${hostPort(server.addr)}`);
  console.log(`server_pub=${toHex(server.publicKey)}`);
  await untilStopped([server]);
}

async function startGateway(config: GatewayConfig, base: string): Promise<void> {
  // Made before the gateway looks for them. Any 32 random bytes are a session key.
  for (const reference of config.session.keys) await key(reference, base);
  const tickets = await Promise.all(config.tickets.keys.map(async ({ id, private_key }) => {
    return `ticket_pub=${(await key(private_key, base)).publicKeyHex}\nticket_key_id=${id}`;
  }));
  const gateway = await runGateway(config, { base });
  console.log(`gateway on ${gateway.url}/`);
  if (gateway.admin !== undefined) console.log(`admin on ${httpUrl(gateway.admin.addr)}/`);
  if (config.tickets.enabled) console.log(tickets.join("\n"));
  await untilStopped([gateway]);
}

/** The key of a reference `file:PATH` or `env:NAME`; a file is made where it is not there yet. */
async function key(reference: string, base: string): Promise<KeyPair> {
  const { keyPair, made } = await readOrMakeKeyPair(reference, {
    base,
    onWarning: (line) => console.error(line),
  });
  if (made) console.error(`made ${reference}: keep it to yourself`);
  return keyPair;
}

async function read(file: string): Promise<string> {
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new Failure(`there is no file ${file}: name one that exists`);
    }
    throw error;
  }
}
