/**
 * The choice of a token in WGSL, by one workgroup for each row of a batch: the best id, the first of equals; or one drawn after temperature and top-k, by the rule of
 * EngineSampling: the first id at which the running sum of probabilities, in the order of ids, exceeds the number given.
 */
import { CONTROL, control, type ControlWord } from './control.js';
import type { WgslKernel } from './gpu.js';
import { numbered } from './text.js';

export interface ChoiceSpec {
  /** Scores. */
  readonly vocabulary: number;
  /** Drawn, or the best. */
  readonly drawn: boolean;
  /** Whether only the best so many are drawn from. */
  readonly topK: boolean;
  /** Rows of scores. */
  readonly batch: number;
  /** Places for ids, and for numbers that they are drawn by, of a row. */
  readonly most: number;
}

/** What is given in place of an id where none can be chosen: a score is NaN or Infinity, or no id is left. */
export const NO_CHOICE = { invalid: -1, none: -2 } as const;

const THREADS = 256;

/** A word of the workgroup's row. */
const own = (name: ControlWord): string => control(name, 'text');

/** Words of a bit for each id. */
const flagWords = (vocabulary: number): number => Math.ceil(vocabulary / 32);

/** The flags of a choice. */
export function flagsOf(vocabulary: number, removed: readonly number[], ends: readonly number[]): Uint32Array {
  const words = flagWords(vocabulary);
  const flags = new Uint32Array(2 * words);
  for (const [from, ids] of [
    [0, removed],
    [words, ends],
  ] as const)
    for (const id of ids) if (id < vocabulary) flags[from + (id >> 5)]! |= 1 << (id & 31);
  return flags;
}

/**
 * Bindings: logits [batch, vocabulary] as words; flags, a bit for each id that must not be chosen, then a bit for each that ends the row;
 * uniforms [batch, most], a number for each step; chosen [batch, most], where each step's id goes; control.
 */
export function choiceKernel(spec: ChoiceSpec): WgslKernel {
  const { vocabulary, drawn, topK, batch, most } = spec;
  const bindings = ['logits', 'flags', ...(drawn ? ['uniforms'] : []), 'chosen', 'control'];
  const at = numbered(bindings);
  const code = `@group(0) @binding(${at('logits')}) var<storage, read> logits: array<u32>;
@group(0) @binding(${at('flags')}) var<storage, read> flags: array<u32>;
${drawn ? `@group(0) @binding(${at('uniforms')}) var<storage, read> uniforms: array<f32>;` : ''}
@group(0) @binding(${at('chosen')}) var<storage, read_write> chosen: array<i32>;
@group(0) @binding(${at('control')}) var<storage, read_write> control: array<u32, ${CONTROL.length * batch}>;
// the row of this workgroup, and where its scores begin
var<private> text: u32;
var<private> scores: u32;
${keys(vocabulary)}${drawn ? drawing(vocabulary, topK, most) : ''}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  text = group.x;
  scores = text * ${vocabulary}u;
  findBest(lane);
  ${drawn ? 'draw(lane);' : ''}
  if (lane != 0u) { return; }
  var id = i32(${own('pad')});
  var moves = 0u;
  if (${own('finished')} == 0u) {
    id = i32(${drawn ? 'drawnId' : 'bestIds[0]'});
    if (bestKeys[0] == REMOVED) { id = ${NO_CHOICE.none}; }
    if (atomicLoad(&invalid) == 1u) { id = ${NO_CHOICE.invalid}; }
    if (id < 0) { ${own('finished')} = 1u; }
    else {
      moves = 1u;
      if (flag(${flagWords(vocabulary)}u, u32(id))) { ${own('finished')} = 1u; }
    }
  }
  chosen[text * ${most}u + ${own('step')}] = id;
  ${own('step')} += 1u;
  ${own('token')} = u32(max(id, 0));
  ${own('moves')} = moves;
}
`;
  return { code, bindings, workgroups: batch };
}

/** Scores as whole numbers in the same order, and the best of them. As words, since WGSL need not know what is no number. */
function keys(vocabulary: number): string {
  return `const REMOVED = 0u;
var<workgroup> bestKeys: array<u32, ${THREADS}>;
var<workgroup> bestIds: array<u32, ${THREADS}>;
var<workgroup> invalid: atomic<u32>;

fn flag(first: u32, id: u32) -> bool { return ((flags[first + id / 32u] >> (id % 32u)) & 1u) == 1u; }

// -Infinity cannot be chosen either, and both zeros are one number
fn keyOf(id: u32) -> u32 {
  let bits = logits[scores + id];
  if (bits == 0xff800000u || flag(0u, id)) { return REMOVED; }
  if (bits == 0x80000000u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn findBest(lane: u32) {
  var key = REMOVED;
  var best = 0u;
  for (var id = lane; id < ${vocabulary}u; id += ${THREADS}u) {
    let own = keyOf(id);
    // Infinity, and beyond it what is no number
    if (own != REMOVED && (logits[scores + id] & 0x7fffffffu) >= 0x7f800000u) { atomicStore(&invalid, 1u); }
    if (own > key) { key = own; best = id; }
  }
  bestKeys[lane] = key;
  bestIds[lane] = best;
  workgroupBarrier();
  for (var half = ${THREADS / 2}u; half > 0u; half /= 2u) {
    if (lane < half) {
      let other = bestKeys[lane + half];
      if (other > bestKeys[lane] || (other == bestKeys[lane] && bestIds[lane + half] < bestIds[lane])) {
        bestKeys[lane] = other;
        bestIds[lane] = bestIds[lane + half];
      }
    }
    workgroupBarrier();
  }
}
`;
}

/** Drawing: each thread sums a run of ids, the first one finds the run in which the mark lies, and that one's thread the id. */
function drawing(vocabulary: number, topK: boolean, most: number): string {
  const run = Math.ceil(vocabulary / THREADS);
  return `var<workgroup> runs: array<f32, ${THREADS}>;
var<workgroup> owner: u32;
var<workgroup> before: f32;
var<workgroup> mark: f32;
var<workgroup> drawnId: u32;
${topK ? leastKey(vocabulary) : ''}
// probability by that of the best
fn weightOf(id: u32) -> f32 {
  let key = keyOf(id);
  if (key == REMOVED${topK ? ' || key < bound' : ''}) { return 0.0; }
  let below = bitcast<f32>(logits[scores + id]) - bitcast<f32>(logits[scores + bestIds[0]]);
  return exp(max(below / bitcast<f32>(${own('temperature')}), -100.0));
}

fn draw(lane: u32) {
  ${topK ? 'findBound(lane);' : ''}
  let first = min(lane * ${run}u, ${vocabulary}u);
  let end = min(first + ${run}u, ${vocabulary}u);
  var own = 0.0;
  for (var id = first; id < end; id++) { own += weightOf(id); }
  runs[lane] = own;
  workgroupBarrier();
  if (lane == 0u) {
    var total = 0.0;
    for (var i = 0u; i < ${THREADS}u; i++) { total += runs[i]; }
    mark = uniforms[text * ${most}u + ${own('step')}] * total;
    owner = 0u;
    before = 0.0;
    var running = 0.0;
    for (var i = 0u; i < ${THREADS}u; i++) {
      // where rounding leaves none above the mark, the last that has any weight
      if (runs[i] > 0.0) { owner = i; before = running; }
      running += runs[i];
      if (running > mark) { break; }
    }
  }
  workgroupBarrier();
  if (lane == owner) {
    var sum = 0.0;
    for (var id = first; id < end; id++) {
      let weight = weightOf(id);
      sum += weight;
      if (weight > 0.0) { drawnId = id; }
      if (before + sum > mark) { break; }
    }
  }
  workgroupBarrier();
}
`;
}

/** The key of the k-th best score, eight bits at a time from the top: of those that agree so far, how many have which next eight. */
function leastKey(vocabulary: number): string {
  const round = (shift: number): string => `  atomicStore(&counts[lane], 0u);
  workgroupBarrier();
  for (var id = lane; id < ${vocabulary}u; id += ${THREADS}u) {
    let key = keyOf(id);
    if (key != REMOVED${shift < 24 ? ` && (key >> ${shift + 8}u) == (bound >> ${shift + 8}u)` : ''}) { atomicAdd(&counts[(key >> ${shift}u) & 255u], 1u); }
  }
  workgroupBarrier();
  if (lane == 0u) {
    var digit = 255u;
    while (digit > 0u && atomicLoad(&counts[digit]) < wanted) {
      wanted -= atomicLoad(&counts[digit]);
      digit--;
    }
    bound |= digit << ${shift}u;
  }
  workgroupBarrier();
`;
  return `var<workgroup> counts: array<atomic<u32>, ${THREADS}>;
var<workgroup> bound: u32;
var<workgroup> wanted: u32;

fn findBound(lane: u32) {
  if (lane == 0u) { wanted = ${own('top_k')}; }
${[24, 16, 8, 0].map(round).join('')}}
`;
}
