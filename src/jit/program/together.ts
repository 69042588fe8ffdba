/** A function that all devices of a program compute at once: its calls in the graph, and what they are fed and give. */
import { TracingError } from '../errors.js';
import { dtypeNumber } from '../../runtime/data_types.js';
import type { DeviceGroup } from '../ops/all_reduce.js';
import { attr } from '../trace/graphdef.js';
import type { LoopOptions } from '../types.js';
import { type Callable, DONE } from './graph_program.js';
import type { Place, ReplicaGraph, Traced } from './replicas.js';

export interface Together {
  /** What each device does, of the same inputs, with the same sums in the same order (ops/all_reduce.ts). */
  readonly traced: readonly Traced[];
  readonly group: DeviceGroup;
  /** The device whose outputs are those of the call. */
  readonly giver: number;
  /** How often it is called, one time after another, where its loop is no function. */
  readonly unrolled: LoopOptions | null;
}

/** Whether a function adds up what devices have. */
const addsUp = ({ text, library }: Traced): boolean =>
  [text, ...library].some(({ nodes }) => nodes.some(({ op }) => op === 'CollectiveReduceV2'));

/** The nodes of a function. @throws TracingError for a loop that its calls cannot be */
export function wireTogether(graph: ReplicaGraph, name: string, fn: Callable, of: Together): void {
  const { traced, group, giver, unrolled } = of;
  const { steps, each = [], feed = {}, count, stop, index } = unrolled ?? { steps: 1 };
  if (count ?? stop ?? index)
    throw new TracingError(`defineLoop('${name}'): sums are between functions, so that it has no count, stop or index.`, { name }); // prettier-ignore
  graph.entry(name);
  const feeds: Record<string, Place> = {};
  const slices: Record<string, Place[]> = {};
  for (const [input, spec] of Object.entries(traced[0]!.inputs)) {
    const stacked = unrolled !== null && each.includes(input);
    const given = stacked ? { ...spec, shape: [steps, ...spec.shape] } : spec;
    fn.given[input] = given;
    feeds[input] = graph.feed(name, 0, input, given);
    if (!stacked) continue;
    const attrs = { T: attr.type(dtypeNumber(spec.dtype)), num: attr.int(steps), axis: attr.int(0) };
    const { node } = graph.onHost(name, `${input}_each`, 'Unpack', [feeds[input].node], attrs, spec);
    slices[input] = Array.from({ length: steps }, (_, i) => ({ node: `${node}:${i}`, spec }));
  }
  const gates = traced.some(addsUp) ? graph.gate(name, group.hint) : [];
  const all: string[] = [];
  const made: Record<string, Place>[] = [];
  for (const [k, own] of traced.entries()) {
    let before = gates.slice(k, k + 1);
    let values: Record<string, Place> = feeds;
    for (let step = 0; step < steps; step++) {
      const sliced = Object.fromEntries(Object.entries(slices).map(([input, of]) => [input, of[step]!]));
      const carried = step === 0 ? {} : Object.fromEntries(Object.entries(feed).map(([to, from]) => [to, values[from]!])); // prettier-ignore
      const call = { suffix: unrolled ? `_${step}` : '', after: before };
      values = graph.call(name, k, own, { ...feeds, ...sliced, ...carried }, call);
      before = [graph.callName(name, k, own, call)];
      all.push(...before);
      if (k === giver) made.push(values);
    }
  }
  for (const [output, first] of Object.entries(made[0]!)) {
    let place = first;
    if (unrolled) {
      const attrs = { T: attr.type(dtypeNumber(first.spec.dtype)), N: attr.int(steps), axis: attr.int(0) };
      const spec = { ...first.spec, shape: [steps, ...first.spec.shape] };
      place = graph.onHost(name, `${output}_all`, 'Pack', made.map((of) => of[output]!.node), attrs, spec); // prettier-ignore
    }
    fn.results[output] = place.spec;
    graph.fetch(name, output, place);
  }
  graph.fetch(name, DONE, allEnded(graph, name, all));
}

/** What is there once calls have ended. */
export function allEnded(graph: ReplicaGraph, name: string, calls: readonly string[]): Place {
  const attrs = { dtype: attr.type(dtypeNumber('bool')), value: attr.tensor(dtypeNumber('bool'), [], Uint8Array.of(1)) }; // prettier-ignore
  return graph.onHost(name, DONE, 'Const', calls.map((call) => `^${call}`), attrs, { shape: [], dtype: 'bool' }); // prettier-ignore
}
