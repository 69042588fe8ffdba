/** Quantised matrices in the memory of the WebAssembly or WebGPU backend, packed as they are on disk, for the kernels of src/kernels. */
import * as tf from '@tensorflow/tfjs';
import { DisposedError } from '../base/errors.js';
import { heldBytes, type PackedMatrix, wasmTakes, webGpuTakes } from '../kernels/index.js';
import { heldElsewhere } from './held_once.js';
import type { QuantizedMatrix } from './quantize.js';

interface Form {
  readonly packed: PackedMatrix;
  readonly backend: object;
}

const forms = new WeakMap<QuantizedMatrix, Form>();

/** The matrix as the kernels read it, packed at its first use; null where there are no kernels for it. */
export function backendForm(m: QuantizedMatrix): PackedMatrix | null {
  const onWebGpu = webGpuTakes(m.bits, m.groupSize);
  if ((!onWebGpu && !wasmTakes(m.bits, m.groupSize)) || (m.bits === 8 && m.zero)) return null;
  const backend = tf.backend();
  const found = forms.get(m);
  if (found?.backend === backend) return found.packed;
  const [out, inner] = m.shape;
  const { bits, groupSize, codes } = m;
  const bytes = codes.length;
  const levels = tf.keep(tf.tensor1d(bits === 4 ? int4Levels(m) : m.scale));
  const packed = { bits, out, inner, groupSize, codes: heldBytes(bits === 4 ? flipped(codes) : codes), levels };
  forms.set(m, { packed, backend });
  // what is on a GPU comes back later, and not at once: the codes stay on the host, too
  if (onWebGpu) return packed;
  heldElsewhere(m, () => {
    if (packed.codes.isDisposed) throw new DisposedError('The model that these quantised weights are of was disposed');
    const held = packed.codes.dataSync<'int32'>();
    const rows = new Uint8Array(held.buffer, held.byteOffset, bytes);
    return bits === 4 ? flipped(rows) : rows;
  });
  return packed;
}

/** Frees what backendForm() made. */
export function releaseBackendForm(m: QuantizedMatrix): void {
  const form = forms.get(m);
  if (!form) return;
  tf.dispose([form.packed.codes, form.packed.levels]);
  forms.delete(m);
}

/** Codes q-8 in two's complement to q of 0 to 15, and back. */
const flipped = (codes: Uint8Array): Uint8Array => codes.map((byte) => byte ^ 0x88);

/** Scales and zeros [groups, out] as [out, groups, 2]. */
function int4Levels({ shape: [out], scale, zero }: QuantizedMatrix): Float32Array {
  const groups = scale.length / out;
  const levels = new Float32Array(2 * scale.length);
  for (let o = 0, at = 0; o < out; o++)
    for (let g = 0; g < groups; g++) {
      levels[at++] = scale[g * out + o]!;
      levels[at++] = zero![g * out + o]!;
    }
  return levels;
}
