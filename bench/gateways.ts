/**
 * Gateways in front of one and the same application, under the load of wrk. They stand for the whole run; each
 * round goes through every load, and within it through every gateway.
 *
 * @module
 */

import type { OpenGroup, Step, Work } from "./groups.ts";
import { INSTALL } from "./peers.ts";
import {
  Child,
  type Command,
  denoRun,
  known,
  type Measurement,
  ROOT,
  startServer,
  usageOf,
} from "./process.ts";

interface Gateway {
  readonly variant: string;
  readonly port: number;
  /** Processes between the load and the answer. */
  readonly pids: readonly number[];
}

/** Connections of a load that warms a gateway up. */
const WARM_CONNECTIONS = 64;
const MEBIBYTE = 2 ** 20;
const role = (name: string): URL => new URL(`bench/roles/${name}`, ROOT);

/** Starts the application three times, and what stands in front of it. */
export async function openGateways(work: Work): Promise<OpenGroup> {
  const { peers } = work;
  const stack = new AsyncDisposableStack();
  const skipped: { variant: string; why: string }[] = [];
  const gateways: Gateway[] = [];
  const wrk = peers.program("wrk");
  const start = async (script: string, args: readonly string[]) => {
    const { child, info } = await startServer(denoRun(role(script), args));
    stack.use(child);
    return { info, port: Number(JSON.parse(info).port), pids: [child.pid] };
  };
  const listen = async (command: Command, port: number) => {
    const child = stack.use(new Child(command));
    await opened(port, child);
    return child.pid;
  };
  const add = async (
    variant: string,
    missing: string | undefined,
    open: () => Promise<Omit<Gateway, "variant">>,
  ) => {
    if (missing !== undefined) return void skipped.push({ variant, why: missing });
    try {
      gateways.push({ variant, ...await open() });
    } catch (error) {
      skipped.push({ variant, why: error instanceof Error ? error.message : `${error}` });
    }
  };
  try {
    if (wrk === undefined || peers.missing("wrk") !== undefined) {
      return {
        steps: [],
        skipped: [{ variant: "htx", why: `wrk: ${peers.missing("wrk")}` }],
        [Symbol.asyncDispose]: () => stack.disposeAsync(),
      };
    }
    const plain = await start("http_upstream.ts", ["plain"]);
    const htx = await start("http_upstream.ts", ["htx"]);
    const { tls } = peers;
    const sealed = tls && await start("http_upstream.ts", ["tls", tls.certificate, tls.key]);
    const noTls = sealed === undefined ? "no certificate, and no openssl to make one" : undefined;

    await add("htx", undefined, async () => {
      const { port, pids } = await start("http_gateway.ts", [htx.info]);
      return { port, pids: [...pids, ...htx.pids] };
    });
    await add("hand", undefined, async () => {
      const upstream = await start("hand_gateway.ts", ["upstream"]);
      const { port, pids } = await start("hand_gateway.ts", ["gateway", upstream.info]);
      return { port, pids: [...pids, ...upstream.pids] };
    });
    for (const version of ["h1", "h2"]) {
      await add(`proxy-${version}`, noTls, async () => {
        const { port, pids } = await start("http_proxy.ts", [`${sealed!.port}`, version, tls!.certificate]);
        return { port, pids: [...pids, ...sealed!.pids] };
      });
    }
    const nginx = peers.program("nginx");
    await add("nginx", noTls ?? peers.missing("nginx"), async () => {
      const port = freePort();
      const pid = await listen(await nginxCommand(nginx!, peers.scratch, port, sealed!.port), port);
      return { port, pids: [pid, ...sealed!.pids] };
    });
    const [ssh, sshd] = [peers.program("ssh"), peers.program("sshd")];
    const [userKey, hostKey] = [peers.file("certs/ssh"), peers.file("certs/sshhost")];
    const noKeys = userKey === undefined || hostKey === undefined ? INSTALL : undefined;
    const noSsh = peers.missing("ssh") ?? peers.missing("sshd") ?? noKeys;
    await add("ssh", noSsh, async () => {
      const [daemonPort, port] = [freePort(), freePort()];
      const commands = await sshCommands({
        ssh: ssh!,
        sshd: sshd!,
        userKey: userKey!,
        hostKey: hostKey!,
        scratch: peers.scratch,
        daemonPort,
        port,
        target: plain.port,
      });
      const pids = [await listen(commands[0], daemonPort), await listen(commands[1], port)];
      return { port, pids: [...pids, ...plain.pids] };
    });
    await add("direct", undefined, () => Promise.resolve(plain));

    const steps: Step[] = [];
    const warm = new Set<string>();
    for (const phase of work.phases) {
      const [kind = "", connections = ""] = phase.split("-c");
      for (const gateway of gateways) {
        const apply = (what: string, count: number, seconds: number) =>
          load(wrk, gateway, what, count, seconds);
        steps.push({
          variant: gateway.variant,
          run: async () => {
            // A gateway runs for days, a program for a few seconds until its functions are compiled; and what stood still
            // while the others were measured has been made small by its garbage collector.
            if (!warm.has(gateway.variant)) {
              await apply("get16", WARM_CONNECTIONS, Math.min(3, 3 * work.seconds));
            }
            warm.add(gateway.variant);
            await apply(kind, Number(connections), Math.min(1, work.seconds));
            return [{ phase, values: await apply(kind, Number(connections), work.seconds) }];
          },
        });
      }
    }
    return { steps, skipped, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

async function load(
  wrk: string,
  gateway: Gateway,
  kind: string,
  connections: number,
  seconds: number,
): Promise<Measurement["values"]> {
  const post = kind === "post1m";
  const path = kind === "get16" ? "/small" : kind === "get1m" ? "/big" : "/post";
  let line = "";
  const before = usageOf(gateway.pids);
  await using child = new Child({
    command: wrk,
    args: [
      "-t1",
      `-c${connections}`,
      `-d${Math.max(1, Math.round(seconds))}s`,
      "--timeout",
      "10s",
      "-s",
      decodeURIComponent(role("wrk.lua").pathname),
      `http://127.0.0.1:${gateway.port}${path}`,
    ],
    env: post ? { HTX_BENCH_POST: `${MEBIBYTE}` } : {},
  }, (text) => {
    if (text.startsWith("JSON ")) line = text.slice(5);
  });
  await child.finished();
  if (line === "") throw new Error(`wrk said nothing: ${child.errorText}`);
  const { requests, us, p50us, p90us, p99us, errors } = JSON.parse(line);
  if (errors > 0) throw new Error(`${errors} of ${requests} requests failed`);
  const rps = requests / us * 1e6;
  return {
    rps,
    ...kind === "get16" ? {} : { MBps: rps * MEBIBYTE / 1e6 },
    p50us,
    p90us,
    p99us,
    ...known({ cpuMsPerRequest: (usageOf(gateway.pids).cpu - before.cpu) * 1000 / Math.max(1, requests) }),
  };
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

/** Waits until somebody listens. */
async function opened(port: number, child: Child): Promise<void> {
  let ended = false;
  child.finished().then(() => ended = true);
  for (let i = 0; i < 100 && !ended; i++) {
    try {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error(`does not listen: ${child.errorText}`);
}

async function nginxCommand(
  nginx: string,
  scratch: string,
  port: number,
  upstream: number,
): Promise<Command> {
  const file = `${scratch}/nginx.conf`;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${scratch}/nginx-${name};`).join("\n");
  await Deno.writeTextFile(
    file,
    `daemon off;
worker_processes 1;
pid ${scratch}/nginx.pid;
error_log ${scratch}/nginx.log;
${Deno.uid() === 0 ? "user root;" : ""}
events { worker_connections 1024; }
http {
  access_log off;
  client_max_body_size 8m;
${temporary}
  keepalive_requests 1000000;
  upstream application {
    server 127.0.0.1:${upstream};
    keepalive 64;
    keepalive_requests 1000000;
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass https://application;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_buffers 16 64k;
    }
  }
}
`,
  );
  return { command: nginx, args: ["-p", scratch, "-c", file, "-e", `${scratch}/nginx.log`] };
}

interface SshOptions {
  readonly ssh: string;
  readonly sshd: string;
  readonly userKey: string;
  readonly hostKey: string;
  readonly scratch: string;
  readonly daemonPort: number;
  readonly port: number;
  readonly target: number;
}

/** A daemon that is started as root insists on this folder of its own. */
function sshdFolder(): void {
  if (Deno.uid() !== 0) return;
  try {
    if (Deno.statSync("/run/sshd").isDirectory) return;
  } catch { /* it is not there */ }
  try {
    Deno.mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
  } catch (error) {
    throw new Error("/run/sshd is missing, deno task bench:install makes it", { cause: error });
  }
}

/** One ChaCha20-Poly1305 session that all connections share, as ours do. */
async function sshCommands(options: SshOptions): Promise<[Command, Command]> {
  const { ssh, sshd, userKey, hostKey, scratch, daemonPort, port, target } = options;
  const authorized = `${scratch}/authorized_keys`;
  sshdFolder();
  const own = async (path: string, name: string) => { // ssh takes keys only from files that nobody else can read
    const copy = `${scratch}/${name}`;
    await Deno.writeTextFile(copy, await Deno.readTextFile(path), { mode: 0o600 });
    return copy;
  };
  await own(`${userKey}.pub`, "authorized_keys");
  const [user, host] = [await own(userKey, "ssh_user"), await own(hostKey, "ssh_host")];
  await Deno.writeTextFile(
    `${scratch}/sshd.conf`,
    [
      "ListenAddress 127.0.0.1",
      `Port ${daemonPort}`,
      `HostKey ${host}`,
      `AuthorizedKeysFile ${authorized}`,
      "PidFile none",
      "StrictModes no",
      "UsePAM no",
      "PasswordAuthentication no",
      "PermitRootLogin prohibit-password",
      "AllowTcpForwarding yes",
      "MaxSessions 200",
      "",
    ].join("\n"),
  );
  const name = Deno.uid() === 0 ? "root" : Deno.env.get("USER") ?? "nobody";
  const set = (option: string) => ["-o", option];
  return [
    { command: sshd, args: ["-D", "-e", "-f", `${scratch}/sshd.conf`] },
    {
      command: ssh,
      args: [
        ...["-F", "none", "-N", "-p", `${daemonPort}`, "-i", user, "-c", "chacha20-poly1305@openssh.com"],
        ...set("IdentitiesOnly=yes"),
        ...set("StrictHostKeyChecking=no"),
        ...set(`UserKnownHostsFile=${scratch}/known_hosts`),
        ...set("ExitOnForwardFailure=yes"),
        ...["-L", `127.0.0.1:${port}:127.0.0.1:${target}`, `${name}@127.0.0.1`],
      ],
    },
  ];
}
