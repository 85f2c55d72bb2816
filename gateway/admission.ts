/**
 * Who is let in: whoever shows a ticket, once, and then whoever shows the cookie that it was exchanged for. Tickets and
 * admission cookies end here: neither goes upstream, in whatever spelling (HTX 1.1 §6).
 *
 * @module
 */

import {
  AdmissionCookies,
  type AdmissionOptions,
  extractTickets,
  mayCarryTicket,
  takeFromCookies,
  takeFromTarget,
  TICKET_CARRIERS,
  TICKET_PARAMETER,
  type TicketCarrier,
  TicketPolicy,
  type TicketRefusal,
  TicketVerifier,
  type TicketVerifierOptions,
} from "../tickets/mod.ts";
import { refusalDelay } from "./_delay.ts";
import { DEFAULT_FORM_TIMEOUT_MS, readForm } from "./_form.ts";
import type { ClientFacts } from "./forwarded.ts";
import type { GatewayMetrics } from "./metrics.ts";
import type { ParsedRequest } from "./request.ts";

/** Options of admission by ticket. */
export interface TicketAdmissionOptions {
  /** Verifies tickets: one made before, or what to make it of. */
  verifier: TicketVerifier | TicketVerifierOptions;
  /** Carriers and the ticket cookie's name. @default {new TicketPolicy()} */
  policy?: TicketPolicy | undefined;
  /**
   * The session cookie that a ticket is exchanged for; `false` gives none. It is `Secure` with a `__Host-` name for whoever
   * came by https, as this front or a trusted proxy says, and a plain one otherwise, since browsers refuse those there.
   */
  session: Omit<AdmissionOptions, "secure"> | false;
  /** Milliseconds that a form which may hold a ticket has to arrive in. @default {10000} */
  formTimeoutMs?: number | undefined;
  /**
   * Makes every refusal wait for 0 to 2 ms, uniformly: covers what equal work of the verifier leaves, which is the
   * decoding of a ticket.
   *
   * @default {true}
   */
  delayRefusals?: boolean | undefined;
}

/** What admission found. */
export type AdmissionOutcome =
  | {
    readonly admitted: true;
    /** Path and query without tickets. */
    readonly target: string;
    /** The fields that go upstream; the page that `referer` names is without tickets, too. */
    readonly fields: [string, string][];
    /** The `cookie` lines without tickets and admission cookies. */
    readonly cookies: readonly string[];
    /** The body, where it had to be read; without tickets. */
    readonly body: Uint8Array | undefined;
    /** A `set-cookie` line for the answer. */
    readonly setCookie: string | undefined;
  }
  | {
    readonly admitted: false;
    /** Why; for counters and logs. */
    readonly reason: TicketRefusal;
    /** What was read of the body. */
    readonly body: Uint8Array | undefined;
  };

/** Decides who is let in. */
export class Admission {
  /** The verifier. */
  readonly verifier: TicketVerifier;
  /** The session cookies of requests by https, if there are any. */
  readonly secure: AdmissionCookies | undefined;
  /** The session cookies of requests by plain http, if there are any. */
  readonly plain: AdmissionCookies | undefined;
  /** The policy. */
  readonly policy: TicketPolicy;
  readonly #metrics: GatewayMetrics;
  readonly #formTimeoutMs: number;
  readonly #delay: boolean;
  readonly #carriers: readonly TicketCarrier[];

  /**
   * Made by the gateway.
   *
   * @throws {TypeError} when the ticket's cookie has the name of a session cookie
   */
  constructor(options: TicketAdmissionOptions, metrics: GatewayMetrics) {
    const { policy = new TicketPolicy(), verifier, session, formTimeoutMs = DEFAULT_FORM_TIMEOUT_MS } =
      options;
    this.policy = policy;
    this.#carriers = TICKET_CARRIERS.filter((carrier) => policy.carriers[carrier] > 0);
    this.verifier = verifier instanceof TicketVerifier
      ? verifier
      : new TicketVerifier({ carriers: this.#carriers, ...verifier });
    if (session !== false) {
      this.secure = new AdmissionCookies({ ...session, secure: true });
      this.plain = new AdmissionCookies({ ...session, secure: false });
      for (const { name } of [this.secure, this.plain]) {
        if (takeFromCookies(`${policy.cookie}=`, name).values.length > 0) {
          throw new TypeError(`Cannot make admission: ticket and session have one cookie, ${name}`);
        }
      }
    }
    this.#metrics = metrics;
    this.#formTimeoutMs = formTimeoutMs;
    this.#delay = options.delayRefusals ?? true;
  }

  /** Whether tickets in a carrier are taken. */
  takes(carrier: TicketCarrier): boolean {
    return this.#carriers.includes(carrier);
  }

  /** Decides about one request. Reads its body only if that may hold a ticket. */
  async judge(request: Request, parsed: ParsedRequest, client: ClientFacts): Promise<AdmissionOutcome> {
    const { address, scheme } = client;
    const [own, other] = scheme === "https" ? [this.secure, this.plain] : [this.plain, this.secure];
    const taken = own?.take(parsed.cookies);
    const cookies = taken === undefined ? parsed.cookies : other?.take(taken.rest).rest ?? taken.rest;
    let form: Uint8Array | undefined;
    const { method, contentType, contentLength, contentEncoding, transferEncoding } = parsed;
    if (mayCarryTicket({ method, contentType, contentLength, contentEncoding, transferEncoding })) {
      form = await readForm(request, Number(contentLength), this.#formTimeoutMs);
      if (form === undefined) {
        // Cut off or late: a ticket that is not all here is none.
        await this.verifier.verify([], { address });
        if (this.#delay) await refusalDelay();
        this.#metrics.tickets.malformed++;
        return { admitted: false, reason: "malformed", body: new Uint8Array(0) };
      }
    }
    const found = extractTickets({ target: parsed.path, cookies, form }, this.policy.cookie);
    const fields = parsed.fields.map(withoutTicket);
    const rest = { target: found.target, fields, cookies: found.cookies, body: found.form };
    if (taken?.result.ok === true) {
      this.#metrics.admissions++;
      return { admitted: true, ...rest, setCookie: taken.result.renewal };
    }
    const result = await this.verifier.verify(found.tickets, { address });
    if (!result.ok) {
      this.#metrics.tickets[result.reason]++;
      if (this.#delay) await refusalDelay();
      return { admitted: false, reason: result.reason, body: form };
    }
    this.#metrics.tickets.accepted++;
    return { admitted: true, ...rest, setCookie: own?.issue() };
  }
}

/** The address of the page that a ticket opened goes into the requests that the page makes. */
function withoutTicket([name, value]: [string, string]): [string, string] {
  return [name, name === "referer" ? takeFromTarget(value, TICKET_PARAMETER).rest : value];
}
