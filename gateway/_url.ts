import type { HttpFront } from "./front.ts";

/** Where a front is reached. */
export function urlOf({ addr, encrypted }: HttpFront): string {
  return `${encrypted ? "https" : "http"}://${hostPort(addr)}`;
}

/** `HOST:PORT`, with the brackets of an IPv6 address. */
export function hostPort({ hostname, port }: { hostname: string; port: number }): string {
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}
