import type { Duplex } from "../core/mod.ts";
import { makeTestCertificate } from "./_test_certificate.ts";
import { conformance, type ConformanceCarrier } from "./conformance.ts";
import type { DuplexListener } from "./listener.ts";
import { memoryDuplexPair } from "./memory.ts";
import { dialQuic, listenQuic, quicSupported } from "./quic.ts";
import { dialTcp, listenTcp } from "./tcp.ts";
import { dialTls, listenTls } from "./tls.ts";
import { dialWebSocket, WebSocketListener } from "./websocket.ts";

const LONG = Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
  Deno.env.get("HTX_LONG") === "1";
const BYTES = (100 * 1024 ** 2) / (LONG ? 1 : 16);

const certificate = await makeTestCertificate();

function memory(streamsOnly: boolean): ConformanceCarrier {
  return {
    name: streamsOnly ? "memory, web streams alone" : "memory",
    open: () => {
      const [client, server] = memoryDuplexPair({ streamsOnly });
      return Promise.resolve({ client, server });
    },
  };
}

/** Dials a listener once and closes it. */
async function meet(listener: DuplexListener, dial: (port: number) => Promise<Duplex>) {
  const accepting = listener.accept();
  try {
    const client = await dial(listener.addr.port!);
    return { client, server: (await accepting)! };
  } finally {
    listener.close();
  }
}

const tcp: ConformanceCarrier = {
  name: "TCP",
  open: () => meet(listenTcp({ port: 0 }), (port) => dialTcp({ port })),
};

function tls(pinned: boolean): ConformanceCarrier {
  const { cert, key } = certificate!;
  return {
    name: pinned ? "TLS with a pinned certificate" : "TLS",
    open: async () =>
      meet(await listenTls({ port: 0 }, { cert, key }), (port) =>
        dialTls({ port }, {
          serverName: "localhost",
          ...(pinned ? { certificate: cert } : { caCerts: [cert] }),
        })),
  };
}

const webSocket: ConformanceCarrier = {
  name: "WebSocket",
  open: async () => {
    const listener = new WebSocketListener();
    const server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      (request, info) => listener.upgrade(request, info),
    );
    const ends = await meet(listener, () => dialWebSocket(`ws://127.0.0.1:${server.addr.port}/`));
    return { ...ends, close: () => server.shutdown() };
  },
};

const quic: ConformanceCarrier = {
  name: "QUIC",
  open: async () => {
    const { cert, key } = certificate!;
    const listener = listenQuic({ port: 0 }, { cert, key });
    const accepting = listener.accept();
    const client = await dialQuic({ port: listener.addr.port! }, {
      serverName: "localhost",
      caCerts: [cert],
    });
    // A QUIC stream shows on the other side with its first bytes, which are the handshake's.
    const server = lazyDuplex(accepting.then((duplex) => {
      listener.close();
      return duplex!;
    }));
    return { client, server };
  },
};

/** A duplex that is still to come. */
function lazyDuplex(coming: Promise<Duplex>): Duplex {
  const io = coming.then((duplex) => duplex.io!);
  const use = {
    read: async (into: Uint8Array) => await (await io).read(into),
    write: async (data: Uint8Array) => await (await io).write(data),
    closeWrite: async () => await (await io).closeWrite(),
    close: () => {
      io.then((direct) => direct.close());
    },
  };
  return {
    io: use,
    covert: true,
    readable: new ReadableStream({
      pull: async (controller) => {
        const into = new Uint8Array(65_536);
        const length = await use.read(into);
        if (length === null) controller.close();
        else controller.enqueue(into.subarray(0, length));
      },
      cancel: use.close,
    }, { highWaterMark: 0 }),
    writable: new WritableStream({ write: use.write, close: use.closeWrite, abort: use.close }),
    close: use.close,
  };
}

const carriers = [memory(false), memory(true), tcp, webSocket];
if (certificate !== undefined) {
  carriers.push(tls(false), tls(true));
  if (quicSupported()) carriers.push(quic);
  else console.log("skipped: HTX over QUIC, since this runtime has none (start it with --unstable-net)");
}
for (const carrier of carriers) {
  for (const { name, run } of conformance(carrier, { bytes: BYTES })) Deno.test(name, run);
}
