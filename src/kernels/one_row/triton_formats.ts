/** How a product of one row in Triton's language reads rows of a matrix and multiplies them, by stored format. */
import type { OneRowTriton } from './triton_block.js';
import type { TtirValue } from '../../jit/custom_call/triton.js';

/** Rows that are read together, [rows], and which of them exist. */
export interface RowsAt {
  rows: TtirValue;
  mask?: TtirValue;
}

/** Reading rows and multiplying them: apart, so that what is read is on its way while the vector is made ready. */
export interface StoredRows {
  load(at: RowsAt): readonly TtirValue[];
  /** Makes the vector ready. @returns the product of rows that were read, [rows] */
  prepare(): (loaded: readonly TtirValue[]) => TtirValue;
}

/** The rows of a kernel in their format. */
export function rowsOf(w: OneRowTriton): StoredRows {
  const { format } = w.spec;
  if (format.kind !== 'codes') return plainRows(w, format.kind === 'bfloat16');
  return packedRows(w, format.groupSize, format.levels === 'bfloat16');
}

function plainRows(w: OneRowTriton, bf16: boolean): StoredRows {
  const { k, kTile } = w;
  const { inner } = w.spec;
  const line = k.range(kTile, 1, 2);
  const at = Array.from({ length: inner / kTile }, (_, i) => w.offset(line, i * kTile));
  return {
    load: ({ rows, mask }) => {
      const base = k.binary('arith.muli', k.expand(rows, 1), inner);
      const guard = mask && k.expand(mask, 1);
      return at.map((offsets) => k.load(w.pointer('weights'), w.offset(base, offsets), guard));
    },
    prepare: () => {
      const vectors = w.normed(
        at.map((offsets) => w.vectorTile(offsets)),
        1,
      );
      return (stored) => {
        const terms = stored.map((x, i) => w.multiply(bf16 ? k.convert('arith.extf', x, 'f32') : x, vectors[i]!));
        return w.sumTo(w.total(terms), 1);
      };
    },
  };
}

/** Products of a k-tile's codes, [rows, groups, words], and vector within each word, and what the least weights are multiplied by. */
interface TileProduct {
  readonly products: (codes: TtirValue, scale: TtirValue) => TtirValue;
  total: TtirValue;
}

/** Reads codes, scales and zeros, the latter two [rows, groups, 1], and makes least weights of them: sums of codes times vector within words meet those of their group. */
function packedRows(w: OneRowTriton, groupSize: number, bf16: boolean): StoredRows {
  const { k, kTile } = w;
  const { inner } = w.spec;
  const groups = kTile / groupSize; // groups of codes in a k-tile
  const [all, words] = [inner / groupSize, groupSize / 8];
  const group = k.range(groups, 1, 3); // [1, groups, 1]
  const word = k.range(words, 2, 3); // [1, 1, words]
  const line = w.offset(k.binary('arith.muli', group, words), word); // word of a k-tile
  const channel = w.offset(k.binary('arith.muli', group, groupSize), word); // channel of a word's first code
  const kTiles = Array.from({ length: inner / kTile }, (_, i) => i);
  return {
    load: ({ rows, mask }) => {
      const row = k.expand(k.expand(rows, 1), 2); // [rows, 1, 1]
      const guard = mask && k.expand(k.expand(mask, 1), 2);
      const base = w.offset(k.binary('arith.muli', row, inner / 8), line);
      const levels = w.offset(k.binary('arith.muli', row, all), group); // [rows, groups, 1]
      const level = (name: string, at: TtirValue): TtirValue => {
        const stored = k.load(w.pointer(name), at, guard);
        return bf16 ? k.convert('arith.extf', stored, 'f32') : stored;
      };
      return kTiles.flatMap((i) => {
        const at = w.offset(levels, i * groups);
        const scale = level('scale', at);
        const least = w.add(level('zero', at), w.multiply(scale, -8));
        return [k.load(w.pointer('codes'), w.offset(base, (i * kTile) / 8), guard), scale, least];
      });
    },
    prepare: () => {
      const flat = w.normed(
        kTiles.flatMap((i) =>
          Array.from({ length: 8 }, (_, position) => w.vectorTile(w.offset(channel, i * kTile + position * words))),
        ),
        8,
      );
      const vectors = kTiles.map((i) => tileProduct(w, flat.slice(i * 8, (i + 1) * 8)));
      return (stored) => {
        const terms = vectors.map(({ products, total }, i) => {
          const [codes, scale, least] = stored.slice(3 * i, 3 * i + 3) as [TtirValue, TtirValue, TtirValue];
          return w.add(products(codes, scale), w.multiply(least, total));
        });
        return w.sumTo(w.total(terms), 1);
      };
    },
  };
}

/** Where in the low 20 bits the code of a position in a word is put. */
const fieldOf = (position: number): number => (position < 5 ? position : position - 3);

/**
 * The codes of one position in words, times 16 to the power of fieldOf: the bits become the last ones of a float32 of 2^23,
 * which is then taken away. Converting integers would take eight times as long.
 */
function field(w: OneRowTriton, codes: TtirValue, shifted: TtirValue, position: number): TtirValue {
  const { k } = w;
  const bits = k.binary('arith.andi', position < 5 ? codes : shifted, 15 << (4 * fieldOf(position)));
  const float = k.convert('tt.bitcast', k.binary('arith.ori', bits, 0x4b000000), 'f32');
  return w.add(float, -(2 ** 23));
}

/** @param xs the vector by position in a word, [1, groups, words] each */
function tileProduct(w: OneRowTriton, xs: TtirValue[]): TileProduct {
  const scaled = xs.map((x, position) => {
    const power = 16 ** fieldOf(position);
    return power === 1 ? x : w.multiply(x, 1 / power);
  });
  return {
    products: (codes, scale) => {
      const shifted = w.k.binary('arith.shrui', codes, 12);
      const sums = w.total(scaled.map((x, position) => w.multiply(field(w, codes, shifted, position), x)));
      return w.multiply(sums, scale);
    },
    total: w.total(xs),
  };
}
