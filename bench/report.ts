/**
 * From the measurements of a run to figures and ratios, and to a table of them.
 *
 * @module
 */

import { LABELS } from "./groups.ts";
import type { Row } from "./rows.ts";

/** One value of one variant in one round. */
export interface Sample {
  readonly group: string;
  readonly variant: string;
  readonly round: number;
  readonly phase: string;
  readonly values: Readonly<Record<string, number>>;
}

/** Median, least and greatest of a few figures. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** A variant in a row. */
export interface Figure extends Spread {
  readonly variant: string;
  readonly label: string;
  readonly runs: number;
}

/** A peer in a row. */
export interface PeerFigure extends Figure {
  /** How many times as good as the peer this library was, each round by itself. */
  readonly ratio: Spread;
  /** What it wants to be. */
  readonly goal?: number;
  readonly reached?: boolean;
}

/** A row with its figures. */
export interface ReportRow {
  readonly name: string;
  readonly title: string;
  readonly unit: Row["unit"];
  readonly better: Row["better"];
  readonly ours: Figure;
  readonly peers: readonly PeerFigure[];
  readonly atMost?: number;
  readonly reached?: boolean;
}

/** All of a run. */
export interface Report {
  readonly at: string;
  readonly machine: string;
  readonly runtime: string;
  readonly rounds: number;
  readonly seconds: number;
  readonly rows: readonly ReportRow[];
  readonly skipped: readonly { readonly group: string; readonly variant: string; readonly why: string }[];
  readonly failed: readonly { readonly group: string; readonly variant: string; readonly why: string }[];
  readonly samples: readonly Sample[];
}

/** Median, least and greatest. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

/** The figures of the rows that were measured. Ratios are of one round each, so that what slows all of it cancels out. */
export function reportRows(rows: readonly Row[], samples: readonly Sample[]): ReportRow[] {
  return rows.flatMap((row): ReportRow[] => {
    const byVariant = new Map<string, Map<number, number>>();
    for (const { group, variant, round, phase, values } of samples) {
      const value = values[row.value];
      if (group !== row.group || phase !== row.phase || value === undefined || !Number.isFinite(value)) {
        continue;
      }
      if (!byVariant.has(variant)) byVariant.set(variant, new Map());
      byVariant.get(variant)!.set(round, value);
    }
    const name = row.ours ?? "htx";
    const ours = byVariant.get(name);
    if (ours === undefined) return [];
    byVariant.delete(name);
    const figure = (variant: string, values: Map<number, number>): Figure => ({
      variant,
      label: LABELS[variant] ?? variant,
      runs: values.size,
      ...spreadOf([...values.values()]),
    });
    const peers = [...byVariant].flatMap(([variant, values]): PeerFigure[] => {
      const goal = row.goals?.find(({ peer }) => peer === variant)?.times;
      // Of our own variants only the one that a goal names stands beside another.
      if (variant.startsWith("htx") && goal === undefined) return [];
      const ratios = [...values].flatMap(([round, value]) => {
        const our = ours.get(round);
        return our === undefined ? [] : [row.better === "more" ? our / value : value / our];
      });
      if (ratios.length === 0) return [];
      const ratio = spreadOf(ratios);
      return [{
        ...figure(variant, values),
        ratio,
        ...goal === undefined ? {} : { goal, reached: ratio.median >= goal },
      }];
    });
    const { title, unit, better, atMost } = row;
    const our = figure(name, ours);
    return [{
      ...{ name: row.name, title, unit, better, ours: our, peers },
      ...atMost === undefined ? {} : { atMost, reached: our.median <= atMost },
    }];
  });
}

/** A figure in three digits or so. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 100) return `${Math.round(value)}`;
  return value.toFixed(size >= 10 ? 1 : 2);
}

/** The rows as a table for a terminal of 110 columns. */
export function table(report: Report): string {
  const lines: string[] = [];
  const cell = (value: number) => short(value).padStart(9);
  for (const row of report.rows) {
    lines.push("", `${`${row.title}, ${row.unit}`.padEnd(72)}   htx is … times as good   goal`);
    const figures = (figure: Figure) =>
      `  ${figure.label.padEnd(37)}${cell(figure.median)}${cell(figure.min)}${cell(figure.max)}`;
    const verdict = (reached: boolean | undefined) => reached ? "reached" : "missed";
    const bound = row.atMost === undefined ? "" : `${" ".repeat(34)}≤ ${row.atMost} ${verdict(row.reached)}`;
    lines.push(figures(row.ours) + bound);
    for (const peer of row.peers) {
      const { median, min, max } = peer.ratio;
      const goal = peer.goal === undefined ? "" : `   ≥ ${peer.goal} ${verdict(peer.reached)}`;
      lines.push(
        `${figures(peer)}    ${[median, min, max].map((x) => short(x).padStart(8)).join("")}${goal}`,
      );
    }
  }
  const notes = (title: string, list: Report["skipped"]) => {
    if (list.length === 0) return;
    lines.push("", title);
    for (const { group, variant, why } of list) {
      lines.push(`  ${group}: ${LABELS[variant] ?? variant}: ${why}`);
    }
  };
  notes("Skipped", report.skipped);
  notes("Failed", report.failed);
  const goals = report.rows.flatMap((row) => [row, ...row.peers]).filter(({ reached }) =>
    reached !== undefined
  );
  lines.push(
    "",
    `median, min and max of ${report.rounds} round${
      report.rounds === 1 ? "" : "s"
    }, ${report.seconds} s a phase; ` +
      `${goals.filter(({ reached }) => reached).length} of ${goals.length} goals reached`,
    `${report.machine}; ${report.runtime}`,
  );
  return lines.join("\n").trimStart();
}
