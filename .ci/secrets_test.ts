import { assertEquals } from "@std/assert";
import { findSecrets, findSecretsInPatch } from "./secrets.ts";

// Put together here, so that this file does not look like what it is about.
const pem = (kind: string): string => `-----BEGIN ${kind}-----`;
const rules = (path: string, text: string): string[] => findSecrets(path, text).map((f) => f.rule);
const hex32 = "0123456789abcdef".repeat(4);

Deno.test("findSecrets() finds private keys of every kind, anywhere (e-50)", () => {
  for (
    const kind of [
      "PRIVATE KEY",
      "RSA PRIVATE KEY",
      "EC PRIVATE KEY",
      "OPENSSH PRIVATE KEY",
      "PGP PRIVATE KEY BLOCK",
    ]
  ) {
    assertEquals(rules("core/x_test.ts", `const k = \`\n${pem(kind)}\nMIIE\``), ["private key"]);
  }
  assertEquals(rules("a.md", pem("PUBLIC KEY") + pem("CERTIFICATE")), []);
  assertEquals(rules("certs/server.key", ""), ["name of a key file"]);
  assertEquals(rules("a.txt", "ghp_" + "a1B2".repeat(9)), ["forge or registry token"]);
});

Deno.test("findSecrets() finds key material given to a name in code, not in test vectors (e-50)", () => {
  assertEquals(rules("gateway/config.toml", `private_key = "${hex32}"`), ["key material in code"]);
  assertEquals(
    rules("core/keys.ts", `const ticketSecret: string = ""; const x = { secretKey: "${hex32}" };`),
    [
      "key material in code",
    ],
  );
  assertEquals(rules("core/testdata/htx.json", `{ "private": "${hex32}" }`), []);
  assertEquals(rules("core/keys.ts", `const publicKey = "${hex32}";`), []);
});

Deno.test("findSecrets() finds a generator that is not cryptographic in library code (e-50)", () => {
  const [rule] = rules("tickets/padding.ts", "const n = Math.random();");
  assertEquals(rule?.startsWith("Math.random"), true);
  assertEquals(rules("tickets/padding.ts", " * not `Math.random()`"), []);
  assertEquals(rules("tickets/store.ts", "await pause(delay * Math.random() /* jitter */);"), []);
  assertEquals(rules("tickets/padding_test.ts", "const n = Math.random();"), []);
});

Deno.test("findSecretsInPatch() finds what a commit added and a later one removed (e-50)", () => {
  const patch = `diff --git a/k b/k\n--- /dev/null\n+++ b/k\n@@ -0,0 +1 @@\n+${pem("PRIVATE KEY")}\n`;
  assertEquals(findSecretsInPatch(patch), [{ path: "k", line: 0, rule: "private key (in history)" }]);
  assertEquals(findSecretsInPatch(patch.replace("+-----", "------")), []);
});
