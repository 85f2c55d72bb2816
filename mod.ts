/**
 * HTX 1.1, the cover transport of Betanet: application traffic through an encrypted, multiplexed tunnel.
 *
 * This module is everything at once; a program that wants one part imports its folder, such as
 * `@betanet/htx/transport`, and loads no more. So does one that is bundled: some of the other parts' dependencies (CBOR,
 * CIDs) stay in a bundle that enters here.
 *
 * @example An application behind the tunnel, and a client of it
 * ```ts
 * import { connect, serve } from "@betanet/htx";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve((request) => new Response(`hello, ${new URL(request.url).pathname.slice(1)}`));
 * await using client = await connect(server.addr, { remoteStatic: server.publicKey });
 * assertEquals(await (await client.fetch("/world")).text(), "hello, world");
 * ```
 *
 * @module
 */

// A name that two rooms export is the first one's here; the other is at its own entry point.
export * from "./core/mod.ts";
export * from "./noise/mod.ts";
export * from "./tickets/mod.ts";
export * from "./transport/mod.ts";
export type { SessionOptions } from "./core/mod.ts"; // the gateway has one of its own
export * from "./gateway/mod.ts";
export * from "./bitswap/mod.ts";
export * as overlay from "./overlay/mod.ts";
