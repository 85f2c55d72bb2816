/** Helpers for the tests of this folder; nothing here is exported from the package. */

/** Vectors that lie beside the checkout; `undefined`, with a visible line, where they do not. */
export function sharedVectors<T>(name: string): T | undefined {
  const url = new URL(`../../shared/vectors/${name}`, import.meta.url);
  try {
    return JSON.parse(Deno.readTextFileSync(url)) as T;
  } catch {
    console.warn(`skipped: ${name} is not beside this checkout`);
    return undefined;
  }
}

/** Whether the long rows run. */
export function longRun(): boolean {
  return Deno.permissions.querySync({ name: "env", variable: "HTX_LONG" }).state === "granted" &&
    Deno.env.get("HTX_LONG") === "1";
}
