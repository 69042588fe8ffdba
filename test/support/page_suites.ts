/** Test files of this project run in a page: bundled with the browser's sources, by mocha's own build for browsers. */
import { build } from 'esbuild';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Browser } from 'playwright-core';
import { browserSources, copyWasm, NOT_TAKEN } from '../../scripts/build_web.mjs';
import { openPage, serve } from './pages.js';

const HERE = path.resolve('test/support/page');
/** What stands for Node's modules and for files of tests, in files of tests. */
const INSTEAD: Readonly<Record<string, string>> = {
  'node:fs': 'fs.ts',
  'node:url': 'url.ts',
  './support/backends.js': 'backends.ts',
  './models/mamba2/pretrained.js': 'pretrained.ts',
};

/** What a test came to. */
export interface Outcome {
  readonly title: string;
  /** Null: it passed. */
  readonly error: string | null;
}

/** @returns the bundle's folder */
export async function bundleSuites(files: readonly string[]): Promise<string> {
  const outdir = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-page-'));
  await build({
    entryPoints: Object.fromEntries(files.map((file, i) => [`suite${i}`, file])),
    outdir,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'error',
    external: NOT_TAKEN,
    plugins: [
      {
        name: 'tests in a page',
        setup({ onResolve }) {
          onResolve({ filter: /^(node:|\.)/ }, ({ path: name, importer }) => {
            if (!importer.startsWith(path.resolve('test')) || importer.startsWith(HERE)) return null;
            const plain = name.startsWith('.') ? `./${name.split('/').filter((p) => !/^\.+$|^src$/.test(p)).join('/')}` : name; // prettier-ignore
            const known = INSTEAD[plain] ?? INSTEAD[`./support/${plain.slice(2)}`];
            return known === undefined ? null : { path: path.join(HERE, known) };
          });
        },
      },
      browserSources,
    ],
  });
  copyWasm(outdir);
  return outdir;
}

/**
 * Runs bundled suites in a page.
 * @param skipped titles that are passed over
 */
export async function runSuites(
  browser: Browser,
  folder: string,
  names: readonly string[],
  device: string,
  skipped = /^$/,
): Promise<Outcome[]> {
  const page = `<!doctype html><base href="/"><script src="/mocha/mocha.js"></script><script type="module">
    mocha.setup({ ui: 'bdd', timeout: 0, reporter: function () {} });
    mocha.grep(${String(skipped)}).invert();
    const outcomes = [];
    try {
      for (const name of ${JSON.stringify(names)}) await import('/suites/' + name + '.js');
      mocha.run()
        .on('pass', (test) => outcomes.push({ title: test.fullTitle(), error: null }))
        .on('fail', (test, error) => outcomes.push({ title: test.fullTitle(), error: String(error.stack ?? error) }))
        .on('end', () => (globalThis.outcomes = outcomes));
    } catch (error) {
      globalThis.outcomes = [{ title: 'the page', error: String(error.stack ?? error) }];
    }
  </script>`;
  const server = await serve({
    folders: { suites: folder, fixtures: 'test/fixtures', models: 'models', mocha: 'node_modules/mocha' },
    pages: { '/': page },
  });
  const opened = await openPage(browser, `${server.url}/?device=${device}`);
  try {
    await opened.waitForFunction('globalThis.outcomes', undefined, { timeout: 280_000 });
    return await opened.evaluate('globalThis.outcomes');
  } finally {
    await opened.close();
    await server.close();
  }
}
