/**
 * One graph over several devices: each has variables of its own, and calls of traced functions over them; what they give is summed, and given to
 * calls of other devices, which TensorFlow carries there. Devices are of this process or of workers (runtime/cluster).
 */
import { ArgumentError, DisposedError } from '../../base/errors.js';
import { inPieces, type Pieces } from '../../base/pieces.js';
import { dtypeNumber, DT_RESOURCE } from '../../runtime/data_types.js';
import { type FeedPlace, NativeSession, type PreparedCall } from '../../runtime/native_session.js';
import { TracingError } from '../errors.js';
import { FIRST_GROUP } from '../ops/all_reduce.js';
import { traceInPieces } from '../trace/backend.js';
import { attr, type Attrs, graphDef, type NodeText } from '../trace/graphdef.js';
import type { Bytes, CompileHook, DefineOptions, HeldBytes, LoopOptions, TensorSpec, TracedFunction, VariableSpec } from '../types.js'; // prettier-ignore
import { nodeName, type Traced, traceFunction } from './function.js';
import { type Filling, fillInTurn } from './filling.js';
import { loopBody } from './loop.js';
import { Session } from './session.js';
import { storageNodes } from './variable_io.js';

/** A device by TensorFlow's name, and the host beside it. */
export interface Placement {
  /** e.g. '/job:worker/replica:0/task:1/device:GPU:0' */
  device: string;
  /** e.g. '/job:worker/replica:0/task:1/device:CPU:0' */
  host: string;
}

export interface ReplicaOptions {
  name: string;
  placements: readonly Placement[];
  /** A ConfigProto's bytes. */
  config: Uint8Array;
  /** Of the session; '' for this process. */
  target: string;
  memoryAdvice?: string;
  onCompile?: CompileHook;
  /** Asked between pieces of a trace; what it throws ends it. */
  alive?: () => void;
}

/** A tensor of the graph: the output of a node. */
export interface Place {
  node: string;
  spec: TensorSpec;
}

/** How a function is called once more in one entry. */
export interface CallOrder {
  /** Behind the name of the call. */
  suffix?: string;
  /** Calls that end before it begins (callName()). */
  after?: readonly string[];
}

/** A run of the graph: what is fed by which name, and what is fetched. */
interface Entry {
  feeds: Map<string, FeedPlace>;
  fetches: Map<string, Place>;
  /** By the names of what is fetched. */
  prepared: Map<string, PreparedCall>;
}

/** Values by the names of feeds. */
export type Feeds = Readonly<Record<string, ArrayBufferView>>;

const prefixOf = (k: number): string => `d${k}_`;

/** Nodes as those of a device. */
function placed(nodes: readonly NodeText[], k: number, { device, host }: Placement): NodeText[] {
  const renamed = (name: string): string =>
    name.startsWith('^') ? `^${prefixOf(k)}${name.slice(1)}` : prefixOf(k) + name;
  return nodes.map((node) => ({
    name: renamed(node.name),
    op: node.op,
    inputs: node.inputs.map(renamed),
    // resources of devices of one process lie apart, but names cost nothing
    attrs: node.op === 'VarHandleOp' ? { ...node.attrs, shared_name: attr.string(renamed(node.name)) } : node.attrs,
    device: node.device ? host : device,
  }));
}

/** See the file. Declare variables, trace functions, wire entries; then load() once, and run entries. */
export class ReplicaGraph {
  private readonly variables: Map<string, VariableSpec>[];
  private readonly nodes: NodeText[] = [];
  private readonly functions = new Map<string, Traced>();
  private readonly entries = new Map<string, Entry>();
  private readonly native: NativeSession;
  private parts: Session[] = [];
  private disposed = false;

  constructor(private readonly options: ReplicaOptions) {
    this.variables = options.placements.map(() => new Map<string, VariableSpec>());
    this.native = new NativeSession(options.config, options.target);
  }

  get size(): number {
    return this.options.placements.length;
  }

  /** Declares a variable of device k. */
  variable(k: number, name: string, spec: VariableSpec): void {
    this.variables[k]!.set(name, spec);
  }

  /**
   * Traces a function over variables that each device that calls it must have; the event loop runs where a generator yields.
   * @param of the one device whose variables it may use. Default: those of all
   */
  async trace(
    name: string,
    inputs: Record<string, TensorSpec>,
    fn: TracedFunction,
    options: DefineOptions,
    of?: number,
  ): Promise<Traced> {
    const all = of === undefined ? new Map(this.variables.flatMap((each) => [...each])) : this.variables[of]!;
    return this.taken(
      name,
      traceFunction(name, inputs, all, (given, vars) => fn(given, vars()), fn, options),
    );
  }

  /** Traces the loop of a function, over the variables of device k. */
  async traceLoop(name: string, body: Traced, options: LoopOptions, k = 0): Promise<Traced> {
    const loop = loopBody(name, body, options);
    const never: TracedFunction = () => {
      throw new TracingError(`A loop ('${name}') cannot be the body of another.`, { name });
    };
    return this.taken(name, traceFunction(name, loop.inputs, this.variables[k]!, loop.body, never, { xla: body.xla }));
  }

  private async taken(name: string, work: Pieces<Traced>): Promise<Traced> {
    const began = performance.now();
    const traced = await traceInPieces(work, () => this.alive());
    this.options.onCompile?.(name, 'trace', performance.now() - began);
    this.functions.set(name, traced);
    return traced;
  }

  /** Begins a run of the graph under a name. */
  entry(name: string): void {
    this.entries.set(name, { feeds: new Map(), fetches: new Map(), prepared: new Map() });
  }

  /** What is fed to device k in an entry under a name. */
  feed(entry: string, k: number, name: string, spec: TensorSpec): Place {
    const { feeds } = this.entries.get(entry)!;
    const node = `${prefixOf(k)}${nodeName(entry)}_${nodeName(name)}`;
    const type = dtypeNumber(spec.dtype);
    feeds.set(name, [`${node}:0`, type, spec.shape]);
    const attrs = { dtype: attr.type(type), shape: attr.shape(spec.shape) };
    this.nodes.push({ name: node, op: 'Placeholder', inputs: [], attrs, device: this.options.placements[k]!.host });
    return { node, spec };
  }

  /** The node of a call. */
  callName(entry: string, k: number, fn: Traced, { suffix = '' }: CallOrder = {}): string {
    return `${prefixOf(k)}${nodeName(entry)}_${nodeName(fn.name)}${suffix}`;
  }

  /** Calls a function on device k. @returns its outputs */
  call(
    entry: string,
    k: number,
    fn: Traced,
    inputs: Readonly<Record<string, Place>>,
    order: CallOrder = {},
  ): Record<string, Place> {
    const node = this.callName(entry, k, fn, order);
    const given = Object.keys(fn.inputs).map((input) => inputs[input]!.node);
    const outputs = Object.entries(fn.outputs);
    const types = Object.values(fn.inputs).map(({ dtype }) => dtypeNumber(dtype));
    const attrs = {
      Tin: attr.types([...types, ...fn.variables.map(() => DT_RESOURCE)]),
      Tout: attr.types(outputs.map(([, { dtype }]) => dtypeNumber(dtype))),
      f: attr.func(fn.text.name),
      config_proto: attr.string(''),
      executor_type: attr.string(''),
      ...(fn.xla && !fn.clusters ? { _XlaMustCompile: attr.bool(true) } : {}),
    };
    const handles = fn.variables.map((name) => `${prefixOf(k)}var_${name}`);
    this.nodes.push({
      name: node,
      op: 'StatefulPartitionedCall',
      inputs: [...given, ...handles, ...(order.after ?? []).map((name) => `^${name}`)],
      attrs,
      device: this.options.placements[k]!.device,
    });
    return Object.fromEntries(outputs.map(([output, spec], i) => [output, { node: `${node}:${i}`, spec }]));
  }

  /** The sum of tensors of one shape, in their order, on device k. */
  sum(entry: string, k: number, name: string, places: readonly Place[]): Place {
    const [first] = places as [Place, ...Place[]];
    if (places.length === 1) return first;
    const node = `${prefixOf(k)}${nodeName(entry)}_sum_${nodeName(name)}`;
    const attrs = { T: attr.type(dtypeNumber(first.spec.dtype)), N: attr.int(places.length) };
    const inputs = places.map((place) => place.node);
    this.nodes.push({ name: node, op: 'AddN', inputs, attrs, device: this.options.placements[k]!.device });
    return { node, spec: first.spec };
  }

  /**
   * A sum over all devices that has nothing to do but be there: for what calls of an entry add up TensorFlow makes an executor only where the
   * graph itself has such a node. @returns a node of each device, which its calls are to follow
   */
  gate(entry: string, hint: string): string[] {
    const float = dtypeNumber('float32');
    return this.options.placements.map(({ device }, k) => {
      const node = `${prefixOf(k)}${nodeName(entry)}_gate`;
      const value = attr.tensor(float, [1], new Uint8Array(4));
      this.nodes.push({ name: `${node}_value`, op: 'Const', inputs: [], attrs: { dtype: attr.type(float), value }, device }); // prettier-ignore
      const attrs = {
        T: attr.type(float),
        group_size: attr.int(this.size),
        group_key: attr.int(FIRST_GROUP),
        instance_key: attr.int(11),
        merge_op: attr.string('Add'),
        final_op: attr.string('Id'),
        subdiv_offsets: attr.int([0]),
        wait_for: attr.int([]),
        communication_hint: attr.string(hint),
        timeout_seconds: attr.float(0),
      };
      this.nodes.push({ name: node, op: 'CollectiveReduce', inputs: [`${node}_value`], attrs, device });
      return node;
    });
  }

  /** An op on the host of device 0. @returns its first output */
  onHost(entry: string, name: string, op: string, inputs: readonly string[], attrs: Attrs, spec: TensorSpec): Place {
    const node = `${nodeName(entry)}_${nodeName(name)}`;
    this.nodes.push({ name: node, op, inputs, attrs, device: this.options.placements[0]!.host });
    return { node, spec };
  }

  /** What an entry gives under a name. What is not needed for that is not run. */
  fetch(entry: string, name: string, place: Place): void {
    this.entries.get(entry)!.fetches.set(name, place);
  }

  /** Hands the graph over and fills the variables, device after device. */
  async load(): Promise<void> {
    const { name, placements, memoryAdvice } = this.options;
    const storage = placements.flatMap((at, k) => placed(storageNodes(this.variables[k]!), k, at));
    const library = [...this.functions.values()].flatMap((fn) => [...fn.library, fn.text]);
    const unique = new Map(library.map((text) => [text.name, text]));
    const work = graphDef([...storage, ...this.nodes], [...unique.values()]);
    await this.native.load(await inPieces(work, { alive: () => this.alive() }));
    this.parts = this.variables.map(
      (own, k) => new Session(name, own, memoryAdvice, true, { native: this.native, prefix: prefixOf(k) }),
    );
    for (const [k, own] of this.variables.entries())
      await this.parts[k]!.clear([...own].filter(([, { init }]) => typeof init !== 'function').map(([name]) => name));
    const filled: Filling[] = [];
    // a variable of all devices after another, since their parts may come of one reading
    for (const name of new Set(this.variables.flatMap((own) => [...own.keys()])))
      for (const [k, own] of this.variables.entries()) {
        const spec = own.get(name);
        if (spec && typeof spec.init === 'function')
          filled.push({ spec, bytes: spec.init, set: (bytes) => this.parts[k]!.set(name, bytes) });
      }
    await fillInTurn(filled);
  }

  /** Runs an entry. @returns the first element of each float32 tensor that it fetches */
  async run(name: string, feeds: Feeds): Promise<Record<string, number>> {
    const outputs = [...this.entries.get(name)!.fetches.keys()];
    const results = await this.execute(name, feeds, outputs);
    return Object.fromEntries(outputs.map((output, i) => [output, new Float32Array(results[i]!)[0]!]));
  }

  /** Runs an entry. @returns the bytes of the outputs that are wanted */
  async execute(name: string, feeds: Feeds, wanted: readonly string[]): Promise<ArrayBuffer[]> {
    this.alive();
    const entry = this.entries.get(name)!;
    const outlet = ({ node }: Place): string => (node.includes(':') ? node : `${node}:0`);
    const key = wanted.join();
    let prepared = entry.prepared.get(key);
    if (!prepared) {
      const fetches = wanted.map((output) => outlet(entry.fetches.get(output)!));
      prepared = this.native.prepare([...entry.feeds.values()], fetches);
      entry.prepared.set(key, prepared);
    }
    const values = [...entry.feeds.keys()].map((feed) => {
      const value = feeds[feed];
      if (!value) throw new ArgumentError(`run('${name}'): the input '${feed}' is missing.`, { name, feed });
      return value;
    });
    return this.parts[0]!.execute(`run('${name}')`, prepared, values);
  }

  private alive(): void {
    this.options.alive?.();
    if (this.disposed) throw new DisposedError(`${this.options.name} was disposed.`);
  }

  /** The bytes of a variable of device k, at once. */
  readSync(k: number, name: string): Uint8Array {
    return this.parts[k]!.readSync(name);
  }

  /** The same, with the event loop free meanwhile. */
  read(k: number, name: string): Promise<Uint8Array> {
    return this.parts[k]!.read(name);
  }

  /** Sets variables of device k to zeros. */
  clear(k: number, names: readonly string[]): Promise<void> {
    return this.parts[k]!.clear(names);
  }

  /** Sets a variable of device k, at once. */
  writeSync(k: number, name: string, bytes: Bytes): void {
    this.parts[k]!.setSync(name, bytes);
  }

  /** Sets a variable of device k. */
  write(k: number, name: string, bytes: Bytes | HeldBytes): Promise<void> {
    return this.parts[k]!.set(name, bytes);
  }

  /** Frees what is held on the devices. @param told whether workers are told: not where one is lost, which they would wait for */
  dispose(told: boolean): void {
    if (this.disposed) return;
    this.disposed = true;
    const close = (): void => this.native.close();
    if (told && this.options.target !== '') void this.native.end().then(close, close);
    else close();
  }
}

export type { Traced };
