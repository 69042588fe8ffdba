// dist/node/: the entries for Node.js, of few files. As a tree of modules they take half a second to be found and read, and TensorFlow.js, which is
// CommonJS, as long again to be searched for its names, which an import does and a require() does not. Bundlers take the tree of dist/
// (the condition `module` of package.json): they must see what is imported.
import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = path.join(root, 'dist');

/** The entries, by their names in package.json, and the command. */
const ENTRIES = { index: 'index', checkpoints: 'checkpoints', jit: 'jit', layers: 'layers', server: 'server', training: 'training', main: 'cli/main' }; // prettier-ignore

/** Has TensorFlow.js from require(): the same instance as that of who imports it, under one name in all files. */
const requiredTensorFlow = {
  name: 'required TensorFlow.js',
  setup({ onLoad, onResolve }) {
    const name = '@tensorflow/tfjs';
    onLoad({ filter: /\/dist\/.*\.js$/ }, ({ path: file }) => ({
      contents: fs.readFileSync(file, 'utf8').replace(`import * as tf from '${name}';`, `import tf from '${name}';`),
      resolveDir: path.dirname(file),
    }));
    onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path: name, namespace: 'required' }));
    onLoad({ filter: /.*/, namespace: 'required' }, () => ({
      contents: `import { createRequire } from 'node:module'; export default createRequire(import.meta.url)('${name}');`,
    }));
  },
};

/** A digest of all code, lest it be read for one at each start (src/runtime/code.ts). */
function digest() {
  const hash = createHash('sha1');
  const files = fs.readdirSync(dist, { recursive: true, encoding: 'utf8' });
  for (const file of files.filter((name) => name.endsWith('.js') && !/^(web|node|demo)\b/.test(name)).sort())
    hash.update(file).update(fs.readFileSync(path.join(dist, file)));
  return hash.digest('hex');
}

export async function buildNode(outdir = path.join(dist, 'node')) {
  fs.rmSync(outdir, { recursive: true, force: true });
  await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries(
      Object.entries(ENTRIES).map(([name, file]) => [name, path.join(dist, `${file}.js`)]),
    ),
    outdir,
    bundle: true,
    splitting: true,
    chunkNames: 'chunk-[hash]',
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    logLevel: 'error',
    define: { BUILT_CODE: JSON.stringify(digest()) },
    plugins: [requiredTensorFlow],
  });
}

if (process.argv[1]?.endsWith('build_node.mjs')) await buildNode();
