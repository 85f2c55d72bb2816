/**
 * Two connections in one process whose every seal and open is counted, on a clock that stands still: windows do not
 * grow, so that the same work takes the same frames each time.
 *
 * @module
 */

import { memoryDuplexPair } from "../../transport/mod.ts";
import {
  type Clock,
  type ConnectionOptions,
  type ConnectionStats,
  type CryptoBackend,
  HtxConnection,
  type HtxStream,
  selectCrypto,
} from "../mod.ts";

/** What one side has done. */
export interface Counts {
  /** Frames sealed, of all types. */
  seals: number;
  /** Frames opened, of all types. */
  opens: number;
  /** Writes to the duplex. */
  writes: number;
  /** Bytes copied to gather small pieces into a frame. */
  gathered: number;
  /** WINDOW_UPDATEs among the seals. */
  credits: number;
}

/** A client and a server, and what they have done. */
export interface CountedPair extends AsyncDisposable {
  readonly client: HtxConnection;
  readonly server: HtxConnection;
  /** Runs `work`, lets what follows of it happen, and returns what both sides did for it. */
  count(work: () => Promise<void>): Promise<{ client: Counts; server: Counts }>;
}

const STANDING: Clock = { now: () => 0, setTimer: () => () => {} };

/** Microtasks that are enough for anything in memory to come to rest. */
const REST_TURNS = 200;

/** `handler` takes the streams that the client opens. */
export function countedPair(
  handler: (stream: HtxStream, connection: HtxConnection) => void | Promise<void>,
  options: ConnectionOptions = {},
): CountedPair {
  const [near, far] = memoryDuplexPair();
  const make = (role: "client" | "server") => {
    const backend = countingBackend();
    const connection: HtxConnection = new HtxConnection(role === "client" ? near : far, {
      clock: STANDING,
      ...options,
      role,
      crypto: backend.crypto,
      keys: {
        client: new Uint8Array(32).fill(1),
        server: new Uint8Array(32).fill(2),
        handshakeHash: new Uint8Array(32).fill(3),
      },
      remoteStatic: new Uint8Array(32).fill(9),
      handshake: { protocol: "none", hybrid: false, hash: new Uint8Array(32).fill(3) },
      ...role === "server" ? { onStream: (stream) => handler(stream, connection) } : {},
    });
    return { connection, backend };
  };
  const [client, server] = [make("client"), make("server")];
  const rest = async () => {
    for (let i = 0; i < REST_TURNS; i++) await undefined;
  };
  const look = ({ connection, backend }: typeof client): Counts => {
    const stats: ConnectionStats = connection.stats;
    return {
      seals: backend.seals,
      opens: backend.opens,
      writes: stats.writes,
      gathered: stats.bytesGathered,
      credits: stats.windowUpdatesSent,
    };
  };
  return {
    client: client.connection,
    server: server.connection,
    count: async (work) => {
      await rest();
      const before = [look(client), look(server)] as const;
      await work();
      await rest();
      return { client: less(look(client), before[0]), server: less(look(server), before[1]) };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all([client.connection.close(), server.connection.closed]);
    },
  };
}

function less(after: Counts, before: Counts): Counts {
  return {
    seals: after.seals - before.seals,
    opens: after.opens - before.opens,
    writes: after.writes - before.writes,
    gathered: after.gathered - before.gathered,
    credits: after.credits - before.credits,
  };
}

interface CountingBackend {
  readonly crypto: CryptoBackend;
  readonly seals: number;
  readonly opens: number;
}

function countingBackend(): CountingBackend {
  const inner = selectCrypto();
  let [seals, opens] = [0, 0];
  const crypto: CryptoBackend = Object.assign(Object.create(inner) as CryptoBackend, {
    chacha20Poly1305: (key: Uint8Array) => {
      const aead = inner.chacha20Poly1305(key);
      const seal = aead.seal.bind(aead);
      const open = aead.open.bind(aead);
      return Object.assign(Object.create(aead) as typeof aead, {
        seal: (...args: Parameters<typeof seal>) => {
          seals++;
          seal(...args);
        },
        open: (...args: Parameters<typeof open>) => {
          opens++;
          return open(...args);
        },
        wipe: () => aead.wipe(),
      });
    },
    hkdfSha256: inner.hkdfSha256.bind(inner),
    sha256: inner.sha256.bind(inner),
    hmacSha256: inner.hmacSha256.bind(inner),
    randomBytes: inner.randomBytes.bind(inner),
  });
  return {
    crypto,
    get seals() {
      return seals;
    },
    get opens() {
      return opens;
    },
  };
}
