/** Bytes over a buffer of their own: what the decoders return. */
export type Uint8Array_ = ReturnType<Uint8Array["slice"]>;

/** The bytes of a text or buffer, without a copy where there are bytes already. */
export function toBytes(src: string | Uint8Array | ArrayBuffer): Uint8Array {
  if (typeof src === "string") return new TextEncoder().encode(src);
  if (src instanceof Uint8Array) return src;
  if (src instanceof ArrayBuffer) return new Uint8Array(src);
  throw new TypeError("Cannot validate the input as it must be a Uint8Array, a string, or an ArrayBuffer");
}

/** Bytes of base64 in either alphabet. White space, which the runtime's method skips, is refused as the package does. */
export function fromBase64(text: string, alphabet: "base64" | "base64url"): Uint8Array_ {
  const bad = /\s/u.exec(text);
  if (bad) throw new TypeError(`Cannot decode input as ${alphabet}: Invalid character (${bad[0]})`);
  try {
    return Uint8Array.fromBase64(text, { alphabet });
  } catch (cause) {
    throw new TypeError(
      `Cannot decode input as ${alphabet}: ${cause instanceof Error ? cause.message : cause}`,
      {
        cause,
      },
    );
  }
}
