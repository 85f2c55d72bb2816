/**
 * The whole decision about a request: take its tickets and admission cookies out, admit it by one or the other, or
 * refuse it (HTX 1.1 §6).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { AdmissionCookies, AdmissionRefusal } from "./admission.ts";
import { extractTickets, type TicketRequestParts } from "./extract.ts";
import { DEFAULT_TICKET_COOKIE } from "./policy.ts";
import type { TicketRefusal, TicketVerifier, VerifyTicketOptions } from "./verifier.ts";

/** Options of {@linkcode TicketGate}. */
export interface TicketGateOptions {
  /** Verifies tickets. */
  readonly verifier: TicketVerifier;
  /** Stands for a ticket after the first request; without it every request needs a ticket. @default {undefined} */
  readonly admission?: AdmissionCookies | undefined;
  /** Name of the ticket's cookie. @default {"__Host-bn1"} */
  readonly cookie?: string | undefined;
}

/** The parts of a request as whoever stands behind the gate may see them. */
export interface GatedParts {
  /** Path and query without tickets. */
  readonly target: string;
  /** The `cookie` lines without tickets and admission cookies. */
  readonly cookies: readonly string[];
  /** The form without tickets; its `content-length` changes with it. */
  readonly form: Uint8Array | undefined;
}

/** What {@linkcode TicketGate.admit} decides. */
export type GateResult =
  | {
    /** The request may pass. */
    readonly ok: true;
    /** By what: a ticket, spent now, or an admission cookie. */
    readonly by: "ticket" | "admission";
    /** `set-cookie` value for the response: an admission, or its prolongation. */
    readonly setCookie?: string;
    /** The request without what let it in. */
    readonly parts: GatedParts;
  }
  | {
    /** The request gets the decoy. */
    readonly ok: false;
    /** Why; for logs and counters alone. */
    readonly reason: TicketRefusal;
    /** Why it has no admission either; without admission cookies, `missing`. */
    readonly admission: AdmissionRefusal;
    /** The request without tickets, whatever they were worth: the decoy has no use for them. */
    readonly parts: GatedParts;
  };

/**
 * Decides about requests. With a valid admission cookie tickets are taken out and not looked at, so that none is spent
 * for nothing.
 *
 * @example A visit
 * ```ts
 * import { AdmissionCookies, generateTicketKey, makeTicketQuery, TicketGate, TicketVerifier } from "@betanet/htx/tickets";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const key = generateTicketKey();
 * const gate = new TicketGate({
 *   verifier: new TicketVerifier({ keys: [key] }),
 *   admission: new AdmissionCookies({ keys: [crypto.getRandomValues(new Uint8Array(32))] }),
 * });
 *
 * const first = await gate.admit({ target: `/page?x=1&${makeTicketQuery(key)}` }, { address: "192.0.2.1" });
 * assert(first.ok && first.by === "ticket");
 * assertEquals(first.parts.target, "/page?x=1");
 *
 * const cookie = first.setCookie!.split(";")[0]!;
 * const second = await gate.admit({ target: "/style.css", cookies: [cookie] });
 * assert(second.ok && second.by === "admission");
 *
 * const stranger = await gate.admit({ target: "/page" });
 * assert(!stranger.ok && stranger.reason === "missing");
 * ```
 */
export class TicketGate {
  readonly #verifier: TicketVerifier;
  readonly #admission: AdmissionCookies | undefined;
  readonly #cookie: string;

  /** Makes a gate of a verifier and, if wanted, admission cookies. */
  constructor(options: TicketGateOptions) {
    this.#verifier = options.verifier;
    this.#admission = options.admission;
    this.#cookie = options.cookie ?? DEFAULT_TICKET_COOKIE;
  }

  /**
   * Decides about a request.
   *
   * @param parts as they came over the wire; read the form first where {@linkcode mayCarryTicket} says so
   * @returns never rejects: what goes wrong is a refusal
   */
  async admit(parts: TicketRequestParts, options: VerifyTicketOptions = {}): Promise<GateResult> {
    const { tickets, ...rest } = extractTickets(parts, this.#cookie);
    const admission = this.#admission?.take(rest.cookies);
    const session = admission?.result ?? { ok: false, reason: "missing" };
    const gated = admission === undefined ? rest : { ...rest, cookies: admission.rest };
    if (session.ok) {
      const { renewal } = session;
      return {
        ok: true,
        by: "admission",
        parts: gated,
        ...(renewal === undefined ? {} : { setCookie: renewal }),
      };
    }
    const result = await this.#verifier.verify(tickets, options);
    if (!result.ok) return { ok: false, reason: result.reason, admission: session.reason, parts: gated };
    const setCookie = this.#admission?.issue();
    return { ok: true, by: "ticket", parts: gated, ...(setCookie === undefined ? {} : { setCookie }) };
  }
}
