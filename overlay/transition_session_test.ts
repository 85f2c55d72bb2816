// The hooks of transition.ts in real sessions. (A test may look up to the transport; the room does not.)
import { assert, assertEquals } from "@std/assert";
import { ed25519PublicKey, type HtxConnection, HtxError } from "../core/mod.ts";
import { KeyPair } from "../noise/mod.ts";
import { acceptDuplex, connectDuplex, echo, memoryDuplexPair } from "../transport/mod.ts";
import type { ControlStreamReceiver } from "../transport/mod.ts";
import {
  type ControlMap,
  type ControlMapVerdict,
  transitionReceiver,
  type TransitionSender,
  transitionSender,
} from "./transition.ts";

const SERVER = KeyPair.generate();
const KEY = new Uint8Array(32).fill(1);
const KEYS = new Map([[64500n, ed25519PublicKey(KEY)]]);
const FAST = { burst: 1_000_000, perSecond: 1_000_000 };
const sender = (privateKey = KEY) =>
  transitionSender({ prevAs: 64500n, nextAs: 64501n, privateKey, rate: FAST });

async function session(
  controlStream: TransitionSender,
  receiver: ControlStreamReceiver | undefined,
): Promise<{ client: HtxConnection; server: HtxConnection }> {
  const [near, far] = memoryDuplexPair();
  const rekey = { afterFrames: 16 };
  const [client, server] = await Promise.all([
    connectDuplex(near, {
      remoteStatic: SERVER.publicKey,
      postQuantum: "off",
      rekey,
      ...(receiver && { controlStream: receiver }),
    }),
    acceptDuplex(far, { keyPair: SERVER, rekey, controlStream, onStream: echo() }),
  ]);
  return { client, server };
}

/** Sends `rounds` messages and waits for the echo of each. */
async function talk(client: HtxConnection, rounds: number): Promise<void> {
  const stream = await client.createBidirectionalStream();
  for (let i = 0; i < rounds; i++) {
    await stream.write(new Uint8Array(100));
    for (let got = 0; got < 100;) got += (await stream.read())?.length ?? 100;
  }
  await stream.closeWrite();
  while (await stream.read() !== null);
}

Deno.test("e-31: a map is verified at once and again after every rekey of the server's direction", async () => {
  const verdicts: ControlMapVerdict[] = [];
  const changes: (ControlMap | undefined)[] = [];
  const first = Promise.withResolvers<void>();
  const receiver = transitionReceiver({
    keys: KEYS,
    rate: FAST,
    onVerdict: (verdict) => verdicts.push(verdict),
    onChange: (map) => {
      changes.push(map);
      first.resolve();
    },
  });
  const { client, server } = await session(sender(), receiver);
  await first.promise;
  await talk(client, 200);
  await client.close();
  await server.closed;
  const { rekeysSent } = server.stats;
  assert(rekeysSent >= 12, `${rekeysSent} rekeys`);
  // Rekeys that come while a map is on its way share the next one.
  assert(
    verdicts.length > rekeysSent / 2 && verdicts.length <= rekeysSent + 1,
    `${verdicts.length} of ${rekeysSent}`,
  );
  assertEquals(verdicts.filter((verdict) => !verdict.ok && verdict.reason !== "superseded"), []);
  assertEquals([changes[0]?.prevAs, changes[0]?.nextAs], [64500n, 64501n]);
  for (const [i, map] of changes.entries()) {
    if (i > 0) assertEquals(map === undefined, changes[i - 1] !== undefined);
  }
  assertEquals(changes.at(-1), undefined);
});

Deno.test("e-31: maps under a key that is not configured for prevAS never come into force", async () => {
  const changes: (ControlMap | undefined)[] = [];
  const verdict = Promise.withResolvers<ControlMapVerdict>();
  const receiver = transitionReceiver({
    keys: KEYS,
    onVerdict: verdict.resolve,
    onChange: (map) => changes.push(map),
  });
  const { client, server } = await session(sender(new Uint8Array(32).fill(2)), receiver);
  const judged = await verdict.promise;
  assertEquals(judged.ok || judged.reason, "signature");
  await talk(client, 3); // the session itself is none the worse
  await client.close();
  await server.closed;
  assertEquals(changes, []);
});

Deno.test("a client without the feature resets stream 2 with REFUSED, once, and all else goes on", async () => {
  const ends: unknown[] = [];
  const quiet = transitionSender({
    prevAs: 64500n,
    nextAs: 64501n,
    privateKey: KEY,
    rate: FAST,
    onEnd: (reason) => ends.push(reason),
  });
  const { client, server } = await session(quiet, undefined);
  await talk(client, 60); // through some rekeys, each of which would send a map
  await client.close();
  await server.closed;
  assert(server.stats.rekeysSent > 2);
  const [reason] = ends;
  assert(reason instanceof HtxError);
  assertEquals([ends.length, reason.code, reason.streamId, reason.remote], [1, "REFUSED", 2, true]);
});

Deno.test("bytes that are no map reset stream 2 with PROTOCOL_ERROR, and all else goes on", async () => {
  const lost = Promise.withResolvers<HtxError>();
  const { client, server } = await session(
    Object.assign((ctx: Parameters<TransitionSender>[0]) => {
      ctx.signal.addEventListener("abort", () => lost.resolve(ctx.signal.reason));
      void ctx.send(new Uint8Array(200).fill(0xff));
    }, { announce: () => {} }),
    transitionReceiver({ keys: KEYS }),
  );
  const error = await lost.promise;
  assertEquals(error.code, "PROTOCOL_ERROR");
  await talk(client, 3);
  await client.close();
  await server.closed;
});
