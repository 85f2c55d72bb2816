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
