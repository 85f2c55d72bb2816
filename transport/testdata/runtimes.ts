/**
 * What has to run without Deno: bundled and started by `runtimes_test.ts`, in Node and in a Worker without Deno's
 * APIs. It touches every room that promises to, and reaches a server over a WebSocket.
 *
 * @module
 */

import { HtxError, selectCrypto, toHex } from "../../core/mod.ts";
import { KeyPair, publicKeyFromHex } from "../../noise/mod.ts";
import { formatPeerId, peerIdOf } from "../../overlay/mod.ts";
import { extractTickets, generateTicketKey, TicketClient, TicketVerifier } from "../../tickets/mod.ts";
import {
  acceptDuplex,
  connect,
  connectDuplex,
  dialQuic,
  dialTls,
  dialWebSocket,
  memoryDuplexPair,
  planFallback,
  serve,
} from "../mod.ts";

/** Runs everything; the lines say what was seen. */
export async function smoke(url: string | undefined, serverPub: string): Promise<string[]> {
  const lines: string[] = [];
  if (Reflect.has(globalThis, "Deno")) throw new Error("Deno is here");

  // core, noise and the connection on top
  lines.push(`crypto ${toHex(selectCrypto().sha256(new Uint8Array(0))).slice(0, 8)}`);
  const keyPair = KeyPair.generate();
  const [here, there] = memoryDuplexPair();
  const [client, server] = await Promise.all([
    connectDuplex(here, { remoteStatic: keyPair.publicKey }),
    acceptDuplex(there, { keyPair, onStream: (stream) => stream.readable.pipeTo(stream.writable) }),
  ]);
  const stream = await client.createBidirectionalStream();
  await stream.write(new TextEncoder().encode("hello"), { end: true });
  lines.push(`echo ${new TextDecoder().decode(await stream.read() ?? undefined)} hybrid=${client.handshake.hybrid}`);
  await client.close();
  await server.closed;

  // tickets
  const key = generateTicketKey();
  const request = await new TicketClient(key, { carrier: "query" }).apply(new Request("https://site.example/p?x=1"));
  const target = new URL(request.url);
  const found = extractTickets({ target: target.pathname + target.search });
  const verdict = await new TicketVerifier({ keys: [key] }).verify(found.tickets, { address: "192.0.2.1" });
  lines.push(`ticket ${verdict.ok} ${found.target}`);

  // overlay
  lines.push(`peer ${formatPeerId(peerIdOf(new Uint8Array(32))).slice(0, 8)}`);

  // transport
  lines.push(`plan ${planFallback().covers.length}`);
  const remoteStatic = publicKeyFromHex(serverPub);
  for (
    const [name, open] of Object.entries({
      quic: () => dialQuic({ port: 1 }),
      tcp: () => connect({ port: 1 }, { remoteStatic }),
      tls: () => dialTls({ port: 1 }),
      serve: () => new Promise((resolve) => resolve(serve(() => new Response()))),
    })
  ) {
    const error = await open().catch((error: unknown) => error);
    lines.push(`${name} ${error instanceof HtxError ? error.code : error}`);
  }
  if (url !== undefined) {
    const remote = await connect(({ signal }) => dialWebSocket(url, { signal }), { remoteStatic });
    const response = await remote.fetch("/tea", { method: "POST", body: new Uint8Array(300_000) });
    lines.push(`websocket ${await response.text()}`);
    await remote.close();
  } else {
    const none = await dialWebSocket("ws://127.0.0.1:1").catch((error) => error);
    lines.push(`websocket ${none instanceof HtxError ? none.code : "opened"}`);
  }
  return lines;
}
