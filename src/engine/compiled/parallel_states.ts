/** How a program that several devices run at once holds states: of each variable every device has the part of its heads. */
import { partShape, putPart, takePart } from '../../base/array_parts.js';
import { onDevice } from '../../jit/program/replicated.js';
import { sizeOf } from '../../runtime/data_types.js';
import type { TensorParallel } from '../recurrent_lm.js';
import type { StatesOf } from '../states/cache.js';
import { carriedStates } from '../states/host_state.js';
import type { StateLayout } from './divided_states.js';
import { type StateDtype, stateVariables } from './program_states.js';

/** @param network the whole model */
export function parallelLayout(network: StatesOf, dtype: StateDtype, plan: TensorParallel): StateLayout {
  const devices = Array.from({ length: plan.count }, (_, k) => k);
  /** The state of each variable, in order, null of the logits, which all devices have; and how many axes come before its own. */
  const of = carriedStates(network).flatMap((spec) =>
    spec.keptPer === 'model'
      ? [{ spec, before: 2 }]
      : Array.from({ length: network.config.num_hidden_layers }, () => ({ spec, before: 1 })),
  );
  const partOf = (at: number, k: number): ReturnType<TensorParallel['state']> | null => {
    const { spec, before } = of[at] ?? {};
    if (!spec) return null;
    const part = plan.state(spec.name, k);
    return { ...part, axis: part.axis + before! };
  };
  const shapes = (rows: number): number[][] => stateVariables(network, rows, dtype).map(({ shape }) => shape);
  return {
    variables: (rows, place) =>
      devices.flatMap((k) =>
        stateVariables(network, rows, dtype, place).map((one, at) => {
          const part = partOf(at, k);
          return { ...one, name: onDevice(one.name, k), shape: part ? partShape(one.shape, part) : one.shape };
        }),
      ),
    parts: (values, rows) => {
      const whole = shapes(rows);
      return devices.flatMap((k) =>
        values.map((value, at) => {
          const part = partOf(at, k);
          if (!part) return value;
          const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
          const cut = takePart(bytes, whole[at]!, 4, part);
          return new Float32Array(cut.buffer, cut.byteOffset, cut.byteLength / 4);
        }),
      );
    },
    whole: (parts, rows) => {
      const all = shapes(rows);
      return all.map((shape, at) => {
        if (!partOf(at, 0)) return parts[at]!;
        const value = new Float32Array(sizeOf(shape));
        for (const k of devices) putPart(parts[k * all.length + at]!, value, shape, partOf(at, k)!);
        return value;
      });
    },
  };
}
