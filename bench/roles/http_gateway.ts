/**
 * This library's gateway in front of an upstream.
 *
 *     http_gateway.ts <json of the upstream's READY line>
 *
 * @module
 */

import { createGateway, denoFront } from "../../gateway/mod.ts";
import { say } from "./_role.ts";

const { port, key } = JSON.parse(Deno.args[0] ?? "{}");
const gateway = createGateway({ upstream: { port, publicKey: key } });
const front = denoFront(gateway.handler, { port: 0 });
say("READY " + JSON.stringify({ port: front.addr.port }));
await front.finished;
