// The browser's build: dist/web/, made of the same sources as dist/. Files below src/browser/instead/ stand for those of the same path below
// src/, and those of src/browser/node/ for Node's modules. Entries share chunks and leave packages to the page's bundler;
// tfjs-mamba2.min.js is one file with all in it.
import { build } from 'esbuild';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const src = path.join(root, 'src');
const instead = path.join(src, 'browser/instead');
const node = path.join(src, 'browser/node');
const shim = path.join(src, 'browser/process.ts');

/** Sources whose import alone does something. */
const EFFECTS = /src\/(layers|training)\//;

/** Names of values that a source exports, those of `export *` left out. */
function exportsOf(text) {
  const listed = [...text.matchAll(/^export \{([^}]*)\}/gm)].flatMap(([, names]) => names.split(','));
  const declared = [...text.matchAll(/^export (?:async )?(?:function\*?|const|class) (\w+)/gm)].map(([, name]) => name);
  const values = listed
    .map((name) => name.replace(/\/\/.*/g, '').trim())
    .filter((name) => name && !name.startsWith('type '));
  return [...values.map((name) => name.split(' as ').at(-1)), ...declared];
}

/** A file that stands for another, with what that exports besides: its constant `otherwise`, under each of the names. */
function withOtherNames(text, real) {
  if (!/^const otherwise = /m.test(text)) return text;
  const there = exportsOf(text);
  const missing = exportsOf(fs.readFileSync(real, 'utf8')).filter((name) => !there.includes(name));
  return `${text}${missing.map((name) => `export const ${name} = otherwise;`).join('\n')}`;
}

/** @type {import('esbuild').Plugin} */
export const browserSources = {
  name: 'browser sources',
  setup({ onLoad, onResolve }) {
    // `process` for our own sources alone: packages ask by it whether they are in Node
    onLoad({ filter: /\.ts$/ }, ({ path: file }) => {
      const own = fs.readFileSync(file, 'utf8');
      const contents = file.startsWith(instead)
        ? withOtherNames(own, path.join(src, path.relative(instead, file)))
        : own;
      if (contents !== own) return { contents, loader: 'ts', resolveDir: path.dirname(file) };
      if (file === shim || !/\bprocess\./.test(contents)) return null;
      return { contents: `import { process } from ${JSON.stringify(shim)};${contents}`, loader: 'ts' };
    });
    onResolve({ filter: /^node:/ }, ({ path: name }) => {
      const file = path.join(node, `${name.slice('node:'.length).replace('/promises', '')}.ts`);
      // what is imported by files of which nothing is used goes with them
      return fs.existsSync(file)
        ? { path: file, sideEffects: false }
        : { path: name, external: true, sideEffects: false };
    });
    onResolve({ filter: /^\./ }, ({ path: name, resolveDir }) => {
      const file = path.resolve(resolveDir, name).replace(/\.js$/, '.ts');
      const relative = path.relative(src, file);
      if (relative.startsWith('..')) return null;
      const other = path.join(instead, relative);
      const used = !resolveDir.startsWith(instead) && fs.existsSync(other) ? other : file;
      if (!fs.existsSync(used)) return null;
      return { path: used, sideEffects: EFFECTS.test(used) };
    });
  },
};

const common = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  platform: 'browser',
  target: 'es2022',
  minify: true,
  legalComments: 'none',
  logLevel: 'error',
  metafile: true,
  plugins: [browserSources],
};

/** The entries that a page may import, by their names in package.json. */
export const ENTRIES = { index: 'index.ts', layers: 'layers.ts', training: 'training.ts', checkpoints: 'checkpoints.ts', browser: 'browser.ts', worker: 'worker.ts' }; // prettier-ignore

/** Packages that the page has as peers, or its bundler finds. */
const EXTERNAL = ['@tensorflow/*', '@huggingface/tokenizers', 're2js', 'leven', 'hyparquet', 'hyparquet-compressors'];

/** Modules of Node for which TensorFlow.js has branches, which are not taken. */
export const NOT_TAKEN = ['crypto', 'fs', 'path', 'worker_threads', 'perf_hooks', 'os', 'util', 'node-fetch', 'string_decoder']; // prettier-ignore

/** Copies TensorFlow.js' WebAssembly binaries into a folder. */
export function copyWasm(outdir) {
  const wasm = path.dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm'));
  for (const name of fs.readdirSync(wasm).filter((each) => each.endsWith('.wasm')))
    fs.copyFileSync(path.join(wasm, name), path.join(outdir, name));
}

/** Node's modules that a build asks for. */
export function nodeImports(metafile) {
  const outputs = Object.values(metafile.outputs);
  return [
    ...new Set(
      outputs.flatMap(({ imports }) => imports.map((each) => each.path).filter((each) => each.startsWith('node:'))),
    ),
  ];
}

export async function buildWeb(outdir = path.join(root, 'dist/web')) {
  fs.rmSync(outdir, { recursive: true, force: true });
  const entries = Object.entries(ENTRIES).filter(([, file]) => fs.existsSync(path.join(src, file)));
  const apart = await build({
    ...common,
    entryPoints: Object.fromEntries(entries.map(([name, file]) => [name, path.join(src, file)])),
    outdir,
    splitting: true,
    chunkNames: 'chunk-[hash]',
    external: EXTERNAL,
  });
  const whole = await build({
    ...common,
    entryPoints: {
      'tfjs-mamba2.min': path.join(src, 'whole.ts'),
      worker_script: path.join(src, 'worker_script.ts'),
    },
    outdir,
    external: NOT_TAKEN,
  });
  copyWasm(outdir);
  const asked = [apart, whole].flatMap(({ metafile }) => nodeImports(metafile));
  if (asked.length > 0) throw new Error(`The browser's build asks for ${asked.join(', ')}`);
  return { apart: apart.metafile, whole: whole.metafile };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildWeb();
