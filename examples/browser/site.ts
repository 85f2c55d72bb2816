/**
 * The web site in front: a few files, and a page for everything that is not there. It knows nothing of HTX.
 *
 * @module
 */

import { TICKET_POLICY_HEADER, type TicketPolicy } from "@betanet/htx/tickets";

/** What the page has to know of the server, all of it public. */
export interface SiteConfig {
  /** Path of the WebSocket endpoint. */
  readonly endpoint: string;
  /** The server's static key, to be pinned: 64 hexadecimal digits. */
  readonly serverKey: string;
  /** The ticket key, in hexadecimal. */
  readonly ticket: { readonly publicKey: string; readonly keyId: string };
}

/** Nothing from elsewhere, nothing inline, no frames around it; a ticket in a URL goes into no `referer`. */
const SECURITY_HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
} as const;

const NOT_FOUND = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Not found</title>
<link rel="stylesheet" href="/style.css">
<main>
<h1>Not found</h1>
<p>There is no such page here. <a href="/">To the start</a>
</main>
</html>
`;

interface Resource {
  readonly type: string;
  readonly body: Uint8Array<ArrayBuffer>;
  readonly gzip?: Uint8Array<ArrayBuffer>;
}

/** What {@linkcode createSite} serves. */
export interface SiteOptions {
  /** The page's script. */
  readonly script: string;
  /** What the page asks for at `/config.json`. */
  readonly config: SiteConfig;
  /** Published with the page (HTX 1.1 §6). */
  readonly policy: TicketPolicy;
}

/** The site as a fetch handler, and how long its script is. */
export interface Site {
  /** Answers a request. */
  readonly handler: (request: Request) => Response;
  /** Bytes of the script as compressed. */
  readonly scriptGzipLength: number;
}

/** Reads the page's files, which lie beside this module. */
export async function createSite(options: SiteOptions): Promise<Site> {
  const file = (name: string) => Deno.readTextFile(new URL(name, import.meta.url));
  const script = await resource("text/javascript", options.script);
  const files = new Map<string, Resource>([
    ["/", await resource("text/html", await file("index.html"))],
    ["/app.js", script],
    ["/style.css", await resource("text/css", await file("style.css"))],
    ["/icon.svg", await resource("image/svg+xml", await file("icon.svg"))],
    ["/config.json", await resource("application/json", JSON.stringify(options.config))],
  ]);
  const policy = options.policy.toString();
  const handler = (request: Request): Response => {
    const { pathname } = new URL(request.url);
    const found = request.method === "GET" || request.method === "HEAD" ? files.get(pathname) : undefined;
    const headers = new Headers({ ...SECURITY_HEADERS, [TICKET_POLICY_HEADER]: policy });
    if (found === undefined) {
      headers.set("content-type", "text/html; charset=utf-8");
      return new Response(NOT_FOUND, { status: 404, headers });
    }
    headers.set("content-type", `${found.type}; charset=utf-8`);
    headers.set("cache-control", "no-cache");
    headers.set("vary", "accept-encoding");
    const { gzip } = found;
    if (gzip === undefined || !/\bgzip\b/.test(request.headers.get("accept-encoding") ?? "")) {
      return new Response(found.body, { headers });
    }
    headers.set("content-encoding", "gzip");
    return new Response(gzip, { headers });
  };
  return { handler, scriptGzipLength: script.gzip?.length ?? script.body.length };
}

async function resource(type: string, text: string): Promise<Resource> {
  const body = new TextEncoder().encode(text);
  if (body.length < 1024) return { type, body };
  const zipped = new Blob([body]).stream().pipeThrough(new CompressionStream("gzip"));
  return { type, body, gzip: new Uint8Array(await new Response(zipped).arrayBuffer()) };
}
