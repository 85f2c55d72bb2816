/**
 * A plain HTTP server to develop against, without a tunnel: files of a directory, or an echo of what is posted.
 *
 *     deno run -N --allow-read=public examples/dev_server.ts --mode static --root public --port 9000
 *     deno run -N examples/dev_server.ts --mode echo
 *
 * Permissions: `-N` (to listen), and `--allow-read=ROOT` with `--mode static`.
 *
 * @module
 */

import { denoFront } from "@betanet/htx/gateway";
import { staticFiles } from "@betanet/htx/transport";
import { Failure, httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
Plain HTTP on 127.0.0.1: the same application as behind the tunnel, without the tunnel.

Usage: deno run -N [--allow-read=ROOT] examples/dev_server.ts [--mode static|echo] [--root DIR] [--port 9000]

  --mode   static: the files of --root; echo: a POST is answered with its body (static)
  --root   the directory (the current one)
  --port   where to listen; 0 lets the system choose (9000)

Exit status: 0 stopped, 1 failed (the port is taken, no such directory), 2 bad arguments.`;

function echo(request: Request): Response {
  if (request.method !== "POST") {
    return new Response("send a POST: its body comes back\n", { status: 405, headers: { allow: "POST" } });
  }
  return new Response(request.body, {
    headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  });
}

await main({ help, stays: true, options: { mode: "static", root: ".", port: "9000" } }, async (args) => {
  const mode = args.oneOf("--mode", ["static", "echo"]);
  const port = args.port("--port");
  const root = args.text("--root");
  if (mode === "static" && !(await isFolder(root))) {
    throw new Failure(`${root} is not a directory: name one that exists with --root`);
  }
  const handler = mode === "static" ? staticFiles(root) : echo;
  const front = denoFront((request) => handler(request), { port });
  const url = httpUrl(front.addr);
  console.log(mode === "static" ? `serving ${root} on ${url}/` : `echo on ${url}/`);
  if (mode === "echo") console.log(`try: curl -X POST -d hello ${url}/`);
  await untilStopped([front]);
});

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
