/**
 * Whether a `Response` was made of bytes or text rather than of a stream. Its public face does not tell, and asking for
 * `body` makes a stream of what was none: a third of what a small answer costs a server, and a copy of a large one.
 *
 * So this looks where Deno keeps it. What is found there decides only how the body is read, never what is read: that is
 * `bytes()` or `body`, as ever. The place is taken after a known-answer test, never by its name; where it fails, in
 * other runtimes or later versions, every body is read as a stream.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { property } from "../../core/_property.ts";

/** The key of a `Response` behind which its body is; `null` where there is none. */
let key: symbol | null | undefined;

/** Whether `response`, whose headers have been looked at, has an unread body that is no stream. */
export function hasStaticBody(response: Response): boolean {
  if (key === undefined) key = findKey();
  return key !== null && isStatic(response, key);
}

function isStatic(response: Response, at: symbol): boolean {
  const source = property(property(property(response, at), "body"), "streamOrStatic");
  if (property(source, "consumed") !== false) return false;
  const body = property(source, "body");
  return typeof body === "string" || body instanceof Uint8Array;
}

function findKey(): symbol | null {
  const probe = new Response("known");
  void probe.headers; // until they are asked for, Deno keeps less
  return Object.getOwnPropertySymbols(probe).find((at) => isStatic(probe, at) && answersKnown(at)) ?? null;
}

function answersKnown(at: symbol): boolean {
  const is = (body: BodyInit | null, use?: (response: Response) => unknown) => {
    const response = new Response(body, { status: 201 });
    void response.headers;
    use?.(response);
    return isStatic(response, at);
  };
  return is("known") && is(new Uint8Array(1)) && is(new URLSearchParams("a=b")) &&
    is("known", (response) => response.clone()) &&
    !is(null) && !is(new ReadableStream()) && !is(new Blob(["known"])) &&
    !is("known", (response) => response.body) && !is("known", (response) => response.bytes()) &&
    !is(new ReadableStream(), (response) => response.clone());
}
