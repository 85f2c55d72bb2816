/** Helia's trustless-gateway block broker fetches from examples/cas_http.ts. */

import assert from "node:assert/strict";
import { trustlessGateway } from "@helia/block-brokers";
import { decode } from "@ipld/dag-pb";
import { peerIdFromString } from "@libp2p/peer-id";
import { multiaddr } from "@multiformats/multiaddr";
import { CID } from "multiformats/cid";
import { cidOf } from "../cid.ts";
import { testBlocks } from "../_testing.ts";

/** The store, as anyone would start it. */
async function start(): Promise<{ url: string; stop(): Promise<void> }> {
  const child = new Deno.Command("deno", {
    args: ["run", "--no-lock", "-N", "examples/cas_http.ts", "--port", "0"],
    cwd: new URL("../..", import.meta.url),
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the store did not start");
    text += value;
  }
  return {
    url: /http:\/\/\S+?(?=\/?\s)/.exec(text)![0],
    async stop(): Promise<void> {
      await reader.cancel();
      child.kill("SIGTERM");
      await child.status;
    },
  };
}

Deno.test("a Helia block broker fetches every block of what was put, and misses what was not", async () => {
  const store = await start();
  try {
    const log = Object.assign((): void => {}, {
      error: (): void => {},
      trace: (): void => {},
      enabled: false,
    });
    const logger = {
      forComponent: () => Object.assign(log, { newScope: () => log }),
    };
    const { hostname, port } = new URL(store.url);
    const provider = {
      id: peerIdFromString(
        "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
      ),
      multiaddrs: [multiaddr(`/ip4/${hostname}/tcp/${port}/http`)],
      protocols: ["transport-ipfs-gateway-http"],
    };
    const routing = {
      async *findProviders(): AsyncGenerator<typeof provider> {
        yield await Promise.resolve(provider);
      },
    };
    // Only what the broker uses of a Helia node.
    const components = { routing, logger } as unknown as Parameters<
      ReturnType<typeof trustlessGateway>
    >[0];
    const broker = trustlessGateway({ allowInsecure: true, allowLocal: true })(
      components,
    );

    for (const length of [5, 262_144, 1_048_576, 3_000_000]) {
      const body = testBlocks(1, length)[0]!;
      const response = await fetch(`${store.url}/`, {
        method: "PUT",
        body: new Uint8Array(body),
      });
      const root = CID.parse(await response.text());
      const fetched = await broker.retrieve!(root as never);
      assert.deepEqual(cidOf(fetched, root.code).toString(), root.toString());
      if (length <= 1_048_576) assert.deepEqual(fetched, body);
      for (const { Hash } of root.code === 0x70 ? decode(fetched).Links : []) {
        const leaf = await broker.retrieve!(Hash as never);
        assert.deepEqual(cidOf(leaf, Hash.code).toString(), Hash.toString());
      }
    }
    const absent = cidOf(new TextEncoder().encode("absent"));
    await assert.rejects(
      async () => await broker.retrieve!(absent as never),
      (error) => error instanceof AggregateError && /404/.test(String(error.errors[0])),
    );
  } finally {
    await store.stop();
  }
});
