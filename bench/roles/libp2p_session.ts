/**
 * js-libp2p (TCP, Noise, Yamux) as a peer. Its packages are where `HTX_BENCH_MODULES` says.
 *
 *     libp2p_session.ts server
 *     libp2p_session.ts client <phases> <json of the server's READY line>
 *
 * @module
 */

import { CHUNK, DEPTH, MESSAGE, phase, repeat, say, SECONDS, TOTAL } from "./_role.ts";

interface Message {
  readonly data: { readonly byteLength: number };
}
interface Stream {
  send(data: unknown): boolean;
  close(): Promise<void>;
  addEventListener(type: string, listener: (message: Message) => void, options?: { once?: boolean }): void;
  removeEventListener(type: string, listener: (message: Message) => void): void;
}
interface Connection {
  newStream(protocol: string, options: object): Promise<Stream>;
  close(): Promise<void>;
}
interface Node {
  handle(protocol: string, handler: (stream: Stream) => void, options: object): Promise<void>;
  dial(address: unknown): Promise<Connection>;
  getMultiaddrs(): { toString(): string }[];
}
interface Modules {
  createLibp2p(options: object): Promise<Node>;
  tcp(): unknown;
  noise(): unknown;
  yamux(options: object): unknown;
  multiaddr(text: string): unknown;
}

const modules: Modules = await import(Deno.env.get("HTX_BENCH_MODULES")!);
const MANY = { maxInboundStreams: 4096, maxOutboundStreams: 4096 };
const ECHO = "/bench/echo";
const SINK = "/bench/sink";

function createNode(listen: string[]): Promise<Node> {
  return modules.createLibp2p({
    addresses: { listen },
    transports: [modules.tcp()],
    connectionEncrypters: [modules.noise()],
    streamMuxers: [modules.yamux(MANY)],
    connectionManager: {
      inboundConnectionThreshold: 1e9,
      maxConnections: 1e6,
      maxIncomingPendingConnections: 1e4,
    },
    connectionMonitor: { enabled: false },
  });
}

async function serve(): Promise<void> {
  const node = await createNode(["/ip4/127.0.0.1/tcp/0"]);
  await node.handle(ECHO, (stream) => {
    stream.addEventListener("message", (message) => {
      stream.send(message.data);
    });
    stream.addEventListener("remoteCloseWrite", () => {
      stream.close().catch(() => {});
    });
  }, MANY);
  await node.handle(SINK, (stream) => {
    let left = TOTAL;
    stream.addEventListener("message", ({ data }) => {
      left -= data.byteLength;
      if (left <= 0) stream.send(new Uint8Array(1));
    });
  }, MANY);
  say("READY " + JSON.stringify({ address: node.getMultiaddrs()[0]!.toString() }));
}

function event(stream: Stream, type: string): Promise<void> {
  return new Promise((resolve) => stream.addEventListener(type, () => resolve(), { once: true }));
}

/** `depth` messages under way on one stream, each sent on its own when one has come back. */
function echo(stream: Stream, depth: number, ms: number): Promise<Record<string, number>> {
  const latencies: number[] = [];
  return new Promise((resolve) => {
    let [part, outstanding] = [0, depth];
    const start = performance.now();
    let last = start;
    const onMessage = ({ data }: Message) => {
      for (part += data.byteLength; part >= MESSAGE; part -= MESSAGE) {
        const now = performance.now();
        latencies.push(now - last);
        last = now;
        if (now - start < ms) stream.send(new Uint8Array(MESSAGE));
        else if (--outstanding === 0) {
          stream.removeEventListener("message", onMessage);
          latencies.sort((a, b) => a - b);
          const quantile = (q: number) => latencies[Math.floor((latencies.length - 1) * q)]! * 1000;
          resolve({
            rps: latencies.length / (now - start) * 1000,
            ...depth === 1 ? { p50us: quantile(0.5), p99us: quantile(0.99) } : {},
          });
        }
      }
    };
    stream.addEventListener("message", onMessage);
    for (let i = 0; i < depth; i++) stream.send(new Uint8Array(MESSAGE));
  });
}

async function measure(phases: string, info: string): Promise<void> {
  const node = await createNode([]);
  const address = modules.multiaddr(JSON.parse(info).address);
  for (const name of phases.split(",")) {
    if (name === "dialclose") {
      const once = async () => await (await node.dial(address)).close();
      for (let i = 0; i < 10; i++) await once();
      await phase(name, () => repeat(SECONDS * 1000, 1, once));
      continue;
    }
    const connection = await node.dial(address);
    if (name === "bulk") {
      const stream = await connection.newStream(SINK, MANY);
      const payload = crypto.getRandomValues(new Uint8Array(CHUNK));
      await phase(name, async () => {
        const done = event(stream, "message");
        const start = performance.now();
        for (let sent = 0; sent < TOTAL; sent += CHUNK) {
          if (!stream.send(payload)) await event(stream, "drain");
        }
        await done;
        return { MBps: TOTAL / (performance.now() - start) / 1000 };
      });
    } else if (name === "echo1" || name === "echo64each") {
      const stream = await connection.newStream(ECHO, MANY);
      const depth = name === "echo1" ? 1 : DEPTH;
      await echo(stream, depth, 200);
      await phase(name, () => echo(stream, depth, SECONDS * 1000));
    } else if (name === "stream1" || name === "stream64") {
      const once = async () => {
        const stream = await connection.newStream(ECHO, MANY);
        await new Promise<void>((resolve) => {
          let left = MESSAGE;
          stream.addEventListener("message", ({ data }) => {
            left -= data.byteLength;
            if (left <= 0) resolve();
          });
          stream.send(new Uint8Array(MESSAGE));
        });
        await stream.close();
      };
      const workers = name === "stream1" ? 1 : DEPTH;
      await repeat(200, workers, once);
      await phase(name, () => repeat(SECONDS * 1000, workers, once));
    }
    await connection.close();
  }
  Deno.exit(0);
}

const [role, phases = "", info = "{}"] = Deno.args;
if (role === "server") await serve();
else await measure(phases, info);
