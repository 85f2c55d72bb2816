import { assert, assertEquals, assertRejects } from "@std/assert";
import { within } from "../core/_deferred.ts";
import { HtxError } from "../core/mod.ts";
import { makeTestCertificate } from "./_test_certificate.ts";
import { connect } from "./client.ts";
import { serveStreams } from "./server.ts";
import { listenTcp } from "./tcp.ts";
import { certificateFingerprint, dialTls, listenTls } from "./tls.ts";
import { echo } from "./upstream/mod.ts";

const certificate = await makeTestCertificate();
const other = await makeTestCertificate();
const elsewhere = await makeTestCertificate("DNS:elsewhere.test");

function tlsTest(name: string, run: (mine: { cert: string; key: string }) => Promise<void>): void {
  Deno.test({ name, ignore: certificate === undefined, fn: () => run(certificate!) });
}

/** A TLS echo of raw bytes: what it reads until the end, it writes back behind the end of the peer's direction. */
async function tlsEcho(cert: { cert: string; key: string }) {
  const listener = await listenTls({ port: 0 }, cert);
  const running = (async () => {
    for (;;) {
      const duplex = await listener.accept();
      if (duplex === undefined) return;
      const parts: Uint8Array[] = [];
      try {
        for await (const part of duplex.readable) parts.push(part);
        const writer = duplex.writable.getWriter();
        for (const part of parts) await writer.write(part);
        await writer.close();
      } catch {
        // a client that did not like our certificate
      }
      duplex.close?.();
    }
  })();
  return {
    port: listener.addr.port!,
    [Symbol.asyncDispose]: async () => {
      listener.close();
      await running;
    },
  };
}

for (const pinned of [false, true]) {
  tlsTest(
    `dialTls() ${pinned ? "with a pinned certificate" : "with given roots"} half-closes in both directions`,
    async (mine) => {
      await using server = await tlsEcho(mine);
      const duplex = await dialTls({ port: server.port }, {
        serverName: "localhost",
        ...(pinned ? { certificate: mine.cert } : { caCerts: [mine.cert] }),
      });
      assertEquals(duplex.covert, true);
      assertEquals(duplex.remoteAddr?.transport, "tls");
      const writer = duplex.writable.getWriter();
      await writer.write(new Uint8Array(100_000).fill(7));
      await writer.close();
      let length = 0;
      for await (const part of duplex.readable) length += part.length;
      assertEquals(length, 100_000);
      duplex.close?.();
    },
  );
}

tlsTest("e-43: a certificate that does not verify is refused, however it is dialled", async (mine) => {
  await using server = await tlsEcho(mine);
  await using stranger = await tlsEcho(elsewhere!);
  const fingerprint = await certificateFingerprint(mine.cert);
  const refused = [
    () => dialTls({ port: server.port }), // no root vouches for it
    () => dialTls({ port: server.port }, { serverName: "localhost", caCerts: [other!.cert] }),
    () => dialTls({ port: server.port }, { serverName: "localhost", certificate: other!.cert }),
    () => dialTls({ port: server.port }, { serverName: "localhost", fingerprint }), // a pin does not replace verification
    () =>
      dialTls({ port: server.port }, {
        serverName: "localhost",
        caCerts: [mine.cert],
        fingerprint: "00".repeat(32),
      }),
    () => dialTls({ port: server.port }, { serverName: "other.test", certificate: mine.cert }),
    () => dialTls({ port: server.port }, { serverName: "other.test", caCerts: [mine.cert] }),
    () => dialTls({ port: stranger.port }, { serverName: "localhost", certificate: elsewhere!.cert }),
    () => dialTls({ port: stranger.port }, { serverName: "127.0.0.1", certificate: elsewhere!.cert }),
  ];
  for (const dial of refused) {
    const error = await assertRejects(dial, HtxError);
    assertEquals(error.code, "CONNECT_FAILED");
  }
});

tlsTest("dialTls() takes a fingerprint with and without colons, on top of the roots", async (mine) => {
  await using server = await tlsEcho(mine);
  const fingerprint = await certificateFingerprint(mine.cert);
  for (const form of [fingerprint, fingerprint.toUpperCase().replace(/..(?!$)/g, "$&:")]) {
    const duplex = await dialTls({ port: server.port }, {
      serverName: "localhost",
      caCerts: [mine.cert],
      fingerprint: form,
    });
    duplex.close?.();
  }
  await assertRejects(() => dialTls({ port: 1 }, { fingerprint: "abc" }), TypeError);
  await assertRejects(() => dialTls({ port: 1 }, { fingerprint: "abcd" }), TypeError);
  await assertRejects(() => dialTls({ port: 1 }, { certificate: "no certificate" }), TypeError);
  await assertRejects(
    () => dialTls({ port: 1 }, { certificate: mine.cert, fingerprint: "00".repeat(32) }),
    TypeError,
  );
});

tlsTest(
  "e-28: nothing but TLS leaves before the handshake is through, and dialTls() gives up in time",
  async () => {
    const silent = listenTcp({ port: 0 });
    const accepted = silent.accept();
    const dial = dialTls({ hostname: "localhost", port: silent.addr.port! }, { timeoutMs: 50 });
    const peer = await accepted;
    const error = await assertRejects(() => dial, HtxError, "within 50 ms");
    assertEquals(error.code, "CONNECT_FAILED");
    // The runtime keeps the socket until this side ends it: the first record is all there is to read.
    const buffer = new Uint8Array(16_384);
    let length = 0;
    while (length < 5 || length < 5 + (buffer[3]! << 8 | buffer[4]!)) {
      length += await peer!.io!.read(buffer.subarray(length)) ?? 0;
    }
    assertEquals(buffer[0], 0x16); // a TLS handshake record, and one alone
    assertEquals(length, 5 + (buffer[3]! << 8 | buffer[4]!));
    peer!.close?.();
    silent.close();
  },
);

tlsTest("dialTls() gives its signal's reason", async () => {
  const silent = listenTcp({ port: 0 });
  const accepted = silent.accept();
  const controller = new AbortController();
  const dial = dialTls({ port: silent.addr.port! }, { signal: controller.signal });
  const peer = await accepted;
  controller.abort(new RangeError("enough"));
  await assertRejects(() => dial, RangeError, "enough");
  peer!.close?.();
  silent.close();
});

tlsTest("HTX over TLS: the traffic shape is on unless the options say otherwise", async (mine) => {
  await using server = serveStreams(echo(), { listeners: [await listenTls({ port: 0 }, mine)] });
  const dial = (signal: AbortSignal | undefined) =>
    dialTls({ port: server.addr.port! }, { serverName: "localhost", caCerts: [mine.cert], signal });
  const timers: number[] = [];
  const clock = {
    now: () => 0,
    setTimer: (delay: number) => {
      timers.push(delay);
      return () => {};
    },
  };
  for (const shaped of [true, false]) {
    timers.length = 0;
    await using client = await connect(({ signal }) => dial(signal), {
      remoteStatic: server.publicKey,
      clock,
      ...(!shaped && { keepalive: false, padding: false }),
    });
    assertEquals(client.connections.size, 1);
    assertEquals(timers.some((delay) => delay >= 200 && delay <= 1200), shaped, "a padding timer");
  }
});

tlsTest(
  "dialTls() tells how a self-signed certificate is taken, where it is one that no root vouches for",
  async (mine) => {
    await using server = await tlsEcho(mine);
    const fingerprint = await certificateFingerprint(mine.cert);
    for (const options of [{}, { fingerprint }]) {
      const error = await assertRejects(
        () => dialTls({ port: server.port }, { serverName: "localhost", ...options }),
        HtxError,
        "; a self-signed certificate is given as the option certificate",
      );
      assertEquals(error.code, "CONNECT_FAILED");
    }
  },
);

Deno.test("dialTls() refuses a fingerprint that is none, by its name", async () => {
  for (const fingerprint of ["zz", "", "00".repeat(31), "é".repeat(64)]) {
    await assertRejects(
      () => dialTls({ port: 1 }, { fingerprint }),
      TypeError,
      "Cannot pin certificate: the fingerprint is not 64 hexadecimal digits",
    );
  }
});

tlsTest(
  "e-47: a client whose bytes nobody reads has to keep them, and sends them once they are read",
  async (mine) => {
    const listener = await listenTls({ port: 0 }, mine);
    const accepted = listener.accept();
    const client = await dialTls({ port: listener.addr.port! }, {
      serverName: "localhost",
      caCerts: [mine.cert],
    });
    const server = (await accepted)!;
    const length = 64 * 1024 ** 2;
    let sent = 0;
    const sending = (async () => {
      const part = new Uint8Array(65_536).fill(7);
      for (; sent < length; sent += part.length) await client.io!.write(part);
      await client.io!.closeWrite();
    })();
    await within(sending, 1_000);
    assert(sent < 32 * 1024 ** 2, `${sent} bytes were taken`);
    let received = 0;
    for await (const part of server.readable) received += part.length;
    assertEquals(received, length);
    await sending;
    client.close?.();
    server.close?.();
    listener.close();
  },
);

tlsTest("e-47: a server whose bytes a pinned client does not read has to keep them, too", async (mine) => {
  const listener = await listenTls({ port: 0 }, mine);
  const accepted = listener.accept();
  const client = await dialTls({ port: listener.addr.port! }, {
    serverName: "localhost",
    certificate: mine.cert,
  });
  const server = (await accepted)!;
  const length = 64 * 1024 ** 2;
  let sent = 0;
  const sending = (async () => {
    const part = new Uint8Array(65_536).fill(7);
    for (; sent < length; sent += part.length) await server.io!.write(part);
    await server.io!.closeWrite();
  })();
  await within(sending, 1_000);
  assert(sent < 32 * 1024 ** 2, `${sent} bytes were taken`);
  let received = 0;
  for await (const part of client.readable) received += part.length;
  assertEquals(received, length);
  await sending;
  client.close?.();
  server.close?.();
  listener.close();
});

tlsTest("dialTls() with a pinned certificate gives up as without one, and keeps no socket", async (mine) => {
  const silent = listenTcp({ port: 0 });
  const port = silent.addr.port!;
  const pinned = { serverName: "localhost", certificate: mine.cert };
  const accepted = silent.accept();
  const late = await assertRejects(() => dialTls({ port }, { ...pinned, timeoutMs: 50 }), HtxError);
  assertEquals([late.code, late.message.endsWith("no answer within 50 ms")], ["CONNECT_FAILED", true]);
  const peer = (await accepted)!;
  const buffer = new Uint8Array(16_384);
  while (await peer.io!.read(buffer).catch(() => null) !== null); // until the client's socket is gone
  peer.close?.();
  const again = silent.accept();
  const controller = new AbortController();
  const dial = dialTls({ port }, { ...pinned, signal: controller.signal });
  const other = (await again)!;
  controller.abort(new RangeError("enough"));
  await assertRejects(() => dial, RangeError, "enough");
  other.close?.();
  silent.close();
  const refused = await assertRejects(() => dialTls({ port }, pinned), HtxError);
  assertEquals(refused.code, "CONNECT_FAILED");
});

Deno.test("e-43: no code of this package names a way to turn certificate verification off", async () => {
  const words = [["reject", "Unauthorized"], ["unsafely", "Ignore"], ["NODE_TLS", "_REJECT"], [
    "allow",
    "Unauthorized",
  ]];
  const root = new URL("../", import.meta.url);
  let files = 0;
  for (
    const room of [
      "core",
      "noise",
      "transport",
      "transport/http",
      "transport/upstream",
      "gateway",
      "examples",
      "bitswap",
    ]
  ) {
    try {
      for await (const entry of Deno.readDir(new URL(room, root))) {
        if (!entry.isFile || !entry.name.endsWith(".ts")) continue;
        const text = await Deno.readTextFile(new URL(`${room}/${entry.name}`, root));
        for (const word of words) {
          assert(!text.includes(word.join("")), `${room}/${entry.name} says ${word.join("")}`);
        }
        files++;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  assert(files > 20);
});

tlsTest(
  "listenTls() takes TLS 1.3 alone unless told otherwise, and answers other talk with nothing of its own",
  async (mine) => {
    for (const [options, accepted] of [[{}, false], [{ minVersion: "TLSv1.2" }, true]] as const) {
      const listener = await listenTls({ port: 0 }, { ...mine, ...options });
      const { success } = await new Deno.Command("openssl", {
        args: ["s_client", "-connect", `127.0.0.1:${listener.addr.port}`, "-tls1_2"],
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).output();
      assertEquals([options, success], [options, accepted]);
      const plain = await Deno.connect({ port: listener.addr.port! });
      await plain.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
      const into = new Uint8Array(100);
      assertEquals([await plain.read(into), into[0]], [7, 0x15]); // a TLS alert
      plain.close();
      const idle = await Deno.connect({ port: listener.addr.port! }); // never begins
      if (accepted) (await listener.accept())?.close?.();
      listener.close();
      assertEquals(await idle.read(into).catch(() => null), null); // closing lets go of handshakes, too
      idle.close();
    }
  },
);

tlsTest(
  "e-37: listenTls() lets go of clients that stop in the TLS handshake, or leave in it, when their time is over",
  async (mine) => {
    const listener = await listenTls({ port: 0 }, { ...mine, handshakeTimeoutMs: 50 });
    const port = listener.addr.port!;
    const hello = await clientHello();
    for (const begun of [new Uint8Array(0), hello.subarray(0, 1), hello.subarray(0, 100), hello]) {
      for (const leaves of [false, true]) {
        const client = await Deno.connect({ port });
        await client.write(begun);
        if (leaves) await client.closeWrite();
        const into = new Uint8Array(16_384);
        while (await client.read(into).catch(() => null) !== null); // the server's flight, if any, then the end
        client.close();
      }
    }
    listener.close();
  },
);

/** The first message of a TLS client. */
async function clientHello(): Promise<Uint8Array> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepting = listener.accept();
  const dialling = dialTls({ port: listener.addr.port }, { serverName: "localhost" }).catch(() => {});
  using conn = await accepting;
  const into = new Uint8Array(16_384);
  const length = await conn.read(into);
  await conn.closeWrite();
  await dialling;
  return into.slice(0, length!);
}

tlsTest(
  "listenTls() names what is wrong at once: a port that is taken, a certificate that is none",
  async (mine) => {
    const listener = await listenTls({ port: 0 }, mine);
    await assertRejects(() => listenTls({ port: listener.addr.port! }, mine), Deno.errors.AddrInUse);
    listener.close();
    assertEquals(await listener.accept(), undefined);
    await assertRejects(
      () => listenTls({ port: 0 }, { ...mine, key: other!.key }),
      TypeError,
      "not the certificate's",
    );
    await assertRejects(() => listenTls({ port: 0 }, { cert: "none", key: mine.key }), TypeError, "not PEM");
  },
);

tlsTest(
  "listenTls() sends small writes at once: an answer in two writes waits for no acknowledgement",
  async (mine) => {
    const listener = await listenTls({ port: 0 }, mine);
    const accepting = listener.accept();
    const client = await dialTls({ port: listener.addr.port! }, {
      serverName: "localhost",
      caCerts: [mine.cert],
    });
    const server = (await accepting)!;
    const since = performance.now();
    for (let round = 0; round < 20; round++) {
      await client.io!.write(new Uint8Array(10));
      await server.io!.read(new Uint8Array(10));
      await server.io!.write(new Uint8Array(10));
      await server.io!.write(new Uint8Array(10));
      for (let length = 0; length < 20;) length += (await client.io!.read(new Uint8Array(20)))!;
    }
    // With Nagle's algorithm each round takes the 40 ms of a delayed acknowledgement.
    assert(performance.now() - since < 400);
    client.close?.();
    server.close?.();
    listener.close();
  },
);
