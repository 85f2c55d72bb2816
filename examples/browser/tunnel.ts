/// <reference lib="dom" />
/**
 * A tunnel that mends itself: one HTX connection over a WebSocket, opened anew with growing pauses whenever it breaks.
 *
 * @module
 */

import { fromHex, type HtxConnection, HtxError } from "@betanet/htx/core";
import { KeyPair } from "@betanet/htx/noise";
import { TICKET_POLICY_HEADER, TicketClient, TicketPolicy } from "@betanet/htx/tickets";
import { connectDuplex, dialWebSocket } from "@betanet/htx/transport";
import type { SiteConfig } from "./site.ts";

/** The first pause, the longest one, and how long an attempt and an answer may take, in ms. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 10_000;
const PING_EVERY_MS = 2_000;
const PING_TIMEOUT_MS = 10_000;

/** What a tunnel is doing. */
export type TunnelState =
  | { readonly kind: "connecting" }
  | { readonly kind: "open"; readonly connection: HtxConnection; readonly since: number }
  | {
    readonly kind: "waiting";
    readonly error: unknown;
    readonly attempts: number;
    readonly retryAt: number;
  };

/** Who is told. */
export interface TunnelEvents {
  /** Something changed. */
  state(state: TunnelState): void;
  /** Something worth a line in a log. */
  note(text: string): void;
}

/** See the module's text. */
export class Tunnel {
  /** Who this page is to the server: made with the page, gone with it. */
  readonly keyPair: KeyPair = KeyPair.generate();
  /** Connections made. */
  made = 0;
  readonly #events: TunnelEvents;
  #config: { readonly site: SiteConfig; readonly tickets: TicketClient; readonly url: URL } | undefined;
  #state: TunnelState = { kind: "connecting" };
  #wake: (() => void) | undefined;

  constructor(events: TunnelEvents) {
    this.#events = events;
  }

  /** What it is doing. */
  get state(): TunnelState {
    return this.#state;
  }

  /** The server's key, once it is known: 64 hexadecimal digits. */
  get serverKey(): string | undefined {
    return this.#config?.site.serverKey;
  }

  /**
   * The connection that is open now.
   *
   * @throws {HtxError} `CLOSED` when there is none
   */
  get connection(): HtxConnection {
    if (this.#state.kind === "open") return this.#state.connection;
    throw new HtxError("CLOSED", "There is no connection now");
  }

  /** Ends a pause: the next attempt begins now. */
  retryNow(): void {
    this.#wake?.();
  }

  /** Breaks the connection as a fault of the network would, to see what happens. */
  cut(): void {
    if (this.#state.kind === "open") this.#state.connection.abort();
  }

  /** Connects, and connects again, as long as the page is there. */
  async run(): Promise<never> {
    for (let attempts = 0;;) {
      let error: unknown;
      this.#set({ kind: "connecting" });
      try {
        const connection = await this.#connect();
        attempts = 0;
        this.made++;
        this.#set({ kind: "open", connection, since: performance.now() });
        error = await this.#untilBroken(connection);
      } catch (cause) {
        error = cause;
      }
      const pause = Math.min(FIRST_PAUSE_MS * 2 ** attempts, LONGEST_PAUSE_MS) *
        (0.75 + randomFraction() / 2);
      attempts++;
      this.#set({ kind: "waiting", error, attempts, retryAt: performance.now() + pause });
      await this.#pause(pause);
    }
  }

  async #connect(): Promise<HtxConnection> {
    const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS);
    await this.#configure(signal);
    const { site, tickets, url } = this.#config!;
    // A ticket is good once: each attempt has one of its own.
    const connection = await connectDuplex(dialWebSocket(tickets.addToUrl(url), { signal }), {
      remoteStatic: fromHex(site.serverKey),
      keyPair: this.keyPair,
      rekey: { afterBytes: 8 * 1024 ** 2 }, // a thousandth of what is allowed, for one to see it happen
      signal,
    });
    try {
      await connection.ping({ signal }); // that the server let this side in shows with its first frame
    } catch (error) {
      connection.abort();
      throw error;
    }
    return connection;
  }

  /**
   * Reads what the site says of its keys. They come from where this page's code came from, and are to be trusted as
   * much as it and no more; that is why a restarted server's new keys are taken. An application that is installed has
   * the key on board and leaves this out.
   */
  async #configure(signal: AbortSignal): Promise<void> {
    const response = await fetch("/config.json", { signal, cache: "no-store" }).catch((cause) => {
      throw new HtxError("CONNECT_FAILED", "The site cannot be reached", { cause });
    });
    if (!response.ok) throw new HtxError("CONNECT_FAILED", `The site answered ${response.status}`);
    const policy = TicketPolicy.parse(response.headers.get(TICKET_POLICY_HEADER) ?? "");
    const site = readConfig(await response.json());
    const old = this.#config?.site;
    if (old?.serverKey === site.serverKey && old.ticket.publicKey === site.ticket.publicKey) return;
    if (old !== undefined) {
      this.#events.note("The server has started anew, with other keys; they are taken over");
    }
    const { publicKey, keyId } = site.ticket;
    const tickets = new TicketClient({ publicKey: fromHex(publicKey), keyId: fromHex(keyId) }, { policy });
    const url = new URL(site.endpoint, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    this.#config = { site, tickets, url };
  }

  /** Settles with why the connection ended; asks it for a sign of life, since a broken road is silent. */
  async #untilBroken(connection: HtxConnection): Promise<unknown> {
    const timer = setInterval(() => {
      if (document.hidden) return; // timers of a hidden page are late, and would call a good connection dead
      connection.ping({ signal: AbortSignal.timeout(PING_TIMEOUT_MS) }).catch((error) => {
        if (connection.closing) return;
        connection.abort(
          new HtxError("TIMEOUT", "The server has not answered for ten seconds", { cause: error }),
        );
      });
    }, PING_EVERY_MS);
    try {
      const info = await connection.closed;
      if (info.code === "GOING_AWAY") return new HtxError("GOING_AWAY", "The server said goodbye");
      return new HtxError(
        "CLOSED",
        info.remote ? "The server ended the connection" : "The connection was cut here",
      );
    } catch (error) {
      return error;
    } finally {
      clearInterval(timer);
    }
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }

  #set(state: TunnelState): void {
    this.#state = state;
    this.#events.state(state);
  }
}

function readConfig(value: unknown): SiteConfig {
  const endpoint = text(value, "endpoint");
  const serverKey = text(value, "serverKey");
  const ticket = member(value, "ticket");
  return {
    endpoint,
    serverKey,
    ticket: { publicKey: text(ticket, "publicKey"), keyId: text(ticket, "keyId") },
  };
}

function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

function text(value: unknown, name: string): string {
  const found = member(value, name);
  if (typeof found !== "string") {
    throw new HtxError("MALFORMED", `The site's ${name} is missing`, { field: name });
  }
  return found;
}

/** For pauses that all pages of a site do not make at once. */
function randomFraction(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! / 2 ** 32;
}
