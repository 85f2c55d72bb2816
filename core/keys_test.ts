import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { concat, fromHex, toHex, utf8 } from "./bytes.ts";
import { type Bytes, type CryptoBackend, selectCrypto } from "./crypto.ts";
import { FrameScanner, FrameType, writeHeader } from "./frame.ts";
import { deriveSessionKeys, TrafficKeys } from "./keys.ts";
import { loadSodium } from "./sodium.ts";
import own from "./testdata/htx.json" with { type: "json" };

type Vectors = Pick<typeof own, "handshakes">;

/** The shared vectors where the folder is there, beside the copy that this repository carries. */
function vectorSets(): [string, Vectors][] {
  const sets: [string, Vectors][] = [["own copy", own]];
  try {
    const text = Deno.readTextFileSync(new URL("../../shared/vectors/htx.json", import.meta.url));
    sets.push(["shared", JSON.parse(text)]);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("SKIPPED: the shared vectors are not there; the repository's own copy is used");
  }
  return sets;
}

const sodium = selectCrypto();
const backends: [string, CryptoBackend][] = [
  ["native", selectCrypto("native")],
  ["noble", selectCrypto("noble")],
  ["libsodium", sodium],
];

for (const [backend, crypto] of backends) {
  const ready = async () => {
    if (crypto === sodium) assert(await loadSodium());
  };
  for (const [where, { handshakes }] of vectorSets()) {
    for (const vector of handshakes) {
      const secrets = () => ({
        k1: fromHex(vector.split_k1),
        k2: fromHex(vector.split_k2),
        h: fromHex(vector.handshake_hash),
      });
      const name = `${vector.protocol} (${where}, ${backend})`;

      Deno.test(`deriveSessionKeys() gives K0 of ${name} and overwrites its inputs (e-01)`, async () => {
        await ready();
        const given = secrets();
        const { client, server } = deriveSessionKeys(given, crypto);
        assertEquals(toHex(concat(client, server)), vector.k0);
        assertEquals([...given.k1, ...given.k2].some((byte) => byte !== 0), false);
      });

      Deno.test(`TrafficKeys seals and opens every frame of ${name}`, async () => {
        await ready();
        const keys = deriveSessionKeys(secrets(), crypto);
        const pair = () => {
          const { client, server, handshakeHash } = keys;
          return {
            client: new TrafficKeys(crypto, "client-to-server", client.slice(), handshakeHash),
            server: new TrafficKeys(crypto, "server-to-client", server.slice(), handshakeHash),
          };
        };
        const [sealing, opening] = [pair(), pair()];
        for (const frame of vector.frames) {
          const from = frame.from === "client" ? "client" : "server";
          assertEquals(sealing[from].counter, frame.counter);
          const plaintext = fromHex(frame.plaintext);
          const out = new Uint8Array(12 + plaintext.length + 16);
          const bodyAt = writeHeader(frame.type, frame.stream_id ?? undefined, plaintext.length, out, 0);
          sealing[from].seal(out.slice(0, bodyAt), plaintext, out, bodyAt);
          assertEquals(toHex(out.subarray(0, bodyAt + plaintext.length + 16)), frame.wire);

          const wire = fromHex(frame.wire);
          const scan = new FrameScanner();
          assert(scan.parse(wire, 0, wire.length));
          assertEquals(scan.end, wire.length);
          const opened = opening[from].open(wire.subarray(0, scan.bodyStart), wire.subarray(scan.bodyStart));
          assertEquals(opened && toHex(opened), frame.plaintext);
          if (frame.type === FrameType.KEY_UPDATE) {
            sealing[from].update();
            opening[from].update();
          }
        }
      });
    }
  }

  Deno.test(`an observer of the wire cannot compute K0, whatever public value stands where (e-01, ${backend})`, () => {
    // Everything that is not secret: the handshake hash, and 32-byte values of the wire and of both static keys.
    const k1 = crypto.randomBytes(32);
    const k2 = crypto.randomBytes(32);
    const h = crypto.randomBytes(32);
    const keys = deriveSessionKeys({ k1: k1.slice(), k2: k2.slice(), h }, crypto);
    const others = Array.from({ length: 6 }, () => crypto.randomBytes(32));
    const publicValues = [new Uint8Array(32), h, crypto.sha256(h), ...others];
    for (const a of publicValues) {
      for (const b of publicValues) {
        for (const c of publicValues) {
          const guess = deriveSessionKeys({ k1: a.slice(), k2: b.slice(), h: c }, crypto);
          for (const made of [guess.client, guess.server]) {
            assertNotEquals(toHex(made), toHex(keys.client));
            assertNotEquals(toHex(made), toHex(keys.server));
          }
        }
      }
    }
  });

  Deno.test(`a secret gives the next ones and none before it (e-22, ${backend})`, () => {
    const hash = crypto.randomBytes(32);
    const next = (secret: Bytes) => crypto.hkdfSha256(secret, utf8("next"), hash, 64).slice(0, 32);
    const s0 = crypto.randomBytes(32);
    const s1 = next(s0);
    const keys = new TrafficKeys(crypto, "client-to-server", s0.slice(), hash);
    keys.update();
    const sealed = new Uint8Array(16 + 5);
    keys.seal(new Uint8Array(4), utf8("hello"), sealed, 0);
    const fromNext = new TrafficKeys(crypto, "client-to-server", s1.slice(), hash);
    assertEquals(fromNext.open(new Uint8Array(4), sealed), utf8("hello"));
    for (const derived of [s1, next(s1), next(next(s1))]) assertNotEquals(toHex(derived), toHex(s0));
  });

  Deno.test(`a forged frame moves nothing: the true one still opens, once (${backend})`, () => {
    const make = () =>
      new TrafficKeys(crypto, "client-to-server", new Uint8Array(32).fill(7), new Uint8Array(32));
    const [sender, receiver] = [make(), make()];
    const header = new Uint8Array([0, 0, 5, 1]);
    const sealed = new Uint8Array(21);
    sender.seal(header, utf8("hello"), sealed, 0);
    const forged = sealed.slice();
    forged[3]! ^= 1;
    assertEquals(receiver.open(header, forged), undefined);
    assertEquals([receiver.counter, receiver.bytes], [0, 0]);
    assertEquals(receiver.open(header, sealed), utf8("hello"));
    assertEquals(receiver.open(header, sealed), undefined);
  });

  Deno.test(`the two directions of one secret give different keys after an update (e-02, ${backend})`, () => {
    const secret = new Uint8Array(32).fill(7);
    const up = new TrafficKeys(crypto, "client-to-server", secret.slice(), new Uint8Array(32));
    const down = new TrafficKeys(crypto, "server-to-client", secret.slice(), new Uint8Array(32));
    up.update();
    down.update();
    const sealed = new Uint8Array(16);
    up.seal(new Uint8Array(4), new Uint8Array(0), sealed, 0);
    assertEquals(down.open(new Uint8Array(4), sealed), undefined);
  });
}
