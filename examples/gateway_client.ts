/**
 * Sends one request with an access ticket in it, and prints the answer.
 *
 *     deno run -N examples/gateway_client.ts http://127.0.0.1:8080/ --ticket-pub HEX --key-id HEX
 *
 * Permissions: `-N` (to send it), or no more than `--allow-net=127.0.0.1:8080`.
 *
 * @module
 */

import { TicketClient, TicketPolicy } from "@betanet/htx/tickets";
import { Failure, main, UsageError } from "./_cli.ts";

const help = `
Makes a ticket, puts it into a request, and prints the answer: its body to stdout, its status to stderr.

Usage: deno run -N examples/gateway_client.ts URL --ticket-pub HEX --key-id HEX
         [--carrier cookie|query|body] [--site-name NAME] [--data TEXT]

  --ticket-pub   the gateway's ticket key, as it prints it after ticket_pub=
  --key-id       the key's id, as it prints it after ticket_key_id=
  --carrier      where the ticket goes; "body" sends a form with POST (drawn as the site's policy weighs them)
  --site-name    name of the site's ticket cookie (__Host-bn1)
  --data         sends TEXT with POST in place of a GET

A ticket is sent over https, or to this machine: seen in clear it could be spent by somebody else.
Exit status: 0 answered, by the application or the decoy; 1 no answer, or a bad key; 2 bad arguments.`;

const options = {
  "ticket-pub": undefined,
  "key-id": undefined,
  carrier: undefined,
  "site-name": "__Host-bn1",
  data: undefined,
};

await main({ help, positional: ["URL"], options }, async (args) => {
  const url = args.text("URL");
  if (!URL.canParse(url) || !/^https?:/i.test(url)) {
    throw new UsageError("URL must begin with http:// or https://");
  }
  const carrier = args.optional("--carrier") === undefined
    ? undefined
    : args.oneOf("--carrier", ["cookie", "query", "body"]);
  const policy = new TicketPolicy({ cookie: args.cookieName("--site-name") });
  const keyId = args.bytes("--key-id", 8);
  const publicKey = args.key("--ticket-pub");
  const client = new TicketClient({ publicKey, keyId }, { policy, ...(carrier && { carrier }) });

  const data = args.optional("--data");
  const request = new Request(url, {
    method: data !== undefined || carrier === "body" ? "POST" : "GET",
    // As curl -d does: a form, so that the ticket may go into it.
    ...(data !== undefined &&
      { body: data, headers: { "content-type": "application/x-www-form-urlencoded" } }),
    redirect: "manual",
  });
  const response = await client.fetch(request).catch((error) => {
    if (!(error instanceof TypeError)) throw error;
    if (/travel in clear/.test(error.message)) throw new Failure(`${error.message}: use an https:// URL`);
    throw new Failure(`no answer from ${new URL(url).origin}: is the gateway running? (${error.message})`);
  });
  console.error(`HTTP ${response.status}`);
  for await (const chunk of response.body ?? []) {
    for (let rest = chunk; rest.length > 0;) rest = rest.subarray(await Deno.stdout.write(rest));
  }
});
