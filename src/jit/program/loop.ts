/** A function repeated inside the program: what Program.defineLoop builds. */
import * as tf from '@tensorflow/tfjs';
import { TracingError } from '../errors.js';
import { setRow } from '../ops/set_row.js';
import { isPieces, type Pieces } from '../../base/pieces.js';
import { whileLoopInPieces } from '../ops/while_loop.js';
import { describe, dtypeNumber } from '../../runtime/data_types.js';
import type { Body, Traced } from './function.js';
import { record, symbolic } from '../trace/backend.js';
import { constantValue, type Value } from '../trace/graph.js';
import { attr } from '../trace/graphdef.js';
import type { LoopOptions, TensorSpec, TraceResult } from '../types.js';

function checkOptions(name: string, body: Traced, options: LoopOptions): void {
  const fail = (message: string): never => {
    throw new TracingError(`defineLoop('${name}'): ${message}`, { name, body: body.name });
  };
  if (!Number.isInteger(options.steps) || options.steps < 1)
    fail(`steps is ${options.steps}, expected a positive integer.`);
  for (const [input, output] of Object.entries(options.feed ?? {})) {
    const [to, from] = [body.inputs[input], body.outputs[output]];
    if (!to || !from)
      fail(`feed names the input '${input}' and the output '${output}', '${body.name}' has no such pair.`);
    if (describe(to!) !== describe(from!))
      fail(`output '${output}' is ${describe(from!)}, input '${input}' is ${describe(to!)}.`);
  }
  for (const input of options.each ?? []) {
    if (!body.inputs[input] || input === options.index || options.feed?.[input] !== undefined)
      fail(`each names '${input}', which is not an input of '${body.name}' that stays free.`);
  }
  if (options.count !== undefined && body.inputs[options.count])
    fail(`count names '${options.count}', which is an input of '${body.name}' already.`);
  const index = options.index === undefined ? null : body.inputs[options.index];
  if (index === undefined || (index && describe(index) !== 'int32[]'))
    fail(`index names '${options.index}', which is not an int32 scalar input.`);
  const stop = options.stop === undefined ? null : body.outputs[options.stop];
  if (stop === undefined || (stop && describe(stop) !== 'bool[]'))
    fail(`stop names '${options.stop}', which is not a bool scalar output.`);
}

const int32 = (values: number[], shape: number[]): Value => constantValue(Int32Array.from(values), shape, 'int32');

/** Inputs of the loop function, and how to trace it. */
export function loopBody(
  name: string,
  body: Traced,
  options: LoopOptions,
): { inputs: Record<string, TensorSpec>; body: Body } {
  checkOptions(name, body, options);
  const each = new Set(options.each ?? []);
  const inputs = Object.fromEntries(
    Object.entries(body.inputs)
      .filter(([input]) => input !== options.index)
      .map(([input, spec]) => [input, each.has(input) ? { ...spec, shape: [options.steps, ...spec.shape] } : spec]),
  );
  if (options.count !== undefined) inputs[options.count] = { shape: [], dtype: 'int32' };
  const fed = Object.keys(options.feed ?? {});
  const outputs = Object.keys(body.outputs);
  const traced: Body = function* (given, vars): Pieces<TraceResult> {
    const own = vars();
    const zeros = (spec: TensorSpec): tf.Tensor => {
      const shape = [options.steps, ...spec.shape];
      const one = record('Cast', { DstT: attr.type(dtypeNumber(spec.dtype)), Truncate: attr.bool(false) }, [
        constantValue(Float32Array.of(0), [], 'float32'),
      ])[0]!;
      return symbolic(record('Fill', {}, [int32(shape, [shape.length]), one])[0]!);
    };
    // Carried: counter, stop flag, fed inputs, assigned variables, stacked outputs.
    const initial = [
      tf.scalar(0, 'int32'),
      tf.scalar(false, 'bool'),
      ...fed.map((input) => given[input]!),
      ...body.assigned.map((variable) => own[variable]!),
      ...outputs.map((output) => zeros(body.outputs[output]!)),
    ];
    const limit = (i: tf.Tensor): tf.Tensor => {
      const most = tf.less(i, tf.scalar(options.steps, 'int32'));
      return options.count === undefined ? most : tf.logicalAnd(most, tf.less(i, given[options.count]!));
    };
    const result = yield* whileLoopInPieces(
      ([i, stopped]) => tf.logicalAnd(limit(i!), tf.logicalNot(stopped!)),
      function* (carried): Pieces<tf.Tensor[]> {
        const [i] = carried as [tf.Tensor];
        const at = (k: number): tf.Tensor => carried[2 + k]!;
        const args = { ...given };
        if (options.index) args[options.index] = i;
        for (const input of each)
          args[input] = tf.reshape(tf.gather(given[input]!, i), body.inputs[input]!.shape as number[]);
        fed.forEach((input, k) => (args[input] = at(k)));
        const state = new Map(body.assigned.map((variable, k) => [variable, at(fed.length + k)]));
        const made = body.fn(
          args,
          vars((variable) => state.get(variable)),
        );
        const step = isPieces(made) ? yield* made : made;
        const out = step.outputs ?? {};
        const stacked = outputs.map((output, k) =>
          setRow(at(fed.length + body.assigned.length + k), i, out[output]!, body.xla),
        );
        return [
          tf.add(i, tf.scalar(1, 'int32')),
          options.stop ? out[options.stop]! : tf.scalar(false, 'bool'),
          ...fed.map((input) => out[options.feed![input]!]!),
          ...body.assigned.map((variable) => step.assign![variable]!),
          ...stacked,
        ];
      },
      initial,
    );
    const from = 2 + fed.length;
    return {
      outputs: {
        ...Object.fromEntries(outputs.map((output, k) => [output, result[from + body.assigned.length + k]!])),
        iterations: result[0]!,
      },
      assign: Object.fromEntries(body.assigned.map((variable, k) => [variable, result[from + k]!])),
    };
  };
  return { inputs, body: traced };
}
