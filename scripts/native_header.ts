/**
 * Writes native/host_calls.h, the C++ side of src/kernels/host/spec.ts:
 *
 *     npx tsx scripts/native_header.ts
 *
 * It refuses to change what a call means under a version that is out already.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { pathToFileURL } from 'node:url';
import { type CallSpec, DENSE_PRODUCT, INT4_PRODUCT, LAYER_STEP, TILE } from '../src/kernels/host/spec.js';
import { NATIVE_VERSION } from '../src/runtime/paths.js';

export const HEADER = 'native/host_calls.h';

const CALLS: readonly [name: string, spec: CallSpec][] = [
  ['Int4Product', INT4_PRODUCT],
  ['DenseProduct', DENSE_PRODUCT],
  ['LayerStep', LAYER_STEP],
];

const TYPES = {
  int: 'int64_t',
  float: 'float',
  flag: 'bool',
} as const;
const READS = {
  int: (at: number) => `n[${at}]`,
  float: (at: number) => `FloatOfBits(n[${at}])`,
  flag: (at: number) => `n[${at}] != 0`,
} as const;
const POINTERS = { float: 'const float*', uint8: 'const uint8_t*', level: 'const char*' } as const;

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function numbersStruct(name: string, { numbers }: CallSpec): string[] {
  const all = Object.entries(numbers);
  const reads = all.map(([key, { kind }], at) => `        ${snake(key)}(${READS[kind](at)})`);
  return [
    `struct ${name}Call {`,
    `  static constexpr size_t kNumbers = ${all.length};`,
    ...all.map(([key, { kind, meaning }]) => `  ${TYPES[kind]} ${snake(key)};  // ${meaning}`),
    `  explicit ${name}Call(const int64_t* n)`,
    `      : ${reads.join(',\n').trimStart()} {}`,
    '};',
  ];
}

function operandsStruct(name: string, { operands }: CallSpec): string[] {
  const all = Object.entries(operands);
  return [
    `// Operands of such a call, in order; null where there is none. at(i) points to the i-th tensor.`,
    `struct ${name}Operands {`,
    ...all.map(([key, { type, meaning }]) => `  ${POINTERS[type]} ${snake(key)} = nullptr;  // ${meaning}`),
    `  template <class At>`,
    `  ${name}Operands(const ${name}Call& c, At at) {`,
    `    size_t next = 0;`,
    ...all.map(([key, { type, when }]) => {
      const given = when ? `if (${when.map((own) => `c.${snake(own)}`).join(' || ')}) ` : '';
      return `    ${given}${snake(key)} = static_cast<${POINTERS[type]}>(at(next++));`;
    }),
    '  }',
    '};',
  ];
}

/** A digest of all that the header says but the version. */
function digest(): string {
  return createHash('sha1')
    .update(JSON.stringify([TILE, CALLS]))
    .digest('hex')
    .slice(0, 12);
}

const versionLine = (version: number): string => `// Version ${version} is the description ${digest()}.`;

/** The header as it should be. */
export function nativeHeader(): string {
  const lines = [
    '// How programs call the kernels of CPUs. Written by scripts/native_header.ts from src/kernels/host/spec.ts, which to edit.',
    versionLine(NATIVE_VERSION),
    '#pragma once',
    '',
    '#include <cstddef>',
    '#include <cstdint>',
    '#include <cstring>',
    '',
    '// What the addon says of itself when it is loaded.',
    `constexpr int kNativeVersion = ${NATIVE_VERSION};`,
    '',
    '// Outputs of a tile.',
    `constexpr int kTile = ${TILE};`,
    '',
    'inline float FloatOfBits(int64_t bits) {',
    '  const uint32_t word = static_cast<uint32_t>(bits);',
    '  float value;',
    '  std::memcpy(&value, &word, 4);',
    '  return value;',
    '}',
    ...CALLS.flatMap(([name, spec]) => ['', ...numbersStruct(name, spec), '', ...operandsStruct(name, spec)]),
  ];
  return `${lines.join('\n')}\n`;
}

/** Whether the header there has this version, of another description. */
export function versionIsTaken(header: string): boolean {
  return header.includes(`// Version ${NATIVE_VERSION} `) && !header.includes(versionLine(NATIVE_VERSION));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (fs.existsSync(HEADER) && versionIsTaken(fs.readFileSync(HEADER, 'utf8'))) {
    console.error(`The calls changed: raise NATIVE_VERSION in src/runtime/paths.ts, which is ${NATIVE_VERSION} now.`);
    process.exit(1);
  }
  fs.writeFileSync(HEADER, nativeHeader());
}
