/** Logs of a run: log.jsonl, TensorBoard event files, and the loss curve as a picture. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { writeFileAtomic } from '../base/whole_files.js';
import type { ArgumentFields } from './arguments_table.js';
import type { LogEntry } from './callbacks.js';

const LOG_FILE = 'log.jsonl';
const CURVE_FILE = 'loss.svg';

/** log.jsonl: one entry per line. A resumed run drops the entries after its snapshot and goes on. */
class JsonlLog {
  private readonly file: string;
  constructor(dir: string) {
    this.file = path.join(dir, LOG_FILE);
  }

  async begin(history: readonly LogEntry[]): Promise<void> {
    await writeFileAtomic(this.file, history.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
  }

  append(entry: LogEntry): void {
    fs.appendFileSync(this.file, `${JSON.stringify(entry)}\n`);
  }
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0x82f63b78 ^ (c >>> 1) : c >>> 1;
  return c;
});

/** CRC-32C, rotated and shifted as TFRecord files have it. */
export function maskedCrc32c(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) c = crcTable[(c ^ byte) & 255]! ^ (c >>> 8);
  c = ~c >>> 0;
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
}

function varint(value: number): number[] {
  const out: number[] = [];
  let v = value;
  while (v >= 128) {
    out.push((v % 128) + 128);
    v = Math.floor(v / 128);
  }
  return [...out, v];
}

const bytesField = (field: number, bytes: readonly number[] | Uint8Array): number[] => [
  field * 8 + 2,
  ...varint(bytes.length),
  ...bytes,
];

function double(value: number): number[] {
  return [...new Uint8Array(Float64Array.of(value).buffer)];
}

/** An event file that TensorBoard reads. Works on every backend. */
export class TensorBoardLog {
  private readonly file: string;

  /** @param dir of the run @param runs the folder of the file itself; default runs/ in `dir` */
  constructor(dir: string, runs = path.join(dir, 'runs')) {
    fs.mkdirSync(runs, { recursive: true });
    const stamp = String(Math.floor(Date.now() / 1000)).padStart(10, '0');
    this.file = path.join(runs, `events.out.tfevents.${stamp}.${os.hostname()}.${process.pid}`);
    this.record(bytesField(3, new TextEncoder().encode('brain.Event:2')), 0);
  }

  /** Each number of an entry as a scalar of its name. */
  append(entry: LogEntry): void {
    for (const [name, value] of Object.entries(entry)) {
      if (name === 'step') continue;
      const tag = name.startsWith('eval_') ? `eval/${name.slice(5)}` : `train/${name}`;
      const scalar = [
        ...bytesField(1, new TextEncoder().encode(tag)),
        2 * 8 + 5,
        ...new Uint8Array(Float32Array.of(value).buffer),
      ];
      this.record(bytesField(5, bytesField(1, scalar)), entry.step);
    }
  }

  private record(content: readonly number[], step: number): void {
    const event = Uint8Array.from([1 * 8 + 1, ...double(Date.now() / 1000), 2 * 8, ...varint(step), ...content]);
    const out = Buffer.alloc(16 + event.length);
    out.writeBigUInt64LE(BigInt(event.length), 0);
    out.writeUInt32LE(maskedCrc32c(out.subarray(0, 8)), 8);
    out.set(event, 12);
    out.writeUInt32LE(maskedCrc32c(event), 12 + event.length);
    fs.appendFileSync(this.file, out);
  }
}

type Folders = Pick<ArgumentFields, 'output_dir' | 'logging_dir'>;

/** The logs of a run: log.jsonl always, event files where they are asked for. */
export class RunLogs {
  private constructor(
    private readonly jsonl: JsonlLog,
    private readonly events: TensorBoardLog | null,
  ) {}

  /** @param history entries that a resumed run had before */
  static async open(
    { output_dir, logging_dir, report_to }: Folders & Pick<ArgumentFields, 'report_to'>,
    history: readonly LogEntry[],
  ): Promise<RunLogs> {
    const dir = logging_dir ?? output_dir;
    await fs.promises.mkdir(dir, { recursive: true });
    const jsonl = new JsonlLog(dir);
    await jsonl.begin(history);
    const wanted = report_to === 'all' || [report_to].flat().includes('tensorboard');
    return new RunLogs(jsonl, wanted ? new TensorBoardLog(dir, logging_dir ?? undefined) : null);
  }

  append(entry: LogEntry): void {
    this.jsonl.append(entry);
    this.events?.append(entry);
  }
}

/** Writes loss.svg beside log.jsonl. */
export async function writeCurve({ output_dir, logging_dir }: Folders, history: readonly LogEntry[]): Promise<void> {
  await writeFileAtomic(path.join(logging_dir ?? output_dir, CURVE_FILE), lossCurve(history));
}

/** Round steps of an axis: 1, 2 or 5 times a power of ten. */
function ticks(low: number, high: number): number[] {
  const raw = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw)!;
  const out: number[] = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step / 1e6; v += step) out.push(Number(v.toPrecision(10)));
  return out;
}

/** Training and evaluation loss over steps as an SVG picture. */
export function lossCurve(history: readonly LogEntry[]): string {
  const series = [
    { key: 'loss', colour: '#1f77b4', label: 'training' },
    { key: 'eval_loss', colour: '#d62728', label: 'evaluation' },
  ].map((s) => ({
    ...s,
    points: history.filter((e) => Number.isFinite(e[s.key])).map((e) => [e.step, e[s.key]!] as const),
  }));
  const all = series.flatMap(({ points }) => points);
  const [width, height, left, right, top, bottom] = [720, 420, 64, 16, 32, 48];
  const xs = all.map(([x]) => x);
  const ys = all.map(([, y]) => y);
  // a long run has more points than a call has arguments
  const least = (of: readonly number[], start: number): number => of.reduce((a, b) => Math.min(a, b), start);
  const most = (of: readonly number[], start: number): number => of.reduce((a, b) => Math.max(a, b), start);
  const [x0, x1] = [least(xs, 0), most(xs, 1)];
  const [y0, y1] = all.length ? [least(ys, Infinity), most(ys, -Infinity)] : [0, 1];
  const pad = (y1 - y0) * 0.05 || 0.5;
  const X = (x: number): number => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const Y = (y: number): number => height - bottom - ((y - (y0 - pad)) / (y1 - y0 + 2 * pad)) * (height - top - bottom);
  const n = (v: number): string => v.toFixed(1);
  const grid = [
    ...ticks(x0, x1).map(
      (x) =>
        `<line x1="${n(X(x))}" y1="${top}" x2="${n(X(x))}" y2="${height - bottom}"/><text x="${n(X(x))}" y="${height - bottom + 18}" text-anchor="middle">${x}</text>`,
    ),
    ...ticks(y0 - pad, y1 + pad).map(
      (y) =>
        `<line x1="${left}" y1="${n(Y(y))}" x2="${width - right}" y2="${n(Y(y))}"/><text x="${left - 8}" y="${n(Y(y) + 4)}" text-anchor="end">${y}</text>`,
    ),
  ];
  const lines = series
    .filter(({ points }) => points.length > 0)
    .map(({ points, colour, label }, i) => {
      const path_ = points.map(([x, y]) => `${n(X(x))},${n(Y(y))}`).join(' ');
      const dots =
        points.length < 40
          ? points.map(([x, y]) => `<circle cx="${n(X(x))}" cy="${n(Y(y))}" r="2.5" fill="${colour}"/>`).join('')
          : '';
      return `<polyline points="${path_}" fill="none" stroke="${colour}" stroke-width="2"/>${dots}<text x="${left + 8 + i * 110}" y="${top - 12}" fill="${colour}">${label}</text>`;
    });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12"><rect width="${width}" height="${height}" fill="#fff"/><g stroke="#ddd" fill="#444">${grid.join('').replaceAll('<text', '<text stroke="none"')}</g>${lines.join('')}<text x="${(left + width - right) / 2}" y="${height - 10}" text-anchor="middle" fill="#444">step</text></svg>\n`;
}
