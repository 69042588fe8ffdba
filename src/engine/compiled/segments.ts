/** In which pieces a prompt is read: programs exist for a few lengths, and the last piece is masked. */
import { letOthersRun } from '../../base/async.js';
import { onGpu } from '../../runtime/index.js';

/** What a call costs besides its tokens, in tokens of one row. */
const CALL = 16;

/** The same of so many rows. To launch the layers of a model takes a GPU about as long as to read 128 tokens, of whichever rows. */
export const callTokens = (rows: number, gpu: boolean): number => (gpu ? Math.max(CALL, 128 / rows) : CALL);

/** The cheapest cover of `left` tokens: its cost, and its first segment. */
function cheapest(left: number, segments: readonly number[], call: number): { cost: number; first: number } {
  const covering = segments.find((t) => t >= left);
  const filled = segments.filter((t) => t < left).pop();
  const whole = covering === undefined ? null : { cost: covering + call, first: covering };
  if (filled === undefined) return whole!;
  if (whole === null) return { cost: Infinity, first: filled }; // longer than any segment: what follows does not matter
  const rest = filled + call + cheapest(left - filled, segments, call).cost;
  return rest < whole.cost ? { cost: rest, first: filled } : whole;
}

/**
 * The segment to run next: a masked one costs as much as a full one, so that a rest is read in smaller segments where those take
 * fewer tokens in all.
 * @param left tokens to read, at least 1
 * @param segments lengths there are programs for, ascending
 * @param call tokens that a call counts as besides its own, see callTokens
 */
export function segmentFor(left: number, segments: readonly number[], call = CALL): number {
  return cheapest(left, segments, call).first;
}

/** Of prompts that are read together each piece is shorter: many rows of it are as many tokens. */
export const readerSegments = (segments: readonly number[], gpu: boolean): readonly number[] =>
  gpu ? [64, 256] : [segments.findLast((t) => t <= 64) ?? segments[0]!];

/**
 * Fewest prompts that so many readers read sooner than one after another. All readers run, whoever reads: a GPU is bound by launching layers, and
 * a CPU by multiplying (measured at 130m: eight of 64 ids take as long as five one by one).
 */
export const fewestTogether = (readers: number, gpu: boolean): number =>
  Math.max(2, Math.floor(gpu ? readers / 8 : (3 * readers) / 4) + Number(gpu));

/** A segment of some rows: what was read. */
export interface SegmentRead {
  /** Tokens of each row, and whether they are its last. */
  readonly counts: readonly number[];
  readonly ended: readonly boolean[];
  /** The segment's length. */
  readonly t: number;
  /** Tokens of the longest row before it, after it, and in all. */
  readonly begin: number;
  readonly done: number;
  readonly total: number;
}

/** What reads segments. */
export interface SegmentReader<Out> {
  /** Called before each segment; what it throws ends the reading. */
  before(): void;
  call(t: number, inputs: { ids: Int32Array; mask: Float32Array; ends: Float32Array }): Promise<Out>;
  after(out: Out, read: SegmentRead): void | Promise<void>;
}

/** Reads rows of ids in segments, side by side; between two of them the event loop may run. */
export async function readSegments<Out>(
  rows: readonly Int32Array[],
  segments: readonly number[],
  reader: SegmentReader<Out>,
): Promise<void> {
  const b = rows.length;
  const total = Math.max(...rows.map((row) => row.length));
  const cost = callTokens(b, onGpu());
  for (let begin = 0; begin < total;) {
    reader.before();
    const t = segmentFor(total - begin, segments, cost);
    const ids = new Int32Array(b * t); // [b, t], as the others
    const mask = new Float32Array(b * t);
    const ends = new Float32Array(b * t);
    const counts = rows.map((row) => Math.min(Math.max(row.length - begin, 0), t));
    const ended = rows.map((row, i) => begin + counts[i]! === row.length);
    rows.forEach((row, i) => {
      ids.set(row.subarray(begin, begin + counts[i]!), i * t);
      mask.fill(1, i * t, i * t + counts[i]!);
      if (counts[i]! > 0 && ended[i]) ends[i * t + counts[i]! - 1] = 1;
    });
    const out = await reader.call(t, { ids, mask, ends });
    const done = Math.min(begin + t, total);
    await reader.after(out, { counts, ended, t, begin, done, total });
    begin += t;
    // between segments the event loop may run: that is where an abort is seen, or a dispose
    if (begin < total) await letOthersRun();
  }
}
