/** A certificate for this room's tests. */

import { assert } from "@std/assert";

/** Makes a certificate for localhost and its key: `cert.pem` and `key.pem` in `base`. */
export async function makeCertificate(base: string): Promise<{ cert: string; key: string }> {
  const { success } = await new Deno.Command("openssl", {
    args: [
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        .split(" "),
      ..."-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(
        " ",
      ),
      ...["-keyout", `${base}/key.pem`, "-out", `${base}/cert.pem`],
    ],
    stderr: "null",
  }).output();
  assert(success);
  const [cert, key] = await Promise.all([
    Deno.readTextFile(`${base}/cert.pem`),
    Deno.readTextFile(`${base}/key.pem`),
  ]);
  return { cert, key };
}
