/** Help for this room's tests. */

import {
  type HttpHandler,
  type HtxServer,
  memoryDuplexPair,
  serve,
  serveStreams,
  type StreamHandler,
} from "../transport/mod.ts";
import { createGateway, type Gateway, type GatewayOptions } from "./gateway.ts";
import type { FrontInfo } from "./front.ts";
import { localStreams, type LocalUpstream, localUpstream } from "./local.ts";

export const PEER: FrontInfo = { remoteAddr: { hostname: "192.0.2.7", port: 1234 }, encrypted: false };

/** A gateway over a handler in this process, called without a socket. */
export function over(
  handler: HttpHandler,
  options: Partial<GatewayOptions> = {},
): { gateway: Gateway; upstream: LocalUpstream; ask: Ask; [Symbol.asyncDispose](): Promise<void> } {
  const upstream = localUpstream(handler);
  const gateway = createGateway({ upstream, ...options });
  return {
    gateway,
    upstream,
    ask: asker(gateway),
    [Symbol.asyncDispose]: async () => {
      await gateway.close();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

export function overStreams(handler: StreamHandler, options: Partial<GatewayOptions> = {}) {
  const upstream = localStreams(handler);
  const gateway = createGateway({ upstream, ...options });
  return {
    gateway,
    upstream,
    ask: asker(gateway),
    [Symbol.asyncDispose]: async () => {
      await gateway.close();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

export type Ask = (
  target: string,
  init?: RequestInit & { info?: Partial<FrontInfo>; duplex?: "half" },
) => Promise<Response>;

export function asker(gateway: Gateway): Ask {
  return async (target, init = {}) => {
    const { info, ...rest } = init;
    const url = target.startsWith("/") ? `http://site.example${target}` : target;
    return await gateway.handler(new Request(url, rest), { ...PEER, ...info });
  };
}

/** A handler that tells what it was asked. */
export const tell: HttpHandler = async (request, info) =>
  Response.json({
    method: request.method,
    path: info.rawPath,
    headers: [...request.headers],
    body: await request.text(),
  });

export interface Told {
  method: string;
  path: string;
  headers: [string, string][];
  body: string;
}

export async function told(response: Response): Promise<Told & { header(name: string): string | undefined }> {
  const answer = await response.json() as Told;
  return { ...answer, header: (name) => answer.headers.find(([one]) => one === name)?.[1] };
}

/** Sends text to a port and reads what comes until the end, or until nothing more came for `quiet` ms. */
export async function raw(
  port: number,
  text: string | Uint8Array,
  quiet = 300,
  end = false,
): Promise<string> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  try {
    await conn.write(typeof text === "string" ? new TextEncoder().encode(text) : text);
    if (end) await conn.closeWrite();
    let all = "";
    const buffer = new Uint8Array(65536);
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const wait = all === "" ? Math.max(quiet, 3000) : quiet;
      const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), wait));
      const read = conn.read(buffer).catch(() => null);
      const n = await Promise.race([read, late]);
      clearTimeout(timer);
      if (n === undefined) {
        conn.close();
        await read;
        return all;
      }
      if (n === null) return `${all}<end>`;
      all += new TextDecoder("latin1").decode(buffer.subarray(0, n));
    }
  } finally {
    try {
      conn.close();
    } catch { /* closed */ }
  }
}

/** Runs curl; standard output as text. */
export async function curl(...args: string[]): Promise<{ code: number; out: string }> {
  const { code, stdout } = await new Deno.Command("curl", {
    args: ["-s", "--path-as-is", "--max-time", "20", ...args],
    stderr: "null",
  }).output();
  return { code, out: new TextDecoder().decode(stdout) };
}

/** Waits for a condition, at most `ms`. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  const end = performance.now() + ms;
  while (!await condition()) {
    if (performance.now() > end) throw new Error("the awaited did not happen");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Whether the long rows run in full. */
export function long(): boolean {
  return Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
    Deno.env.get("HTX_LONG") === "1";
}

export { type HtxServer, memoryDuplexPair, serve, serveStreams };
