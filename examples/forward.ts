/**
 * A TCP port here, a TCP server there: what `ssh -L` does, through an HTX tunnel.
 *
 *     deno run -N examples/forward.ts serve 0.0.0.0 9443 127.0.0.1:5432
 *     deno run -N examples/forward.ts connect SERVER 9443 SERVER_PUB_HEX 5432 127.0.0.1:5432
 *     psql -h 127.0.0.1
 *
 * Permissions: `-N`, or no more than `--allow-net` with the addresses that are listened on and dialled; with `--key`
 * also `--allow-read=FILE --allow-write=FILE`.
 *
 * @module
 */

import { KeyPair, publicKeyFromHex } from "@betanet/htx/noise";
import { connect, forward, forwardUpstream, serveStreams } from "@betanet/htx/transport";
import { type Arguments, Failure, main, untilStopped, UsageError } from "./_cli.ts";

const help = `
Forwards a local TCP port through an HTX tunnel to a TCP server on the far side.

Usage: deno run -N examples/forward.ts serve HOST PORT TARGETS [--key FILE]
       deno run -N examples/forward.ts connect HOST PORT SERVER_PUB_HEX LOCAL_PORT TARGET

  serve      the far side: listens on HOST PORT, and lets clients reach TARGETS alone
  TARGETS    host:port or host:*, several with commas between them
  --key      the file that keeps the server's key (a fresh key at every start)
  connect    the near side: dials HOST PORT, and listens on 127.0.0.1 LOCAL_PORT
  TARGET     host:port as the far side sees it

Ports to listen on may be 0: the system chooses, and the line that is printed says which.

Exit status: 0 stopped, 1 failed (no such server, a port is taken), 2 bad arguments.`;

const positional = {
  serve: ["HOST", "PORT", "TARGETS"],
  connect: ["HOST", "PORT", "SERVER_PUB_HEX", "LOCAL_PORT", "TARGET"],
};

await main({ help, stays: true, positional, options: { key: undefined } }, async (args) => {
  await (args.word === "serve" ? serveTargets(args) : connectPort(args));
});

async function serveTargets(args: Arguments): Promise<void> {
  const address = { hostname: args.text("HOST"), port: args.port("PORT") };
  const allow = args.text("TARGETS").split(",");
  const handler = usage(() => forwardUpstream({ allow, onError: report }));
  const file = args.optional("--key");
  const server = serveStreams(handler, {
    ...address,
    keyPair: file === undefined ? KeyPair.generate() : await keptKey(file),
    onConnection: ({ remoteAddr }) => console.error(`client from ${remoteAddr?.hostname}`),
  });
  console.log(`server_pub=${server.publicKey.toHex()}`);
  console.log(`listening on ${server.addr.hostname}:${server.addr.port} for ${allow.join(", ")}`);
  await untilStopped([server]);
}

async function connectPort(args: Arguments): Promise<void> {
  const address = { hostname: args.text("HOST"), port: args.remotePort("PORT") };
  args.key("SERVER_PUB_HEX");
  const remoteStatic = publicKeyFromHex(args.text("SERVER_PUB_HEX"));
  const listen = { port: args.port("LOCAL_PORT") };
  const target = args.text("TARGET");
  const port = Number(/^.+:([0-9]+)$/.exec(target)?.[1]);
  if (!(port >= 1 && port <= 65_535)) throw new UsageError("TARGET is not host:port");
  // The client dials again by itself when the tunnel has broken.
  const client = await connect(address, { remoteStatic, handshakeTimeoutMs: 5000 });
  try {
    const forwarder = usage(() => forward({ listen, client, target, onError: report }));
    console.log(`forwarding ${forwarder.addr.hostname}:${forwarder.addr.port} to ${target}`);
    await untilStopped([forwarder]);
  } finally {
    await client.close();
  }
}

/** What `make` gives; what it does not take was said on the command line. */
function usage<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw error instanceof TypeError ? new UsageError(error.message) : error;
  }
}

/** One line for each connection that broke; the program goes on. */
function report(error: unknown): void {
  console.error(`connection broke: ${error instanceof Error ? error.message : error}`);
}

/** The key in `file`, which is made at the first start and readable by its owner alone. */
async function keptKey(file: string): Promise<KeyPair> {
  try {
    return KeyPair.fromHex((await Deno.readTextFile(file)).trim());
  } catch (error) {
    if (error instanceof TypeError) throw new Failure(`${file} holds no key: remove it to have a new one`);
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const privateKey = crypto.getRandomValues(new Uint8Array(32));
  await Deno.writeTextFile(file, `${privateKey.toHex()}\n`, { createNew: true, mode: 0o600 });
  return KeyPair.fromBytes(privateKey);
}
