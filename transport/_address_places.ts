/**
 * Places that each address may hold.
 *
 * @module
 */

import { ipv4Of, parseIpAddress } from "../core/_ip_address.ts";
import { toHex } from "../core/mod.ts";

/** Bytes of an IPv6 address that stand for one host: whoever has one address there has all of the /64 (RFC 7934). */
const IPV6_HOST_BYTES = 8;

/** Counts what each address holds. */
export class AddressPlaces {
  readonly #most: number;
  readonly #taken: Map<string, number> = new Map();

  /** `most` places for an address; `Infinity` counts nothing. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Takes a place for `hostname`; what gives it back, once, or `undefined` where the address has none left. */
  take(hostname: string | undefined): (() => void) | undefined {
    if (this.#most === Infinity || hostname === undefined) return () => {};
    const host = hostOf(hostname);
    const taken = this.#taken.get(host) ?? 0;
    if (taken >= this.#most) return undefined;
    this.#taken.set(host, taken + 1);
    return () => {
      const left = this.#taken.get(host)! - 1;
      if (left > 0) this.#taken.set(host, left);
      else this.#taken.delete(host);
    };
  }
}

function hostOf(hostname: string): string {
  const bytes = parseIpAddress(hostname);
  if (bytes === undefined) return hostname;
  return toHex(ipv4Of(bytes) ?? bytes.subarray(0, IPV6_HOST_BYTES));
}
