/**
 * Stand-in for `jsr:@std/cli/parse-args`: the options and conventions of the real package, less dotted names (which
 * there make nested objects). Not published.
 *
 * @module
 */

type Names = string | undefined;
type NameList<T extends Names> = T | ReadonlyArray<Extract<T, string>>;
type AliasMap = { readonly [name: string]: string | ReadonlyArray<string> };

/** How {@linkcode parseArgs} reads its arguments. */
export interface ParseOptions<
  TBooleans extends boolean | Names = boolean | Names,
  TStrings extends Names = Names,
  TCollectable extends Names = Names,
  TNegatable extends Names = Names,
  TDefault extends Record<string, unknown> | undefined = Record<string, unknown> | undefined,
  TAliases extends AliasMap | undefined = AliasMap | undefined,
  TDoubleDash extends boolean | undefined = boolean | undefined,
> {
  /** Whether what follows `--` goes to `result["--"]` instead of `result._`. @default {false} */
  "--"?: TDoubleDash;
  /** Other names of an option. */
  alias?: TAliases;
  /** Options without a value; `true` makes every `--name` without `=` one. All start as `false`. */
  boolean?: TBooleans | ReadonlyArray<Extract<TBooleans, string>>;
  /** Values of options that are not given. */
  default?: TDefault & Record<string, unknown>;
  /** Whether everything after the first positional argument is positional. @default {false} */
  stopEarly?: boolean;
  /** Options whose value stays text, numeric or not. */
  string?: NameList<TStrings>;
  /** Options that may be repeated; all their values are kept, in an array. */
  collect?: NameList<TCollectable>;
  /** Options that `--no-name` sets to `false`. */
  negatable?: NameList<TNegatable>;
  /** Called for each argument not named above; when it returns `false` the argument is left out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

type Base<B, S extends Names, C extends Names, N extends Names> =
  & { [K in Extract<B, string> as K extends C ? never : K]: boolean }
  & { [K in Extract<B, string> as K extends C ? K : never]: boolean[] }
  & {
    [K in Extract<S, string> as K extends C ? never : K]?:
      | (K extends N ? string | false : string)
      | undefined;
  }
  & { [K in Extract<S, string> as K extends C ? K : never]: K extends N ? string[] | false : string[] }
  & {
    [K in Exclude<Extract<C, string>, Extract<B | S, string>>]: K extends N ? unknown[] | false : unknown[];
  };

type WithDefaults<V, D> = D extends Record<string, unknown> ?
    & Omit<V, keyof D>
    & { [K in keyof D]: K extends keyof V ? D[K] | NonNullable<V[K]> : unknown }
  : V;

type WithAliases<V, A> = {
  [
    K in keyof V as K extends keyof A
      ? K | (A[K] extends string ? A[K] : A[K] extends ReadonlyArray<infer E> ? E & string : never)
      : K
  ]: V[K];
};

type Flat<T> = { [K in keyof T]: T[K] };

type Values<B, S extends Names, C extends Names, N extends Names, D, A> =
  [Extract<B, string> | Extract<S | C, string>] extends [never] ? Record<string, unknown>
    : Record<string, unknown> & Flat<WithAliases<WithDefaults<Base<B, S, C, N>, D>, A>>;

/** What {@linkcode parseArgs} returns: the options by name, the positional arguments as `_`. */
export type Args<
  TArgs extends Record<string, unknown> = Record<string, unknown>,
  TDoubleDash extends boolean | undefined = undefined,
> =
  & TArgs
  & { _: Array<string | number> }
  & (true extends TDoubleDash ? { "--": string[] } : unknown);

/** Reads a command line by the conventions of minimist. */
export function parseArgs<
  TBooleans extends boolean | Names = undefined,
  TStrings extends Names = undefined,
  TCollectable extends Names = undefined,
  TNegatable extends Names = undefined,
  TDefault extends Record<string, unknown> | undefined = undefined,
  const TAliases extends AliasMap | undefined = undefined,
  TDoubleDash extends boolean | undefined = undefined,
>(
  args: string[],
  options: ParseOptions<TBooleans, TStrings, TCollectable, TNegatable, TDefault, TAliases, TDoubleDash> = {},
): Args<Values<TBooleans, TStrings, TCollectable, TNegatable, TDefault, TAliases>, TDoubleDash> {
  const result = parse(args, options);
  // The mapped type above describes what parse() fills in by name; TypeScript cannot follow that.
  return result as ReturnType<
    typeof parseArgs<TBooleans, TStrings, TCollectable, TNegatable, TDefault, TAliases, TDoubleDash>
  >;
}

function parse(args: string[], options: ParseOptions): Record<string, unknown> {
  const aliases = aliasTable(options.alias ?? {});
  const withAliases = (names: Iterable<string>): Set<string> =>
    new Set([...names].flatMap((name) => [name, ...(aliases.get(name) ?? [])]));
  const booleans = withAliases(typeof options.boolean === "boolean" ? [] : list(options.boolean));
  const strings = withAliases(list(options.string));
  const collected = withAliases(list(options.collect));
  const negatable = withAliases(list(options.negatable));
  const allBooleans = options.boolean === true;

  const positional: Array<string | number> = [];
  const found = new Map<string, unknown>();

  const doubleDash = args.indexOf("--");
  const rest = doubleDash < 0 ? [] : args.slice(doubleDash + 1);
  if (doubleDash >= 0) args = args.slice(0, doubleDash);

  function set(key: string, value: unknown, arg: string, collect = true): void {
    const known = booleans.has(key) || strings.has(key) || aliases.has(key) ||
      (allBooleans && /^--[^=]+$/.test(arg));
    if (!known && options.unknown?.(arg, key, value) === false) return;
    if (typeof value === "string" && !strings.has(key)) value = numeric(value);
    for (const name of [key, ...(aliases.get(key) ?? [])]) {
      if (!collect || !collected.has(name)) found.set(name, value);
      else found.set(name, [...asArray(found.get(name)), value]);
    }
  }
  const takesNoValue = (key: string): boolean => booleans.has(key);
  const bare = (key: string): string | true => strings.has(key) ? "" : true;

  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    const next = args[i + 1];
    if (!/^-./s.test(arg)) {
      if (options.unknown?.(arg) !== false) positional.push(strings.has("_") ? arg : numeric(arg));
      if (options.stopEarly) {
        positional.push(...args.slice(i + 1));
        break;
      }
      continue;
    }
    if (arg.startsWith("--")) {
      const equals = arg.indexOf("=", 3);
      if (equals > 0 && equals < arg.length - 1) {
        const key = arg.slice(2, equals);
        const value = arg.slice(equals + 1);
        set(key, takesNoValue(key) ? value !== "false" : value, arg);
        continue;
      }
      const key = arg.slice(2);
      if (key.startsWith("no-") && negatable.has(key.slice(3))) {
        set(key.slice(3), false, arg, false);
      } else if (!takesNoValue(key) && !allBooleans && next && !next.startsWith("-")) {
        set(key, next, arg);
        i++;
      } else if (next === "true" || next === "false") {
        set(key, next === "true", arg);
        i++;
      } else {
        set(key, bare(key), arg);
      }
      continue;
    }
    // -abc: letters one by one; a letter followed by =, a number or a sign takes the remainder as its value
    let taken = false;
    for (let j = 1; j < arg.length - 1; j++) {
      const letter = arg[j]!;
      const remainder = arg.slice(j + 1);
      if (remainder === "-") {
        set(letter, remainder, arg);
        continue;
      }
      const isLetter = /[A-Za-z]/.test(letter);
      if (isLetter && remainder.startsWith("=")) set(letter, remainder.slice(1), arg);
      else if (isLetter && /-?\d+(\.\d*)?(e-?\d+)?$/.test(remainder)) set(letter, remainder, arg);
      else if (/^\W/.test(remainder)) set(letter, remainder, arg);
      else {
        set(letter, bare(letter), arg);
        continue;
      }
      taken = true;
      break;
    }
    const last = arg.slice(-1);
    if (taken || last === "-") continue;
    if (next && !/^--?[^-]/.test(next) && !takesNoValue(last)) {
      set(last, next, arg);
      i++;
    } else if (next === "true" || next === "false") {
      set(last, next === "true", arg);
      i++;
    } else {
      set(last, bare(last), arg);
    }
  }

  for (const [key, value] of Object.entries(options.default ?? {})) {
    for (const name of [key, ...(aliases.get(key) ?? [])]) if (!found.has(name)) found.set(name, value);
  }
  for (const name of booleans) if (!found.has(name)) found.set(name, collected.has(name) ? [] : false);
  for (const name of strings) if (!found.has(name) && collected.has(name)) found.set(name, []);
  if (!options["--"]) positional.push(...rest);
  return {
    ...Object.fromEntries(found),
    _: positional,
    ...(options["--"] ? { "--": rest } : {}),
  };
}

/** Every name with the other names of the same option. */
function aliasTable(alias: AliasMap): Map<string, string[]> {
  const table = new Map<string, string[]>();
  for (const [name, others] of Object.entries(alias)) {
    const group = [name, ...(typeof others === "string" ? [others] : others)];
    for (const member of group) table.set(member, group.filter((other) => other !== member));
  }
  return table;
}

function list(names: string | boolean | ReadonlyArray<string> | undefined): string[] {
  if (names === undefined || typeof names === "boolean") return [];
  return typeof names === "string" ? [names] : names.filter(Boolean);
}

function asArray(value: unknown): unknown[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}

function numeric(text: string): string | number {
  return /^0x[0-9a-f]+$/i.test(text) || /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?$/.test(text)
    ? Number(text)
    : text;
}
