/**
 * Structural equality as `@std/assert` understands it: `0` equals `-0`, `NaN` equals `NaN`, an absent property is not
 * an `undefined` one, a null-prototype object equals a plain one, and instances of different classes differ.
 */
export function equal(a: unknown, b: unknown): boolean {
  return compare(a, b, new Map());
}

function compare(a: unknown, b: unknown, seen: Map<object, object>): boolean {
  if (Object.is(a, b) || (typeof a === "number" && a === b)) return true;
  if (!isObject(a) || !isObject(b) || classOf(a) !== classOf(b)) return false;
  if (a instanceof Date && b instanceof Date) return Object.is(a.getTime(), b.getTime());
  if (a instanceof RegExp || a instanceof URL) return String(a) === String(b);
  if (a instanceof WeakMap || a instanceof WeakSet) {
    throw new TypeError(`cannot compare ${classOf(a).name} instances`);
  }
  if (a instanceof Error && b instanceof Error && (a.name !== b.name || a.message !== b.message)) {
    return false;
  }
  if (ArrayBuffer.isView(a) && ArrayBuffer.isView(b)) return equalViews(a, b);
  if (a instanceof ArrayBuffer && b instanceof ArrayBuffer) {
    return equalViews(new Uint8Array(a), new Uint8Array(b));
  }
  if (seen.get(a) === b) return true; // a cycle met again: decided by the rest
  seen.set(a, b);
  if (a instanceof Set && b instanceof Set) {
    return a.size === b.size && everyHasTwin([...a], [...b], (x, y) => compare(x, y, seen));
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && everyHasTwin([...a], [...b], (x, y) => compare(x, y, seen));
  }
  const keys = ownEnumerableKeys(a);
  if (keys.length !== ownEnumerableKeys(b).length) return false;
  if (Array.isArray(a) && Array.isArray(b) && a.length !== b.length) return false;
  return keys.every((key) => key in b && compare(Reflect.get(a, key), Reflect.get(b, key), seen));
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** The class an object counts as; without a prototype it counts as a plain one. */
function classOf(value: object): { name: string } {
  return value.constructor ?? Object;
}

function ownEnumerableKeys(value: object): PropertyKey[] {
  return Reflect.ownKeys(value).filter((key) => Object.prototype.propertyIsEnumerable.call(value, key));
}

function equalViews(a: ArrayBufferView, b: ArrayBufferView): boolean {
  if (a.byteLength !== b.byteLength) return false;
  if (a instanceof Float32Array && b instanceof Float32Array) return a.every((x, i) => equal(x, b[i]));
  if (a instanceof Float64Array && b instanceof Float64Array) return a.every((x, i) => equal(x, b[i]));
  const x = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const y = new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  return x.every((byte, i) => byte === y[i]);
}

/** Whether the elements of two equally long lists pair up, in any order. */
function everyHasTwin<T>(a: T[], b: T[], same: (x: T, y: T) => boolean): boolean {
  const left = b.slice();
  return a.every((x) => {
    const i = left.findIndex((y) => same(x, y));
    if (i < 0) return false;
    left.splice(i, 1);
    return true;
  });
}
