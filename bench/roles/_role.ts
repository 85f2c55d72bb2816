/**
 * What the benchmark roles share: the lines that they say, and how latencies are summed up.
 *
 * @module
 */

/** Seconds of a timed phase. */
export const SECONDS: number = Number(Deno.env.get("SECS") ?? 1);
/** Bytes of a bulk phase. */
export const TOTAL: number = Number(Deno.env.get("TOTAL") ?? 2 ** 28);
/** Bytes of a bulk write. */
export const CHUNK = 65_536;
/** Bytes of an echoed message. */
export const MESSAGE = 64;
/** Messages or requests outstanding where it is not one. */
export const DEPTH = 64;

/** One line for the driver. */
export function say(line: string): void {
  const bytes = new TextEncoder().encode(`${line}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

/** A phase: what `run` measured, between its two lines, with the growth of this process in bytes. */
export async function phase(
  name: string,
  run: () => Promise<Record<string, number>> | Record<string, number>,
): Promise<void> {
  say(`START ${name}`);
  const before = Deno.memoryUsage().rss;
  const values = await run();
  say(`END ${name} ${JSON.stringify({ ...values, rssClient: Deno.memoryUsage().rss - before })}`);
}

/** Requests per second, median and 99th percentile of latencies in ms. */
export function summary(latencies: number[], elapsedMs: number): Record<string, number> {
  latencies.sort((a, b) => a - b);
  const quantile = (q: number) => (latencies[Math.floor((latencies.length - 1) * q)] ?? NaN) * 1000;
  return { rps: latencies.length / elapsedMs * 1000, p50us: quantile(0.5), p99us: quantile(0.99) };
}

/** Runs `once` over and over in `workers` loops for `ms`. */
export async function repeat(
  ms: number,
  workers: number,
  once: () => Promise<void>,
): Promise<Record<string, number>> {
  const latencies: number[] = [];
  const start = performance.now();
  const worker = async () => {
    for (let now = performance.now(); now < start + ms;) {
      await once();
      const then = now;
      now = performance.now();
      latencies.push(now - then);
    }
  };
  await Promise.all(Array.from({ length: workers }, worker));
  return summary(latencies, performance.now() - start);
}
