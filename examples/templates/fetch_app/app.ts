/**
 * The smallest application: one function from a `Request` to a `Response`. It runs behind the tunnel with
 * `serve(app)`, and as it is under `deno serve -N examples/templates/fetch_app/app.ts`.
 *
 * Permissions: `-N` under `deno serve`; none of its own.
 *
 * @module
 */

/** Answers a request. */
export function handler(request: Request): Response {
  const { pathname } = new URL(request.url);
  if (pathname === "/") return new Response("hello from behind the tunnel\n");
  if (pathname === "/json") return Response.json({ ok: true, method: request.method });
  return new Response("404 Not Found\n", { status: 404 });
}

/** The form that `serve()`, `deno serve` and Workers take. */
const app: { fetch(request: Request): Response } = { fetch: handler };
export default app;
