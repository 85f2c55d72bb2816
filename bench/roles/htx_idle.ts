/**
 * What connections and streams take that stand open and do nothing: the driver looks at the memory of both
 * processes at the beginning and the end of a phase.
 *
 *     htx_idle.ts server
 *     htx_idle.ts client <phases: connections, streams> <json of the server's READY line>
 *
 * Run with `--v8-flags=--expose-gc`, so that garbage is not counted.
 *
 * @module
 */

import { fromHex, type HtxConnection, type HtxStream, toHex } from "../../core/mod.ts";
import { KeyPair } from "../../noise/mod.ts";
import { connectDuplex, dialTcp, serveStreams } from "../../transport/mod.ts";
import { phase, say } from "./_role.ts";

const CONNECTIONS = Number(Deno.env.get("CONNECTIONS") ?? 1000);
const STREAMS = Number(Deno.env.get("STREAMS") ?? 10_000);
/** First byte of a stream: collect garbage before the answer. */
const COLLECT = 0x47;
/** Lets timers and closing sockets finish, then collects what is garbage. */
async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setTimeout(resolve, 150));
    (globalThis as { gc?: () => void }).gc?.();
  }
}

async function answer(stream: HtxStream): Promise<void> {
  const first = await stream.read();
  if (first === null) return;
  if (first[0] === COLLECT) await settle();
  await stream.write(first);
  while (await stream.read() !== null);
  await stream.closeWrite();
}

async function measure(phases: string, info: string): Promise<void> {
  const { port, key } = JSON.parse(info);
  const keyPair = KeyPair.generate();
  const dial = () =>
    connectDuplex(dialTcp({ port }), {
      remoteStatic: fromHex(key),
      keyPair,
      maxLocalStreams: STREAMS + 2,
      idleTimeoutMs: 0,
    });
  const open = async (connection: HtxConnection, mark: number): Promise<HtxStream> => {
    const stream = await connection.createBidirectionalStream();
    await stream.write(new Uint8Array([mark]));
    await stream.read();
    return stream;
  };
  const first = await dial();
  const collect = async () => {
    const stream = await open(first, COLLECT);
    await stream.closeWrite();
    await stream.read();
    await settle();
  };
  for (const name of phases.split(",")) {
    if (name === "connections") {
      const rise = async () => { // each has carried a stream, which is over
        const connection = await dial();
        const stream = await open(connection, 0);
        await stream.closeWrite();
        await stream.read();
        return connection;
      };
      const warm = await Promise.all(Array.from({ length: 20 }, rise));
      await Promise.all(warm.map((connection) => connection.close()));
      await collect();
      const idle: HtxConnection[] = [];
      await phase(name, async () => {
        for (let i = 0; i < CONNECTIONS; i++) idle.push(await rise());
        await collect();
        return { count: CONNECTIONS };
      });
      await Promise.all(idle.map((connection) => connection.close()));
    } else if (name === "streams") {
      await collect();
      const streams: HtxStream[] = [];
      await phase(name, async () => {
        for (let i = 0; i < STREAMS; i++) streams.push(await open(first, 0));
        await collect();
        return { count: STREAMS };
      });
      for (const stream of streams) stream.reset();
    }
  }
  Deno.exit(0);
}

const [role, phases = "", info = "{}"] = Deno.args;
if (role === "server") {
  const server = serveStreams(answer, {
    onError: () => {},
    maxPeerStreams: STREAMS + 2,
    maxConnections: CONNECTIONS + 100,
    idleTimeoutMs: 0,
  });
  say("READY " + JSON.stringify({ port: server.addr.port, key: toHex(server.publicKey) }));
  await server.finished;
} else await measure(phases, info);
