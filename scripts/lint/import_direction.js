/**
 * ESLint rule that keeps the arrows of ARCHITECTURE.md: a file in one room of src/ may only import from the rooms
 * listed for it here (and from its own). `base` is open to all.
 */
import path from 'node:path';

const below = ['runtime', 'jit', 'kernels', 'layers', 'checkpoints', 'tokenizers', 'generation', 'quant', 'engine'];
/** room -> rooms that it may import */
export const ROOMS = {
  base: [],
  runtime: [],
  jit: ['runtime'],
  kernels: ['runtime', 'jit'],
  layers: ['jit', 'kernels'],
  checkpoints: [],
  tokenizers: [],
  generation: ['tokenizers'],
  quant: ['jit', 'kernels', 'layers'],
  engine: ['runtime', 'jit', 'layers', 'checkpoints', 'tokenizers', 'generation', 'quant'],
  models: below,
  peft: [...below, 'models'],
  training: [...below, 'models', 'peft'],
  pipelines: [...below, 'models', 'peft', 'training'],
  server: [...below, 'models'],
  cli: [...below, 'models', 'peft', 'training', 'pipelines', 'server'],
  browser: [...below, 'models', 'peft', 'training', 'pipelines'],
};

/** @param {string} file @returns {string | null} the room of a file below src/, null for files directly in src/ */
function roomOf(file) {
  const parts = file.split(path.sep);
  const src = parts.lastIndexOf('src');
  return src < 0 || src + 2 >= parts.length ? null : parts[src + 1];
}

/** @type {import('eslint').Rule.RuleModule} */
export const importDirection = {
  meta: {
    type: 'problem',
    schema: [],
    messages: { arrow: "'{{from}}' may not import '{{to}}' (see ARCHITECTURE.md)" },
  },
  create(context) {
    const from = roomOf(context.filename);
    if (from === null) return {};
    const check = (node) => {
      const source = node.source?.value;
      if (typeof source !== 'string' || !source.startsWith('.')) return;
      const target = path.resolve(path.dirname(context.filename), source);
      const to = roomOf(target) ?? roomOf(path.join(target, 'x'));
      if (to === null || to === from || to === 'base') return;
      if (!(ROOMS[from] ?? []).includes(to)) context.report({ node, messageId: 'arrow', data: { from, to } });
    };
    return {
      ImportDeclaration: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      ImportExpression: check,
    };
  },
};
