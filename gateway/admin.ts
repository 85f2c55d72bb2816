/**
 * The listener for operators: health, metrics, and a live page for people. It has no password: keep it on loopback.
 *
 * @module
 */

import type { Gateway } from "./gateway.ts";
import { prometheusText } from "./prometheus.ts";
import { STATUS_PAGE, STATUS_PAGE_SCRIPT, STATUS_PAGE_STYLE } from "./status_page.ts";

const LOOPBACK = /^(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?$/i;

/** Options of {@linkcode adminHandler}. */
export interface AdminOptions {
  /**
   * Whether only requests for a loopback host are answered, so that no web page can reach this through a name of its
   * own that resolves to loopback.
   *
   * @default {true}
   */
  loopbackOnly?: boolean | undefined;
}

/**
 * Answers `/healthz` (the process runs), `/readyz` (requests can be served), `/metrics` (Prometheus), `/status.json` and
 * `/`, the status page.
 */
export function adminHandler(
  gateway: Gateway,
  options: AdminOptions = {},
): (request: Request) => Promise<Response> {
  const { loopbackOnly = true } = options;
  let policy: Promise<string> | undefined;
  return async (request) => {
    const { method } = request;
    const url = URL.parse(request.url); // a Host may be there that is none
    if (loopbackOnly && !LOOPBACK.test(request.headers.get("host") ?? url?.host ?? "")) {
      return plain(403, "not a loopback host");
    }
    if (url === null) return plain(400, "not a host");
    const { pathname } = url;
    if (method !== "GET" && method !== "HEAD") return plain(405, "only GET and HEAD", { allow: "GET, HEAD" });
    switch (pathname) {
      case "/healthz":
        return plain(200, "ok");
      case "/readyz": {
        const { ready, stopping } = gateway.stats;
        return ready
          ? plain(200, "ready")
          : plain(503, stopping ? "stopping" : "no upstream is known to work");
      }
      case "/metrics":
        return new Response(prometheusText(gateway.stats), {
          headers: {
            "content-type": "text/plain; version=0.0.4; charset=utf-8",
            "cache-control": "no-store",
          },
        });
      case "/status.json":
        return Response.json(gateway.stats, { headers: { "cache-control": "no-store" } });
      case "/":
        return new Response(STATUS_PAGE, {
          headers: {
            "content-type": "text/html; charset=utf-8",
            "cache-control": "no-store",
            "content-security-policy": await (policy ??= makePolicy()),
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
          },
        });
      default:
        return plain(404, "not found");
    }
  };
}

/** Nothing but the page's own script and style may run, by their hashes. */
async function makePolicy(): Promise<string> {
  const [script, style] = await Promise.all([hash(STATUS_PAGE_SCRIPT), hash(STATUS_PAGE_STYLE)]);
  return `default-src 'none'; script-src ${script}; style-src ${style}; connect-src 'self'; base-uri 'none'; ` +
    `form-action 'none'; frame-ancestors 'none'`;
}

async function hash(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return `'sha256-${btoa(String.fromCharCode(...digest))}'`;
}

function plain(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(`${text}\n`, {
    status,
    headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store", ...headers },
  });
}
