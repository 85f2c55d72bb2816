/** Serves test blocks on a port with a given key, until it is killed: PORT KEY_HEX COUNT LENGTH. */
import { KeyPair } from "../../noise/mod.ts";
import { serveStreams } from "../../transport/mod.ts";
import { BitswapServer } from "../server.ts";
import { testBlocks } from "../_testing.ts";

const [port, key, count, length] = Deno.args;
const blocks = new BitswapServer();
for (const block of testBlocks(Number(count), Number(length))) await blocks.put(block);
const server = serveStreams(blocks.onStream, { port: Number(port), keyPair: KeyPair.fromHex(key!) });
console.log(server.addr.port);
