/**
 * A call of XLA's by name, as a module of StableHLO in a graph: TensorFlow's own nodes for such calls know older interfaces only, and say
 * of no result that it takes the memory of an input.
 */
import { record } from '../trace/backend.js';
import { dtypeNumber } from '../../runtime/data_types.js';
import type { Value } from '../trace/graph.js';
import { attr } from '../trace/graphdef.js';
import type { Dtype } from '../types.js';

/** Names of element types in MLIR. */
const ELEMENTS: Partial<Record<Dtype, string>> = { float32: 'f32', bfloat16: 'bf16', uint8: 'ui8', int32: 'i32' };

/** Version of the node below: the text is checked no further, and one platform is enough. */
const VERSION = 5;

type Typed = Pick<Value, 'shape' | 'dtype'>;

const typeOf = ({ shape, dtype }: Typed): string => `tensor<${[...shape, ELEMENTS[dtype]!].join('x')}>`;

/** Dimensions from the fastest to the slowest: rows one after another. */
const layoutOf = ({ shape }: Typed): string => {
  const axes = shape.map((_, axis) => shape.length - 1 - axis);
  return `dense<${axes.length === 0 ? '' : `[${axes.join(', ')}]`}> : tensor<${axes.length}xindex>`;
};

export interface ModuleCall {
  target: string;
  /** Attributes of the call in MLIR, such as `{sizes = array<i64: 1>}` */
  config: string;
  results: readonly Typed[];
  /** Of results that take an input's memory, which the call may write over: result -> input, of one type. */
  aliases?: ReadonlyMap<number, number>;
}

/** The module's text, for inputs of these types. */
export function moduleText(call: ModuleCall, inputs: readonly Typed[]): string {
  const { target, config, results, aliases = new Map<number, number>() } = call;
  const types = inputs.map(typeOf);
  const parameters = inputs.map((_, i) => `%${i}`);
  const many = results.length > 1;
  const out = results.map(typeOf);
  const outs = many ? `(${out.join(', ')})` : out[0]!;
  const alias = [...aliases].map(
    ([result, input]) =>
      `#stablehlo.output_operand_alias<output_tuple_indices = [${many ? result : ''}], operand_index = ${input}, operand_tuple_indices = []>`,
  );
  const attributes = [
    'api_version = 4 : i32',
    `backend_config = ${config}`,
    ...(alias.length > 0 ? [`output_operand_aliases = [${alias.join(', ')}]`] : []),
    `operand_layouts = [${inputs.map(layoutOf).join(', ')}]`,
    `result_layouts = [${results.map(layoutOf).join(', ')}]`,
  ];
  return `module {
  func.func public @main(${parameters.map((p, i) => `${p}: ${types[i]}`).join(', ')}) -> ${outs} {
    %y${many ? `:${results.length}` : ''} = stablehlo.custom_call @${target}(${parameters.join(', ')}) {${attributes.join(', ')}} : (${types.join(', ')}) -> ${outs}
    return ${many ? results.map((_, i) => `%y#${i}`).join(', ') : '%y'} : ${out.join(', ')}
  }
}`;
}

/** Puts the call into the graph that is traced. */
export function callModule(call: ModuleCall, inputs: readonly Value[]): Value[] {
  const attrs = {
    version: attr.int(VERSION),
    module: attr.string(moduleText(call, inputs)),
    Sout: attr.shapes(call.results.map(({ shape }) => shape)),
    Tout: attr.types(call.results.map(({ dtype }) => dtypeNumber(dtype))),
    Tin: attr.types(inputs.map(({ dtype }) => dtypeNumber(dtype))),
    dim_args_spec: attr.types([]),
    platforms: attr.types([]),
    function_list: attr.types([]),
    has_token_input_output: attr.bool(false),
    disabled_checks: attr.types([]),
    use_shardy_partitioner: attr.bool(false),
  };
  return record('XlaCallModule', attrs, inputs);
}
