/**
 * int4 products on CPUs by a kernel of our own (native/host_kernels.cc), with activations rounded to int8 in groups: the processor's
 * dot products of bytes, which XLA does not use, on codes that are read from memory in order.
 *
 * Codes lie in tiles of 32 outputs, [tiles, groups, groupSize/8, 32, 4]: four neighbouring channels of an output are four bytes, so
 * that a vector of 64 bytes meets one word of x. A byte holds a channel of the group's first half (low nibble) and one of its second
 * half (high nibble). The last tile is filled up with zeros.
 */
import * as tf from '@tensorflow/tfjs';
import { newBlock } from '../base/blocks.js';
import { attr, bitwiseAnd, castFloat32, constantOf, rawOp, reshapeAny, rightShift } from '../jit/index.js';
import { int4Instructions, int4Product, type Instructions, TILE, type TiledMatrix } from '../kernels/index.js';
import type { WeightStorage } from '../layers/storage.js';
import { heldElsewhere, isHeldOnce } from './held_once.js';
import { type PackedForm, packedMatrix, storedLevels } from './packed_form.js';
import type { QuantizedMatrix } from './quantize.js';

/** The instructions of the kernels that run here on this matrix, the fastest first; none on GPUs and on processors without AVX2. */
export function tileInstructions(m: QuantizedMatrix): Instructions[] {
  return m.bits === 4 && m.groupSize % 32 === 0 ? int4Instructions() : [];
}

/** Variables: `.codes` uint8 in tiles; `.scale` and `.zero` as stored, [tiles, groups, 32], w = (q - 8)·scale + zero. */
export function tileStorage(m: QuantizedMatrix, instructions: Instructions): WeightStorage {
  const [out, inner] = m.shape;
  const groups = inner / m.groupSize;
  const tiles = Math.ceil(out / TILE);
  return {
    form: `int4 ${instructions} tiles of ${TILE} rows in groups of ${m.groupSize}, ${m.scaleDtype} scales`,
    takesWhole: true,
    variables: {
      '.codes': { shape: [tiles, groups, m.groupSize / 8, TILE, 4], dtype: 'uint8', init: () => tiledCodes(m) },
      '.scale': { shape: [tiles, groups, TILE], dtype: m.scaleDtype, init: () => tiledValues(m, m.scale) },
      '.zero': { shape: [tiles, groups, TILE], dtype: m.scaleDtype, init: () => tiledValues(m, m.zero!) },
    },
    weight: (vars) => {
      const form = new TileForm(m, instructions, vars['.codes']!, vars['.scale']!, vars['.zero']!);
      return {
        ...packedMatrix(m.shape, form),
        host: form.matrix,
      };
    },
  };
}

/** All of a matrix but its codes. */
type Layout = Omit<QuantizedMatrix, 'codes'>;

/** Where pairs of neighbouring channels lie in tiles: the first byte, the first row's, and whether in high nibbles. The second byte follows. */
function placesOfPairs({ shape: [, inner], groupSize }: Layout): { at: Int32Array; high: Uint8Array } {
  const at = new Int32Array(inner / 2);
  const high = new Uint8Array(inner / 2);
  for (let i = 0; i < inner / 2; i++) {
    const within = (2 * i) % groupSize;
    high[i] = Number(within >= groupSize / 2);
    const k = high[i] ? within - groupSize / 2 : within; // an even channel and the next lie in the same word
    at[i] = Math.floor((2 * i) / groupSize) * ((TILE * groupSize) / 2) + (k >> 2) * TILE * 4 + (k & 3);
  }
  return { at, high };
}

/** Where a row begins in tiles. */
const rowInTiles = (row: number, inner: number): number =>
  Math.floor(row / TILE) * ((TILE * inner) / 2) + (row % TILE) * 4;

/** Codes from rows of nibble pairs, as on disk, to tiles. */
export function tiledCodes(m: QuantizedMatrix): Uint8Array {
  return heldTiles(m, () => tilesOfRows(m.codes, m));
}

function tilesOfRows(codes: Uint8Array, m: Layout): Uint8Array {
  const [out, inner] = m.shape;
  const packed = new Uint8Array(newBlock(Math.ceil(out / TILE) * ((TILE * inner) / 2))).fill(0);
  const { at, high } = placesOfPairs(m);
  for (let row = 0, from = 0; row < out; row++) {
    const begin = rowInTiles(row, inner);
    for (let i = 0; i < inner / 2; i++) {
      const pair = codes[from++]! ^ 0x88;
      const to = begin + at[i]!;
      packed[to]! |= high[i] ? (pair & 15) << 4 : pair & 15;
      packed[to + 1]! |= high[i] ? pair & 0xf0 : pair >> 4;
    }
  }
  return packed;
}

/** Codes from tiles to rows of nibble pairs. */
function rowsOfTiles(packed: Uint8Array, m: Layout): Uint8Array {
  const [out, inner] = m.shape;
  const codes = new Uint8Array((out * inner) / 2);
  const { at, high } = placesOfPairs(m);
  for (let row = 0, to = 0; row < out; row++) {
    const begin = rowInTiles(row, inner);
    for (let i = 0; i < inner / 2; i++) {
      const [first, second] = [packed[begin + at[i]!]!, packed[begin + at[i]! + 1]!];
      const pair = high[i] ? (first >> 4) | (second & 0xf0) : (first & 15) | ((second & 15) << 4);
      codes[to++] = pair ^ 0x88;
    }
  }
  return codes;
}

/** Tiles of matrices whose codes are in memory once. */
const tilesOf = new WeakMap<QuantizedMatrix, Uint8Array>();

/** What is held of a matrix in tiles, made if need be; of one that is not held once, what is made now. */
function heldTiles(m: QuantizedMatrix, make: () => Uint8Array): Uint8Array {
  if (!isHeldOnce(m)) return make();
  const tiles = tilesOf.get(m) ?? make();
  if (!tilesOf.has(m)) {
    const { bits, shape, groupSize, scale, zero, scaleDtype } = m;
    heldElsewhere(m, () => rowsOfTiles(tiles, { bits, shape, groupSize, scale, zero, scaleDtype }));
    tilesOf.set(m, tiles);
  }
  return tiles;
}

/** Values [groups, out] to [tiles, groups, 32], in the type of scales. */
function tiledValues(m: QuantizedMatrix, values: Float32Array): ArrayBufferView {
  const [out, inner] = m.shape;
  const groups = inner / m.groupSize;
  const tiled = new Float32Array(Math.ceil(out / TILE) * groups * TILE);
  for (let g = 0; g < groups; g++)
    for (let row = 0; row < out; row++)
      tiled[(Math.floor(row / TILE) * groups + g) * TILE + (row % TILE)] = values[g * out + row]!;
  return storedLevels(tiled, m.scaleDtype);
}

class TileForm implements PackedForm {
  private readonly tiles: number;
  private readonly groups: number;
  readonly matrix: TiledMatrix;

  constructor(
    m: QuantizedMatrix,
    private readonly instructions: Instructions,
    codes: tf.Tensor,
    scale: tf.Tensor,
    zero: tf.Tensor,
  ) {
    const [out, inner] = m.shape;
    this.matrix = { out, inner, groupSize: m.groupSize, bf16Levels: m.scaleDtype === 'bfloat16', codes, scale, zero };
    [this.tiles, this.groups] = scale.shape as [number, number, number];
  }

  /** x [m, in] -> [m, out] */
  apply(x: tf.Tensor2D): tf.Tensor2D {
    return int4Product(this.instructions, this.matrix, x);
  }

  /** Codes [..., groups, words, 4] of some rows, with their scales and zeros [..., groups] -> [rows, in] */
  private weights(codes: tf.Tensor, scale: tf.Tensor, zero: tf.Tensor): tf.Tensor2D {
    const { groups } = this;
    const { groupSize, inner } = this.matrix;
    const halves = [bitwiseAnd(codes, constantOf([15], [], 'uint8')), rightShift(codes, constantOf([4], [], 'uint8'))];
    const q = tf.concat(
      halves.map((half) => tf.reshape(castFloat32(half), [-1, groups, groupSize / 2])),
      2,
    ); // [rows, groups, size]
    const perGroup = (t: tf.Tensor): tf.Tensor => tf.reshape(castFloat32(t), [-1, groups, 1]);
    const [factor, offset] = [perGroup(scale), perGroup(zero)];
    const w = tf.add(tf.mul(tf.sub(q, 8), factor), offset);
    return tf.reshape(w, [-1, inner]);
  }

  /** W [out, in] */
  dense(): tf.Tensor2D {
    const { tiles, groups } = this;
    const { groupSize } = this.matrix;
    const words = reshapeAny(this.matrix.codes, [tiles, (groups * groupSize) / 8, TILE, 4]);
    const codes = rawOp('Transpose', [words, tf.tensor1d([0, 2, 1, 3], 'int32')])[0]!; // [tiles, 32, words, 4]
    const byRow = (t: tf.Tensor): tf.Tensor => tf.transpose(castFloat32(t), [0, 2, 1]); // [tiles, 32, groups]
    const w = this.weights(codes, byRow(this.matrix.scale), byRow(this.matrix.zero));
    return tf.slice(w, [0, 0], [this.matrix.out, this.matrix.inner]);
  }

  /** Rows of W by number, [m] -> [m, in] */
  rows(ids: tf.Tensor1D): tf.Tensor2D {
    const { tiles, groups } = this;
    const { groupSize, codes: allCodes, scale, zero } = this.matrix;
    const tile = tf.floorDiv(ids, tf.scalar(TILE, 'int32'));
    const lane = tf.sub(ids, tf.mul(tile, tf.scalar(TILE, 'int32')));
    /** Of [tiles · count · 32, …] the row of each id in each of `count` places */
    const pick = (t: tf.Tensor, count: number): tf.Tensor => {
      const places = tf.add(
        tf.mul(tf.reshape(tile, [-1, 1]), tf.scalar(count, 'int32')),
        tf.range(0, count, 1, 'int32'),
      );
      const at = tf.add(tf.mul(places, tf.scalar(TILE, 'int32')), tf.reshape(lane, [-1, 1])); // [m, count]
      return rawOp('GatherV2', [t, at, tf.scalar(0, 'int32')], { batch_dims: attr.int(0) })[0]!;
    };
    const words = (groups * groupSize) / 8;
    const codes = pick(reshapeAny(allCodes, [tiles * words * TILE, 4]), words); // [m, words, 4]
    const flat = (t: tf.Tensor): tf.Tensor => reshapeAny(t, [tiles * groups * TILE]);
    return this.weights(codes, pick(flat(scale), groups), pick(flat(zero), groups));
  }
}
