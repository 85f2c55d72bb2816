/**
 * Both faces of a gateway with tickets, for a browser: what a stranger sees, and a link that lets you in.
 *
 *     deno run -N examples/dev_gateway_preview.ts
 *     deno run -N -R=public,decoy examples/dev_gateway_preview.ts --site public --decoy decoy
 *
 * Permissions: `-N` (to listen), and `-R=DIR` for `--site DIR` and `--decoy DIR`.
 *
 * @module
 */

import { createGateway, denoFront, localUpstream } from "@betanet/htx/gateway";
import { generateTicketKey, TicketClient } from "@betanet/htx/tickets";
import { staticFiles } from "@betanet/htx/transport";
import { Failure, httpUrl, main, untilStopped } from "./_cli.ts";

const help = `
Previews a site behind a gateway with tickets, on 127.0.0.1: prints the stranger's URL, and links that let you in.

Usage: deno run -N [-R=DIR] examples/dev_gateway_preview.ts [--site DIR] [--decoy DIR] [--port 8082]

  --site    the files that ticket holders see (a built-in page)
  --decoy   the files that everybody else sees (a built-in page)
  --port    where the gateway listens; 0 lets the system choose (8082)

A link works once, within about an hour; the browser then has a cookie for 15 minutes. Enter prints another link.
Exit status: 0 stopped, 1 failed (the port is taken, no such directory), 2 bad arguments.`;

type Handler = (request: Request) => Response | Promise<Response>;

async function site(folder: string | undefined, title: string): Promise<Handler> {
  if (folder === undefined) {
    const page = `<!doctype html><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>\n`;
    return () => new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
  }
  const info = await Deno.stat(folder).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  });
  if (!info?.isDirectory) throw new Failure(`${folder} is not a directory: name one that exists`);
  return staticFiles(folder);
}

await main(
  { help, stays: true, options: { site: undefined, decoy: undefined, port: "8082" } },
  async (args) => {
    const port = args.port("--port");
    const upstream = localUpstream(await site(args.optional("--site"), "You are in"));
    const decoy = await site(args.optional("--decoy"), "A site like any other");

    const ticketKey = generateTicketKey();
    const gateway = createGateway({
      upstream,
      admission: {
        verifier: { keys: [ticketKey] },
        session: { keys: [crypto.getRandomValues(new Uint8Array(32))] },
      },
      decoy,
    });
    const front = denoFront(gateway.handler, { port });

    const url = `${httpUrl(front.addr)}/`;
    const tickets = new TicketClient(ticketKey);
    console.log(`as a stranger:     ${url}`);
    console.log(`with a ticket:     ${tickets.addToUrl(url)}`);
    if (Deno.stdin.isTerminal()) {
      console.log("Enter prints another link, Ctrl-C ends.");
      printLinks(() => console.log(`with a ticket:     ${tickets.addToUrl(url)}`));
    }
    await untilStopped([front, gateway], [upstream.server]);
    Deno.exit(0); // the terminal is still being read
  },
);

async function printLinks(print: () => void): Promise<void> {
  for await (const _line of Deno.stdin.readable) print();
}
