/**
 * An answer that brings a session cookie is its client's alone: a cache in front that kept it would let everybody in.
 *
 * @module
 */

/** Fields that speak to caches in front and go before `cache-control` (RFC 9213, and its forerunner). */
const TARGETED: readonly string[] = /* @__PURE__ */ ["cdn-cache-control", "surrogate-control"];
/** Directives that let a shared cache keep an answer (RFC 9111 §5.2.2). */
const SHARED = /^(?:public|s-maxage|proxy-revalidate)(?:=|$)/i;
const PRIVATE = /^(?:private|no-store)$/i;

/** The fields of an answer, changed so that no shared cache keeps it (RFC 9111 §3); a browser may, as before. */
export function privately(fields: readonly (readonly [string, string])[]): [string, string][] {
  const directives: string[] = [];
  const others: [string, string][] = [];
  for (const [name, value] of fields) {
    if (name === "cache-control") directives.push(...directivesOf(value));
    else if (!TARGETED.includes(name)) others.push([name, value]);
  }
  const left = directives.filter((directive) => !SHARED.test(directive));
  if (!left.some((directive) => PRIVATE.test(directive))) left.push("private");
  return [...others, ["cache-control", left.join(", ")]];
}

/** A quote that is not closed hides nothing behind it here: what a cache might read there is looked at. */
function directivesOf(value: string): string[] {
  const parts = value.match(/(?:"(?:\\.|[^"\\])*"|[^,"])+/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}
