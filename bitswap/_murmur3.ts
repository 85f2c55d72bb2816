const MASK = 0xffff_ffff_ffff_ffffn;
const C1 = 0x87c3_7b91_1142_53d5n;
const C2 = 0x4cf5_ad43_2745_937fn;

/**
 * MurmurHash3 x64-128 with seed 0, its first 64 bits: what places a name in a sharded directory of UnixFS
 * (multicodec `murmur3-x64-64`). It resists nobody: names of one hash are easily made.
 *
 * By Austin Appleby, https://github.com/aappleby/smhasher, public domain.
 */
export function murmur3x64(bytes: Uint8Array): bigint {
  const tail = bytes.length % 16;
  // The last block is filled up with zeros, which change nothing in how a tail is mixed in.
  const padded = new Uint8Array(bytes.length + 16 - tail);
  padded.set(bytes);
  const view = new DataView(padded.buffer);
  let h1 = 0n;
  let h2 = 0n;
  for (let at = 0; at < padded.length; at += 16) {
    const k1 = multiply(rotate(multiply(view.getBigUint64(at, true), C1), 31n), C2);
    const k2 = multiply(rotate(multiply(view.getBigUint64(at + 8, true), C2), 33n), C1);
    h1 ^= k1;
    if (at + 16 === padded.length) {
      h2 ^= k2;
      break;
    }
    h1 = add(multiply(add(rotate(h1, 27n), h2), 5n), 0x52dc_e729n);
    h2 ^= k2;
    h2 = add(multiply(add(rotate(h2, 31n), h1), 5n), 0x3849_5ab5n);
  }
  const length = BigInt(bytes.length);
  h1 ^= length;
  h2 ^= length;
  h1 = add(h1, h2);
  h2 = add(h2, h1);
  return add(finish(h1), finish(h2));
}

function add(a: bigint, b: bigint): bigint {
  return (a + b) & MASK;
}

function multiply(a: bigint, b: bigint): bigint {
  return (a * b) & MASK;
}

function rotate(a: bigint, by: bigint): bigint {
  return ((a << by) | (a >> (64n - by))) & MASK;
}

function finish(a: bigint): bigint {
  a = multiply(a ^ (a >> 33n), 0xff51_afd7_ed55_8ccdn);
  a = multiply(a ^ (a >> 33n), 0xc4ce_b9fe_1a85_ec53n);
  return a ^ (a >> 33n);
}
