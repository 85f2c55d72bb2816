/**
 * The choice of a backend, made once. This module is browser compatible.
 *
 * @module
 */

import type { CryptoBackend, CryptoChoice } from "./crypto.ts";
import { answersKnown } from "./crypto_kat.ts";
import { NativeCrypto, type NodeCryptoModule } from "./crypto_native.ts";
import { NobleCrypto } from "./crypto_noble.ts";
import { SplitCrypto } from "./crypto_small.ts";
import { HtxError } from "./errors.ts";

/** Finds backends when they are first asked for, and keeps them: at import nothing is computed. */
export class CryptoSelector {
  readonly #findNode: () => NodeCryptoModule | undefined;
  /** `null` = looked, and not usable. */
  #native: CryptoBackend | null | undefined;
  #noble: CryptoBackend | undefined;
  #auto: CryptoBackend | undefined;

  /** `findNode` is asked at most once. */
  constructor(findNode: () => NodeCryptoModule | undefined) {
    this.#findNode = findNode;
  }

  /** See `selectCrypto` of crypto.ts. */
  select(choice: CryptoChoice): CryptoBackend {
    switch (choice) {
      case "noble":
        return this.#noble ??= new NobleCrypto();
      case "native": {
        const native = this.#findNative();
        if (native !== null) return native;
        throw new HtxError(
          "UNSUPPORTED",
          "Cannot use native cryptography: this runtime has no node:crypto that passes its known-answer test; " +
            'choose "auto" or "noble"',
        );
      }
      case "auto":
        return this.#auto ??= new SplitCrypto(this.#findNative() ?? new NobleCrypto({ webCryptoKem: true }));
      default:
        throw new TypeError('Cannot select cryptography: the choice is none of "auto", "native", "noble"');
    }
  }

  #findNative(): CryptoBackend | null {
    if (this.#native === undefined) {
      const module = this.#findNode();
      const candidate = module === undefined ? null : new NativeCrypto(module);
      this.#native = candidate !== null && answersKnown(candidate) ? candidate : null;
    }
    return this.#native;
  }
}
