/**
 * The table of README.md from the JSON lines of scripts/cuda/bench.sh. `npx tsx bench/cuda/table.ts lines.jsonl …`
 *
 * Lines of the same figure are taken together: medians, and the least and the most of all their rounds.
 */
import { readFileSync } from 'node:fs';
import { spread, type Spread } from '../statistics.js';

/** What a line may hold of what is used here. */
export interface Line {
  card?: string | null;
  driver?: string | null;
  stage?: string;
  /** A peer's; absent in our own lines. */
  engine?: string;
  versions?: Record<string, string | null>;
  model?: string;
  int4?: boolean;
  layers?: number;
  state?: string;
  what?: string;
  batch?: number;
  tokens?: number;
  length?: number;
  /** Of a training step, where all rows did not fit into memory at once. */
  rows_at_once?: number;
  /** An object in lines about compiling. */
  ms?: number[] | Record<string, number>;
  ms_token?: number[];
  memory_mb?: number | null;
  failed?: string;
}

/** JSON lines; other lines are passed over. */
export function parseLines(text: string): Line[] {
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return [];
    try {
      return [JSON.parse(line) as Line];
    } catch {
      return []; // cut off when its process was stopped
    }
  });
}

type Kind = 'decode' | 'call' | 'prefill' | 'train';

interface RowKey {
  model: string;
  int4: boolean;
  kind: Kind;
  batch: number;
  /** One row decoded with states in bfloat16: our own lines alone say so. */
  narrow: boolean;
}

const ENGINES = ['transformers', 'transformers + kernels', 'mamba_ssm'] as const;
const OURS = 'ours';

/** What is to be passed, in tokens a second. */
const BARS: Record<string, number> = {
  '130m decode 1': 2500,
  '130m prefill 1': 300_000,
  '130m train 8': 150_000,
  '2.7b decode 1': 400,
  '2.7b decode 64': 8000,
  '7b decode 1': 180,
  '7b prefill 1': 25_000,
  '7b int4 decode 1': 450,
};

function kindOf(what: string): Kind | null {
  if (what === 'prefill') return 'prefill';
  if (what === 'training step') return 'train';
  if (what === 'decode, a call a token') return 'call';
  return what === 'decode' || what.startsWith('decode, blocks') ? 'decode' : null;
}

/** Tokens of all rows in one of the measured pieces of work. */
function tokensOf(line: Line, kind: Kind): number {
  const batch = line.batch ?? 1;
  if (kind === 'prefill') return batch * (line.tokens ?? 0);
  return kind === 'train' ? batch * (line.length ?? 0) : batch;
}

/** Rounds of one figure of one engine. */
class Figure {
  readonly rounds: number[] = [];
  tokens = 0;
  memoryMb: number | null = null;
  last!: Line;
  readonly failures: Line[] = [];

  add(line: Line, kind: Kind): void {
    if (line.failed) {
      this.failures.push(line);
      return;
    }
    const tokens = tokensOf(line, kind);
    // a shorter prompt, or a shorter row, is another figure: the largest that was measured stays
    if (tokens < this.tokens) return;
    if (tokens > this.tokens) this.rounds.length = 0;
    this.tokens = tokens;
    const rounds = line.ms_token ?? line.ms;
    if (Array.isArray(rounds)) this.rounds.push(...rounds);
    this.memoryMb = line.memory_mb ?? this.memoryMb;
    this.last = line;
  }

  /** Milliseconds; null if nothing was measured. */
  get ms(): Spread | null {
    return this.rounds.length ? spread(this.rounds) : null;
  }

  get rate(): Spread | null {
    const { ms, tokens } = this;
    return ms && { median: (tokens * 1000) / ms.median, min: (tokens * 1000) / ms.max, max: (tokens * 1000) / ms.min };
  }
}

export interface Row extends RowKey {
  figures: Map<string, Figure>;
}

/** What is measured, whatever states are stored in. */
const workOf = ({ model, int4, kind, batch }: Omit<RowKey, 'narrow'>): string =>
  `${model}${int4 ? ' int4' : ''} ${kind} ${batch}`;
const nameOf = (row: RowKey): string => `${workOf(row)}${row.narrow ? ' narrow' : ''}`;

const isNarrow = ({ engine, state, batch = 1 }: Line, kind: Kind): boolean =>
  kind === 'decode' && batch === 1 && !engine && state === 'bfloat16';

/** All figures, a row for each thing that was measured, in the order of the table. */
export function rowsOf(lines: readonly Line[]): Row[] {
  const rows = new Map<string, Row>();
  for (const line of lines) {
    const kind = kindOf(line.what ?? '');
    if (!kind || !line.model || line.layers !== undefined) continue;
    const key = {
      ...{ model: line.model, int4: line.int4 ?? false, kind, batch: line.batch ?? 1 },
      narrow: isNarrow(line, kind),
    };
    const row = rows.get(nameOf(key)) ?? { ...key, figures: new Map<string, Figure>() };
    rows.set(nameOf(key), row);
    const engine = line.engine ?? OURS;
    const figure = row.figures.get(engine) ?? new Figure();
    row.figures.set(engine, figure);
    figure.add(line, kind);
  }
  // our lines about compiling come after a batch's figures and say what memory was taken; of several batches all have their states there from the start
  const compiled = lines.filter(({ what, engine, model }) => what === 'compile' && !engine && model);
  for (const line of compiled) {
    const { stage, model, int4, batch, memory_mb } = line;
    const alone = compiled.every((other) => other.stage !== stage || other.model !== model || other.batch === batch);
    const key = { model: model!, int4: int4 ?? false, kind: 'decode', batch: batch ?? 1 } as const;
    const row = rows.get(nameOf({ ...key, narrow: isNarrow(line, 'decode') }));
    const figure = row?.figures.get(OURS);
    if (figure && alone) figure.memoryMb = memory_mb ?? null;
  }
  // mamba_ssm's states are in bfloat16 too
  for (const row of rows.values()) {
    const peer = row.narrow ? rows.get(workOf(row))?.figures.get('mamba_ssm') : undefined;
    if (peer) row.figures.set('mamba_ssm', peer);
  }
  const models = ['130m', '2.7b', '7b'];
  const kinds: Kind[] = ['decode', 'call', 'prefill', 'train'];
  const rank = (row: Row): number[] => [
    models.indexOf(row.model),
    Number(row.int4),
    Number(row.batch > 1 && row.kind === 'decode'),
    kinds.indexOf(row.kind),
    row.batch,
    Number(row.narrow),
  ];
  return [...rows.values()].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    const at = x.findIndex((value, i) => value !== y[i]);
    return at < 0 ? 0 : x[at]! - y[at]!;
  });
}

const count = (value: number): string =>
  value >= 1000
    ? Math.round(Number(value.toPrecision(4))).toLocaleString('en-US')
    : String(Number(value.toPrecision(4)));
const milliseconds = (value: number): string => Number(value.toPrecision(3)).toString();
const gigabytes = (mb: number | null): string => (mb === null ? '' : `; ${(mb / 1000).toFixed(1)} GB`);

function describe({ kind, batch, narrow, figures }: Row): string {
  const { last } = figures.get(OURS) ?? [...figures.values()][0]!;
  switch (kind) {
    case 'prefill':
      return `prefill of ${count(last?.tokens ?? 0)}, batch ${batch}`;
    case 'train':
      return `training step ${batch} x ${count(last?.length ?? 0)}`;
    case 'call':
      return `decode, batch ${batch}, one call a token`;
    case 'decode':
      return `decode, batch ${batch}${last?.what?.startsWith('decode, ') ? last.what.slice('decode'.length) : ''}${narrow ? ', states in bf16' : ''}`;
  }
}

function ours(figure: Figure | undefined, kind: Kind): string {
  if (!figure) return '';
  const { rate, ms } = figure;
  if (!rate || !ms) return figure.failures.at(-1)?.failed ?? '';
  const each =
    kind === 'prefill' || kind === 'train' ? `${milliseconds(ms.median)} ms` : `${milliseconds(ms.median)} ms a token`;
  const { state, batch = 1 } = figure.last;
  const states = kind === 'decode' && batch > 1 && state === 'bfloat16' ? ', states in bf16' : '';
  return `${count(rate.median)} tok/s (${each}; ${count(rate.min)}–${count(rate.max)}${gigabytes(figure.memoryMb)}${states})`;
}

function peer(figure: Figure | undefined, own: Figure | undefined, kind: Kind): string {
  if (!figure) return '';
  const { rate } = figure;
  const failed = figure.failures.at(-1)?.failed;
  if (!rate) return failed ?? '';
  const notes: string[] = [];
  if (own?.rate) notes.push(`${Number((own.rate.median / rate.median).toPrecision(3))} x`);
  const { last } = figure;
  if (kind === 'prefill' && own && last.tokens !== own.last?.tokens)
    notes.push(`a prompt of ${count(last.tokens ?? 0)}: ${failed ?? ''} with more`);
  if (kind === 'train' && last.rows_at_once !== undefined && last.rows_at_once < (last.batch ?? 0))
    notes.push(`${last.rows_at_once} rows at once: ${failed ?? ''} with more`);
  if (kind === 'decode' && figure.ms) notes.push(`${milliseconds(figure.ms.median)} ms`);
  const inside = `${notes.join(', ')}${gigabytes(figure.memoryMb)}`.replace(/^; /, '');
  return `${count(rate.median)}${inside && ` (${inside})`}`;
}

/** The table in markdown, with a line above it that says what it was measured on, and what failed below it. */
export function table(lines: readonly Line[]): string {
  const cards = [...new Set(lines.flatMap(({ card, driver }) => (card ? [`${card}, driver ${driver}`] : [])))];
  const versions = new Map<string, string>();
  for (const { engine, versions: own } of lines)
    if (engine && own)
      versions.set(
        engine,
        Object.entries(own)
          .flatMap(([name, value]) => (value ? [`${name} ${value}`] : []))
          .join(', '),
      );
  const rows = rowsOf(lines).map((row) => {
    const own = row.figures.get(OURS);
    const bar = BARS[workOf(row)];
    return [
      `${row.model} ${row.int4 ? 'int4' : 'bf16'}`,
      describe(row),
      ours(own, row.kind),
      bar === undefined ? '' : count(bar),
      ...ENGINES.map((engine) => peer(row.figures.get(engine), own, row.kind)),
    ];
  });
  const head = ['model', 'what', 'this package', 'bar', ...ENGINES];
  const stages = lines.filter(({ what, failed }) => what === 'stage' && failed);
  return [
    `${cards.join('; ')}. ${[...versions].map(([engine, text]) => `${engine}: ${text}`).join('; ')}.`,
    '',
    `| ${head.join(' | ')} |`,
    `|${'---|'.repeat(head.length)}`,
    // an empty cell is one space wide, and a model's name stands in its first row alone
    ...rows.map(
      (cells, i) =>
        `|${cells.map((cell, k) => (k === 0 && cell === rows[i - 1]?.[0] ? ' ' : cell ? ` ${cell} ` : ' ')).join('|')}|`,
    ),
    ...(stages.length ? ['', ...stages.map(({ stage, failed }) => `${stage}: ${failed}`)] : []),
  ].join('\n');
}

if (process.argv[1]?.endsWith('table.ts'))
  console.log(table(process.argv.slice(2).flatMap((path) => parseLines(readFileSync(path, 'utf8')))));
