/**
 * Looks for what must never be committed (e-50): private keys and access tokens anywhere, key material assigned to a
 * name in code or configuration, and a generator that is not cryptographic in library code.
 *
 * `deno run --allow-read=. --allow-run=git .ci/secrets.ts [--history]` scans the files git knows or would add, and with
 * `--history` every line any commit ever added.
 *
 * @module
 */

/** One suspicious place. The matching text itself is not repeated: logs are public too. */
export interface Finding {
  path: string;
  line: number;
  rule: string;
}

const ANYWHERE: Record<string, RegExp> = {
  "private key": /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----/,
  "age key": /\bAGE-SECRET-KEY-1[0-9A-Z]{50,}/,
  "cloud access key": /\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}\b/,
  "forge or registry token": /\b(?:gh[pousr]_|github_pat_|glpat-|npm_|jsr[dp]_)[A-Za-z0-9_]{20,}/,
  "chat token": /\bxox[abprs]-[A-Za-z0-9-]{10,}/,
  "signed web token": /\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}/,
};

/** 32 bytes or more, in hex or base64, given to a name that says it is secret. Test vectors are public by nature. */
const ASSIGNED =
  /(?:private|secret|seed|psk|passw)\w*["']?\s*[:=]\s*["'](?:[0-9a-fA-F]{64,}|[A-Za-z0-9+/_-]{43,}={0,2})["']/i;

const FILE_NAMES =
  /(?:^|\/)(?:id_(?:rsa|ecdsa|ed25519)|\.env|\.npmrc|\.netrc|[^/]+\.(?:key|p12|pfx|jks|kdbx|pem))$/;
/** Tests and known-answer vectors, which are public by nature. */
const TEST_FILE = /_(?:test|testing|kat)\.ts$|(?:^|\/)testdata\//;
const LIBRARY = /^(?:core|noise|transport|gateway|tickets|bitswap|overlay|examples)\/.*\.ts$|^mod\.ts$/;

/** Everything suspicious in one file. */
export function findSecrets(path: string, text: string): Finding[] {
  const found: Finding[] = [];
  const report = (line: number, rule: string): void => void found.push({ path, line, rule });
  if (FILE_NAMES.test(path)) report(0, "name of a key file");
  text.split("\n").forEach((line, i) => {
    for (const [rule, pattern] of Object.entries(ANYWHERE)) if (pattern.test(line)) report(i + 1, rule);
    if (TEST_FILE.test(path)) return;
    if (ASSIGNED.test(line)) report(i + 1, "key material in code");
    // Spreading retries is the one use that needs no secrecy; the line has to say that this is what it does.
    const code = line.replace(/^\s*(?:\/?\*|\/\/).*/, "");
    if (LIBRARY.test(path) && /\bMath\.random\b/.test(code) && !/\bjitter\b/i.test(code)) {
      report(i + 1, "Math.random for something else than jitter");
    }
  });
  return found;
}

/** Everything suspicious among the lines a `git log -p` says were added. */
export function findSecretsInPatch(patch: string): Finding[] {
  const found: Finding[] = [];
  let path = "";
  for (const line of patch.split("\n")) {
    if (line.startsWith("+++ ")) path = line.replace(/^\+\+\+ (?:b\/)?/, "");
    else if (line.startsWith("+")) {
      for (const [rule, pattern] of Object.entries(ANYWHERE)) {
        if (pattern.test(line)) found.push({ path, line: 0, rule: `${rule} (in history)` });
      }
    }
  }
  return found;
}

async function git(...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("git", { args }).output();
  if (!success) throw new Error(`git ${args[0]}: ${new TextDecoder().decode(stderr).trim()}`);
  return new TextDecoder().decode(stdout);
}

if (import.meta.main) {
  const found: Finding[] = [];
  let files = 0;
  for (const path of (await git("ls-files", "-z", "-co", "--exclude-standard")).split("\0")) {
    if (path === "") continue;
    let bytes: Uint8Array;
    try {
      bytes = await Deno.readFile(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue; // deleted, not yet committed
      throw error;
    }
    files++;
    found.push(...findSecrets(path, new TextDecoder().decode(bytes)));
  }
  if (Deno.args.includes("--history")) {
    found.push(...findSecretsInPatch(await git("log", "-p", "-U0", "--no-color", "--no-ext-diff", "--all")));
  }
  for (const { path, line, rule } of found) console.error(`${path}:${line}: ${rule}`);
  console.log(`${files} files scanned, ${found.length} finding${found.length === 1 ? "" : "s"}`);
  if (found.length > 0) Deno.exit(1);
}
