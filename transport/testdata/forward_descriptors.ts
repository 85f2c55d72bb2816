// A forwarder in a process that runs out of file descriptors: `ulimit -n` is set by whoever runs this.
import { connect, echo, forward, serveStreams } from "../mod.ts";

const server = serveStreams(echo());
const client = await connect(server.addr, { remoteStatic: server.publicKey });
const told = Promise.withResolvers<unknown>();
const forwarder = forward({ client, target: "127.0.0.1:9", onError: told.resolve });
const local = async () => await Deno.connect({ hostname: "127.0.0.1", port: forwarder.addr.port! });
const first = await local(); // so that all code is loaded
await first.read(new Uint8Array(1));
first.close();

const files: Deno.FsFile[] = [];
try {
  for (;;) files.push(await Deno.open("/dev/null"));
} catch {
  files.pop()!.close(); // one is left for this end of the connection, none for the other
}
const conn = await local();
console.log(await told.promise instanceof Error);
for (const file of files) file.close();
console.log(await conn.read(new Uint8Array(1)));
conn.close();
await forwarder.close();
await client.close();
await server.shutdown();
