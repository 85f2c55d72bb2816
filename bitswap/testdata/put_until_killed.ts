/** Puts random blocks into a directory and prints the CID of each when it is stored; ends by being killed. */
import { cidOf } from "../cid.ts";
import { openDirectory } from "../directory.ts";

const store = await openDirectory(Deno.args[0]!);
const encoder = new TextEncoder();

async function work(): Promise<void> {
  for (;;) {
    const block = new Uint8Array(1_000_000);
    for (let at = 0; at < block.length; at += 65_536) crypto.getRandomValues(block.subarray(at, at + 65_536));
    const cid = cidOf(block);
    await store.put(cid, block);
    Deno.stdout.writeSync(encoder.encode(`${cid}\n`));
  }
}

await Promise.all([work(), work(), work(), work()]);
