/**
 * Compiles src/kernels/wasm/*.as (AssemblyScript) and writes them as src/kernels/wasm/binary.ts: `npx tsx scripts/wasm_kernels.ts`. The
 * compiler's version is pinned, so that the bytes are the same everywhere; a test compares them.
 */
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What we use of the compiler. Its own types declare names of AssemblyScript for every file of the project. */
interface Compiler {
  main(
    options: readonly string[],
    files: {
      readFile(name: string): string | null;
      writeFile(name: string, contents: Uint8Array): void;
      listFiles(): string[];
    },
  ): Promise<{ error: Error | null; stderr: { toString(): string } }>;
}

const folder = new URL('../src/kernels/wasm/', import.meta.url);

/** The text of binary.ts. @throws Error with what the compiler says */
export async function wasmKernels(): Promise<string> {
  const compiler: string = 'assemblyscript/asc';
  const { default: asc } = (await import(compiler)) as { default: Compiler };
  const source = (name: string): string | null => {
    const file = new URL(name.replace(/\.ts$/, '.as'), folder);
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : null;
  };
  let binary: Uint8Array | undefined;
  const options = [
    '-O3',
    '--noAssert',
    '--runtime',
    'stub',
    '--enable',
    'simd',
    '--enable',
    'threads',
    '--importMemory',
    '--sharedMemory',
    '--maximumMemory',
    '65536',
    '--noExportMemory',
  ];
  const { error, stderr } = await asc.main(['kernels.ts', 'threads.ts', ...options, '--outFile', 'kernels.wasm'], {
    readFile: (name) => source(name),
    writeFile: (_name, contents) => void (binary = contents),
    listFiles: () => [],
  });
  if (error || !binary) throw new Error(`AssemblyScript: ${stderr.toString()}`, { cause: error });
  return [
    '/** The kernels, compiled; made by `npx tsx scripts/wasm_kernels.ts`. */',
    '// prettier-ignore',
    `export const BINARY = '${Buffer.from(binary).toString('base64')}';`,
    '',
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  fs.writeFileSync(new URL('binary.ts', folder), await wasmKernels());
