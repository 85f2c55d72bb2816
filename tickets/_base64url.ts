/**
 * Base64URL (RFC 4648 §5) with one spelling per value: no padding characters, no stray bits, nothing skipped.
 * What is used as an identity must not have a second spelling, and common decoders accept several.
 *
 * @module
 */

import type { Bytes } from "../core/mod.ts";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const VALUES = /* @__PURE__ */ (() => {
  const values = new Int8Array(128).fill(-1);
  for (let i = 0; i < ALPHABET.length; i++) values[ALPHABET.charCodeAt(i)] = i;
  return values;
})();

/** The unpadded Base64URL text of `bytes`. */
export function encodeBase64Url(bytes: Uint8Array): string {
  let out = "";
  let bits = 0;
  let held = 0;
  for (let i = 0; i < bytes.length; i++) {
    bits = (bits << 8) | bytes[i]!;
    held += 8;
    while (held >= 6) {
      held -= 6;
      out += ALPHABET[(bits >> held) & 63];
    }
    bits &= (1 << held) - 1;
  }
  return held === 0 ? out : out + ALPHABET[(bits << (6 - held)) & 63];
}

/** The bytes of a text that {@linkcode encodeBase64Url} could have made; `undefined` for any other. */
export function decodeBase64Url(text: string): Bytes | undefined {
  if (text.length % 4 === 1) return undefined;
  const out = new Uint8Array(Math.floor(text.length * 6 / 8));
  let at = 0;
  let bits = 0;
  let held = 0;
  for (let i = 0; i < text.length; i++) {
    const value = VALUES[text.charCodeAt(i)] ?? -1;
    if (value < 0) return undefined;
    bits = (bits << 6) | value;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out[at++] = bits >> held;
      bits &= (1 << held) - 1;
    }
  }
  return bits === 0 ? out : undefined; // RFC 4648 §3.5: stray bits would be a second spelling
}
