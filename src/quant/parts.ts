/** Parts of quantised matrices: what a device has of one. */
import { type ArrayPart, partShape, takePart } from '../base/array_parts.js';
import { ArgumentError } from '../base/errors.js';
import type { QuantizedMatrix } from './quantize.js';

/**
 * Some rows or columns of a matrix. What it holds is cut at each access, as codes are read.
 * @param name for messages
 * @throws ArgumentError where columns are cut within a group that shares a scale
 */
export function partOfMatrix(m: QuantizedMatrix, part: ArrayPart, name: string): QuantizedMatrix {
  const { shape, bits, groupSize } = m;
  const [, inner] = shape;
  const [out, own] = partShape(shape, part) as [number, number];
  const columns = part.axis === 1;
  if (bits === 4 && columns && part.ranges.some((range) => range.some((at) => at % groupSize !== 0)))
    throw new ArgumentError(
      `${name}: ${own} of ${inner} input channels are no whole groups of ${groupSize}, which share a scale. Quantise with a group_size that divides ${own}, or take fewer devices (tp_size).`,
      { option: 'tp_plan', weight: name, group_size: groupSize, got: own },
    );
  // int8 has one group of all channels
  const size = bits === 8 ? own : groupSize;
  const perByte = 8 / bits;
  const inBytes = (part: ArrayPart): ArrayPart => ({
    axis: 1,
    ranges: part.ranges.map(([from, to]) => [from / perByte, to / perByte]),
    size: part.size / perByte,
  });
  // levels lie [groups, out]
  const inGroups = (part: ArrayPart): ArrayPart => ({
    axis: 0,
    ranges: bits === 8 ? [[0, 1]] : part.ranges.map(([from, to]) => [from / groupSize, to / groupSize]),
    size: own / size,
  });
  const levels = (values: Float32Array): Float32Array => {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const cut = takePart(bytes, [inner / groupSize, shape[0]], 4, columns ? inGroups(part) : { ...part, axis: 1 });
    return new Float32Array(cut.buffer, cut.byteOffset, cut.byteLength / 4);
  };
  return {
    ...{ bits, scaleDtype: m.scaleDtype, shape: [out, own], groupSize: size },
    get scale(): Float32Array {
      return levels(m.scale);
    },
    get zero(): Float32Array | null {
      return m.zero && levels(m.zero);
    },
    get codes(): Uint8Array {
      return takePart(m.codes, [shape[0], inner / perByte], 1, columns ? inBytes(part) : part);
    },
  };
}
