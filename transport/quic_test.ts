import { assertEquals, assertRejects } from "@std/assert";
import { HtxError } from "../core/mod.ts";
import { makeTestCertificate } from "./_test_certificate.ts";
import { connect } from "./client.ts";
import { dialQuic, listenQuic, quicSupported } from "./quic.ts";
import { serve } from "./serve.ts";

const certificate = quicSupported() ? await makeTestCertificate() : undefined;
if (!quicSupported()) {
  console.log("skipped: QUIC, since this runtime has none (start it with --unstable-net)");
}

function quicTest(name: string, run: (mine: { cert: string; key: string }) => Promise<void>): void {
  Deno.test({ name, ignore: certificate === undefined, fn: () => run(certificate!) });
}

quicTest("dialQuic() gives up in time on a port where nobody is, and gives its signal's reason", async () => {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const port = "port" in socket.addr ? socket.addr.port : 0;
  const error = await assertRejects(() => dialQuic({ port }, { timeoutMs: 50 }), HtxError, "within 50 ms");
  assertEquals(error.code, "CONNECT_FAILED");
  const controller = new AbortController();
  const dialling = assertRejects(
    () => dialQuic({ port }, { signal: controller.signal }),
    RangeError,
    "enough",
  );
  controller.abort(new RangeError("enough"));
  await dialling;
  socket.close();
});

quicTest(
  "e-43: dialQuic() takes no certificate that does not verify, and no other protocol",
  async (mine) => {
    const listener = listenQuic({ port: 0 }, mine);
    const port = listener.addr.port!;
    const accepted = listener.accept();
    for (
      const options of [
        { serverName: "localhost" }, // no root vouches for it
        { serverName: "other.test", caCerts: [mine.cert] },
        { serverName: "localhost", caCerts: [mine.cert], alpnProtocols: ["h3"] },
      ]
    ) {
      const error = await assertRejects(() => dialQuic({ port }, options), HtxError);
      assertEquals(error.code, "CONNECT_FAILED");
    }
    listener.close();
    assertEquals(await accepted, undefined);
  },
);

quicTest(
  "HTX over QUIC serves several clients, and goes on for them when the listener is closed",
  async (mine) => {
    const listener = listenQuic({ port: 0 }, mine);
    await using server = serve(async (request) => new Response(`${(await request.bytes()).length}`), {
      listeners: [listener],
    });
    const dial = ({ signal }: { signal?: AbortSignal | undefined }) =>
      dialQuic({ port: listener.addr.port! }, { serverName: "localhost", caCerts: [mine.cert], signal });
    const clients = await Promise.all(
      Array.from({ length: 4 }, () => connect(dial, { remoteStatic: server.publicKey })),
    );
    const ask = () =>
      Promise.all(clients.map(async (client) => {
        const response = await client.fetch("/", { method: "POST", body: new Uint8Array(100_000) });
        return await response.text();
      }));
    assertEquals(await ask(), Array.from({ length: 4 }, () => "100000"));
    listener.close();
    assertEquals(await ask(), Array.from({ length: 4 }, () => "100000"));
    await Promise.all(clients.map((client) => client.close()));
  },
);

/** First packets of clients that never send another, each with the id that its answers carry (RFC 9000 §17.2). */
async function firstPackets(count: number): Promise<{ packet: Uint8Array; answersTo: string }[]> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const port = "port" in socket.addr ? socket.addr.port : 0;
  const packets = new Map<string, Uint8Array>();
  while (packets.size < count) {
    const controller = new AbortController();
    const dialling = Array.from({ length: 25 }, () => dialQuic({ port }, { signal: controller.signal }));
    for (const until = packets.size + dialling.length; packets.size < until;) {
      const [packet] = await socket.receive();
      const at = 6 + packet[5]!; // behind the destination's id
      const answersTo = packet.slice(at + 1, at + 1 + packet[at]!).join();
      if (!packets.has(answersTo)) packets.set(answersTo, packet.slice());
    }
    controller.abort();
    await Promise.allSettled(dialling);
  }
  socket.close();
  return [...packets].map(([answersTo, packet]) => ({ packet, answersTo }));
}

quicTest(
  "e-37: clients that stop after their first packet keep nobody out of listenQuic(), and end with it",
  async (mine) => {
    const packets = await firstPackets(1025);
    const listener = listenQuic({ port: 0 }, mine);
    const address = { transport: "udp" as const, hostname: "127.0.0.1", port: listener.addr.port! };
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    for (const { packet, answersTo } of packets) {
      await socket.send(packet, address);
      for (let answer = ""; answer !== answersTo;) {
        const [bytes] = await socket.receive();
        answer = bytes.slice(6, 6 + bytes[5]!).join();
      }
    }
    socket.close();
    const { io } = await dialQuic(address, { serverName: "localhost", caCerts: [mine.cert] });
    await io!.write(new Uint8Array([7]));
    const [accepted, none] = [listener.accept(), listener.accept()];
    const into = new Uint8Array(8);
    assertEquals([await (await accepted)!.io!.read(into), into[0]], [1, 7]);
    listener.close();
    assertEquals(await none, undefined);
    io!.close();
    (await accepted)!.close!();
  },
);
