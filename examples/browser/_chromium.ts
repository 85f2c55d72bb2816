/**
 * Drives the page in headless Chromium and prints what it saw as one line of JSON. A process of its own, since
 * Playwright asks for every permission there is:
 *
 *     deno run -A --no-lock examples/browser/_chromium.ts URL OTHER_URL BYTES [SHOTS]
 *
 * The page is loaded through a small proxy, so that its connection can be cut where a network would cut it. OTHER_URL is
 * another server of the page, which takes the first one's place as after a restart. With SHOTS, a folder, pictures are
 * left there. Exit status 77: Chromium or Playwright is absent; why is on stderr.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** Named in a variable, so that neither the check nor the lock file asks for it. */
const PLAYWRIGHT = "npm:playwright-core@1.65.1";
const CHROMIUM = "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--headless",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-precise-memory-info",
];
const SKIPPED = 77;
const STEP_TIMEOUT_MS = 30_000;
const LOOK_EVERY_MS = 20;

/** What the page showed, step by step. */
export interface Seen {
  readonly title: string;
  readonly state: string;
  readonly handshake: string;
  readonly protocol: string;
  readonly ownKey: string;
  readonly serverKey: string;
  /** Of `/hello`, as the page shows it. */
  readonly hello: string;
  /** Of a path that is not there. */
  readonly nowhere: string;
  /** Two looks at the counter of server-sent events. */
  readonly counter: readonly [number, number];
  readonly received: FileSeen;
  readonly sent: FileSeen;
  readonly ownFile: FileSeen;
  /** Of both directions after the transfers; that one more can be asked for was seen too. */
  readonly rekeys: number;
  readonly roundTrip: string;
  /** Bytes of the heap: before the transfers, and the most that was seen meanwhile. */
  readonly heap: readonly [before: number, most: number];
  /** After the connection was cut in the network, while nothing answered. */
  readonly cut: { readonly state: string; readonly alert: string; readonly transfer: string };
  /** After the network was back. */
  readonly again: { readonly hello: string; readonly connection: string; readonly alertHidden: boolean };
  /** After the server was replaced by one with other keys. */
  readonly replaced: { readonly serverKey: string; readonly log: string };
  /** After "Cut the connection". */
  readonly button: { readonly connection: string; readonly log: string };
  /** Messages of errors in the console, breaches of the page's policy among them. */
  readonly complaints: readonly string[];
  /** Addresses of everything that was loaded, without its query. */
  readonly loaded: readonly string[];
}

/** A transfer as the page shows it. */
export interface FileSeen {
  readonly result: string;
  readonly text: string;
  readonly here: string;
  readonly there: string;
  readonly verdict: string;
  /** How far the progress bar was, 0 to 1, at each of several looks. */
  readonly progress: readonly number[];
}

interface Playwright {
  readonly chromium: {
    launch(options: { executablePath: string; args: readonly string[] }): Promise<Browser>;
  };
}
interface Browser {
  newPage(options: { viewport: { width: number; height: number }; colorScheme: string }): Promise<Page>;
  close(): Promise<void>;
}
interface Page {
  goto(url: string): Promise<unknown>;
  title(): Promise<string>;
  on(event: "console" | "request" | "pageerror" | "websocket", listener: (value: Seeable) => void): void;
  evaluate<T>(script: string): Promise<T>;
  click(selector: string): Promise<void>;
  fill(selector: string, value: string): Promise<void>;
  setInputFiles(
    selector: string,
    file: { name: string; mimeType: string; buffer: Uint8Array },
  ): Promise<void>;
  emulateMedia(options: { colorScheme: string }): Promise<void>;
  setViewportSize(size: { width: number; height: number }): Promise<void>;
  screenshot(options: { path: string; fullPage: boolean }): Promise<unknown>;
}
interface Seeable {
  type?(): string;
  text?(): string;
  url?(): string;
  readonly message?: string;
}

/** A TCP proxy in front of one of several ports. */
class Proxy implements AsyncDisposable {
  /** Where it leads; `undefined` where every connection is refused. */
  target: number | undefined;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.TcpConn>();
  readonly #tasks = new Set<Promise<unknown>>();

  constructor(target: number) {
    this.target = target;
    this.#track(this.#accept());
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Breaks every connection. */
  cut(): void {
    for (const conn of this.#open) close(conn);
    this.#open.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await Promise.all(this.#tasks);
  }

  async #accept(): Promise<void> {
    for await (const conn of this.#listener) {
      if (this.target === undefined) close(conn);
      else this.#track(this.#join(conn, this.target));
    }
  }

  async #join(near: Deno.TcpConn, port: number): Promise<void> {
    this.#open.add(near);
    const far = await Deno.connect({ hostname: "127.0.0.1", port });
    this.#open.add(far);
    await Promise.race([copy(near, far), copy(far, near)]).catch(() => {});
    for (const conn of [near, far]) {
      this.#open.delete(conn);
      close(conn);
    }
  }

  #track(task: Promise<unknown>): void {
    this.#tasks.add(task);
    task.catch(() => {}).finally(() => this.#tasks.delete(task)); // it was closed
  }
}

async function copy(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(65_536);
  for (;;) {
    const length = await from.read(buffer);
    if (length === null) return;
    for (let at = 0; at < length;) at += await to.write(buffer.subarray(at, length));
  }
}

function close(conn: Deno.TcpConn): void {
  try {
    conn.close();
  } catch {
    // the other side was first
  }
}

async function look(
  page: Page,
  proxy: Proxy,
  otherPort: number,
  size: number,
  shots: string | undefined,
): Promise<Seen> {
  const complaints: string[] = [];
  const loaded = new Set<string>();
  let expecting = false;
  page.on("console", (message) => {
    if (message.type?.() === "error" && !expecting) complaints.push(message.text?.() ?? "");
  });
  page.on("pageerror", (error) => complaints.push(error.message ?? String(error)));
  for (const event of ["request", "websocket"] as const) {
    page.on(event, (request) => loaded.add(String(request.url?.()).split("?")[0]!));
  }
  const text = (id: string) => page.evaluate<string>(`document.getElementById("${id}").textContent`);
  // The page's policy forbids the `eval` that Playwright's own waiting is made of.
  const until = async (script: string) => {
    const late = performance.now() + STEP_TIMEOUT_MS;
    while (!await page.evaluate<boolean>(script)) {
      if (performance.now() > late) {
        throw new Error(`It never came to this: ${script}\n${complaints.join("\n")}\n${await text("log")}`);
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  };
  const open = () => until(`document.getElementById("state").dataset.state === "open"`);
  const helloIsThere = () =>
    until(`document.getElementById("fetch-body").textContent.includes("hello from")`);
  const counter = async () => Number(await text("counter"));
  const shoot = async (name: string) => {
    if (shots !== undefined) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
  };

  await page.goto(`http://127.0.0.1:${proxy.port}/`);
  await open();
  await helloIsThere();
  const first = {
    title: await page.title(),
    state: await text("state"),
    handshake: `${await text("handshake")}: ${await text("handshake-parts")}`,
    protocol: await text("protocol"),
    ownKey: await text("own-key"),
    serverKey: await text("server-key"),
    hello: await text("fetch-body"),
  };

  await until(`document.getElementById("counter").textContent !== "–"`);
  const count = await counter();
  await until(`Number(document.getElementById("counter").textContent) > ${count}`);
  const counted: [number, number] = [count, await counter()];

  await page.fill("#path", "/nowhere");
  await page.click("#fetch-form button");
  await until(`document.getElementById("fetch-status").textContent.startsWith("404")`);
  const nowhere = await text("fetch-status");
  await page.fill("#path", "/hello");

  // A size of the test's own, beside those that a person chooses from.
  await page.evaluate(`document.getElementById("size").append(new Option("test", "${size}", true, true))`);
  const heapNow = () => page.evaluate<number>("performance.memory.usedJSHeapSize");
  const before = await heapNow();
  let most = before;
  const moved = async (direction: "receive" | "send"): Promise<FileSeen> => {
    const row = `document.getElementById("${direction}-row")`;
    const progress: number[] = [];
    const started = performance.now();
    while (performance.now() - started < STEP_TIMEOUT_MS * 2) {
      const now = await page.evaluate<[number, string, number]>(
        `[document.getElementById("${direction}-progress").value, ${row}.dataset.result, performance.memory.usedJSHeapSize]`,
      );
      if (progress.at(-1) !== now[0]) progress.push(now[0]);
      most = Math.max(most, now[2]);
      if (now[1] !== "moving") break;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
    return {
      result: await page.evaluate<string>(`${row}.dataset.result`),
      text: await text(`${direction}-text`),
      here: await text(`${direction}-here`),
      there: await text(`${direction}-there`),
      verdict: await text(`${direction}-verdict`),
      progress,
    };
  };
  await page.click("#receive");
  const received = await moved("receive");
  await page.click("#send");
  if (shots !== undefined) {
    await until(`document.getElementById("send-progress").value > 0.2`);
    await shoot("moving");
  }
  const sent = await moved("send");
  await page.setInputFiles("#file", {
    name: "note.txt",
    mimeType: "text/plain",
    buffer: Buffer.from("abc"),
  });
  const ownFile = await moved("send");
  const rekeys = Number(await text("rekeys"));
  await page.click("#rekey");
  await until(`Number(document.getElementById("rekeys").textContent) > ${rekeys}`);
  await until(`document.getElementById("round-trip").textContent !== "–"`);
  const roundTrip = await text("round-trip");
  await shoot("light");
  if (shots !== undefined) {
    await page.emulateMedia({ colorScheme: "dark" });
    await shoot("dark");
    await page.setViewportSize({ width: 390, height: 844 });
    await shoot("narrow");
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.emulateMedia({ colorScheme: "light" });
  }

  // The network breaks in the middle of a transfer, and refuses everything for a while.
  expecting = true;
  await page.evaluate(`document.getElementById("size").append(new Option("long", "1073741824", true, true))`);
  await page.click("#send");
  await until(`document.getElementById("send-progress").value > 0`);
  const near = proxy.target;
  proxy.target = undefined;
  proxy.cut();
  await until(`!document.getElementById("alert").hidden`);
  await until(`document.getElementById("send-row").dataset.result === "failed"`);
  const alert = await text("alert-title");
  const transfer = await text("send-verdict");
  await until(`document.getElementById("alert").textContent.includes("Trying again in")`);
  await shoot("broken");
  await until(`document.getElementById("log").textContent.includes("The server does not answer.")`);
  const cut = { state: await text("state"), alert, transfer };
  proxy.target = near;
  await open();
  await helloIsThere();
  const again = {
    hello: await text("fetch-body"),
    connection: await text("connected"),
    alertHidden: await page.evaluate<boolean>(`document.getElementById("alert").hidden`),
  };

  // A restarted server has other keys.
  proxy.target = otherPort;
  proxy.cut();
  await until(`document.getElementById("server-key").textContent !== "${first.serverKey}"`);
  await open();
  const replaced = { serverKey: await text("server-key"), log: await text("log") };

  await page.click("#cut");
  await until(`document.getElementById("connected").textContent.includes("connection 4")`);
  const button = { connection: await text("connected"), log: await text("log") };
  await shoot("again");
  return {
    ...first,
    counter: counted,
    nowhere,
    received,
    sent,
    ownFile,
    rekeys,
    roundTrip,
    heap: [before, most],
    cut,
    again,
    replaced,
    button,
    complaints,
    loaded: [...loaded].map((url) => url.replace(/^(?:http|ws):\/\/127\.0\.0\.1:[0-9]+/, "")),
  };
}

function isPlaywright(module: unknown): module is Playwright {
  return typeof module === "object" && module !== null && "chromium" in module;
}

function skip(why: string): never {
  console.error(why);
  Deno.exit(SKIPPED);
}

if (import.meta.main) {
  const [url = "", otherUrl = "", size = "", shots] = Deno.args;
  await Deno.stat(CHROMIUM).catch(() => skip(`there is no ${CHROMIUM}`));
  const playwright: unknown = await import(PLAYWRIGHT).catch((error) =>
    skip(`playwright-core is not to be had: ${String(error).split("\n")[0]}`)
  );
  if (!isPlaywright(playwright)) skip("playwright-core is another one than expected");
  await using proxy = new Proxy(Number(new URL(url).port));
  const browser = await playwright.chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
    console.log(JSON.stringify(await look(page, proxy, Number(new URL(otherUrl).port), Number(size), shots)));
  } finally {
    await browser.close();
  }
}
