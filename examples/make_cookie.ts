/**
 * Makes an access ticket and prints it as a `cookie` line for curl.
 *
 *     curl -H "$(deno run examples/make_cookie.ts TICKET_PUB_HEX KEY_ID_HEX)" http://127.0.0.1:8080/
 *
 * Permissions: none.
 *
 * @module
 */

import { makeTicketCookie, TicketPolicy } from "@betanet/htx/tickets";
import { main } from "./_cli.ts";

const help = `
Makes a fresh access ticket and prints it as "Cookie: NAME=..." for curl -H.

Usage: deno run examples/make_cookie.ts TICKET_PUB_HEX KEY_ID_HEX [NAME]

  TICKET_PUB_HEX   the gateway's ticket key, as it prints it after ticket_pub=
  KEY_ID_HEX       the key's id, as it prints it after ticket_key_id=
  NAME             the cookie's name; __Host-bn1 if left out

A ticket is good once, within about an hour. Whoever sees it can spend it: send it over https or on this machine.
Exit status: 0 printed, 1 a bad key, 2 bad arguments.`;

await main({ help, positional: ["TICKET_PUB_HEX", "KEY_ID_HEX", "[NAME]"] }, (args) => {
  const cookie = args.optional("NAME") === undefined ? "__Host-bn1" : args.cookieName("NAME");
  const keyId = args.bytes("KEY_ID_HEX", 8);
  const publicKey = args.key("TICKET_PUB_HEX");
  console.log(`Cookie: ${makeTicketCookie({ publicKey, keyId }, { policy: new TicketPolicy({ cookie }) })}`);
});
