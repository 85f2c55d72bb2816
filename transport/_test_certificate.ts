/**
 * Certificates for tests, made when they run and never kept.
 *
 * @module
 */

/** A self-signed certificate of `localhost` and 127.0.0.1, and its private key, both in PEM. */
export interface TestCertificate {
  readonly cert: string;
  readonly key: string;
}

/** Makes one with openssl; `undefined`, and a line that says so, where that is not installed. */
export async function makeTestCertificate(
  names = "DNS:localhost,IP:127.0.0.1",
): Promise<TestCertificate | undefined> {
  const folder = await Deno.makeTempDir();
  try {
    const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    args.push("-keyout", `${folder}/key`, "-out", `${folder}/cert`, "-days", "2", "-subj", "/CN=localhost");
    // A certificate that is its own authority is refused as a server's.
    args.push("-addext", `subjectAltName=${names}`, "-addext", "basicConstraints=critical,CA:FALSE");
    const { success } = await new Deno.Command("openssl", { args, stdout: "null", stderr: "null" }).output();
    if (!success) throw new Error("openssl made no certificate");
    return { cert: await Deno.readTextFile(`${folder}/cert`), key: await Deno.readTextFile(`${folder}/key`) };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("skipped: openssl is not installed, so there is no certificate for TLS, wss and QUIC");
    return undefined;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
