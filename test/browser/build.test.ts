/** The browser's build: nothing of Node.js in it, all names of the package, and bundles of a program in real Chromium. */
import { expect } from 'chai';
import { build } from 'esbuild';
import { Linter } from 'eslint';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Metafile } from 'esbuild';
import type { Browser } from 'playwright-core';
import type * as Whole from '../../src/whole.js';
import { buildWeb, ENTRIES, nodeImports } from '../../scripts/build_web.mjs';
import { inChromium, openPage, serve } from '../support/pages.js';

const PROGRAM = `
import { pipeline } from 'tfjs-mamba2';
import { configureBrowser } from 'tfjs-mamba2/browser';
import { RMSNorm } from 'tfjs-mamba2/layers';
configureBrowser({ packaged_models: '/models/', wasm_folder: '/wasm/' });
const write = await pipeline('text-generation', 'tiny-books-mamba2');
const [{ generated_text }] = await write('Once upon a time', { max_new_tokens: 8, do_sample: false });
write.dispose();
globalThis.result = [generated_text, typeof RMSNorm];
`;

const EXPECTED = ['Once upon a time of year, and a little girl,', 'function'];

/** Names that a page does not have, whatever code asks for them. */
const OF_NODE = ['Buffer', 'process', 'require', 'module', 'global', '__dirname', '__filename', 'setImmediate'];

/** Files that have TensorFlow.js in them. */
const WHOLE = /^(tfjs-mamba2|worker_script)/;

/** Names that code uses and does not define, but where it asks for their type first. */
function undefinedNames(code: string): string[] {
  const config = { rules: { 'no-undef': 'error' } } as const;
  const found = new Linter().verify(code, {
    ...config,
    languageOptions: { ecmaVersion: 'latest', sourceType: 'module' },
  });
  return [...new Set(found.flatMap(({ message }) => /^'(.+)' is not defined/.exec(message)?.[1] ?? []))];
}

describe("the browser's build", function () {
  this.timeout(120_000);
  let root: string;
  let project: string;
  let web: string;
  let made: { apart: Metafile; whole: Metafile };

  before(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-web-'));
    project = path.join(root, 'project');
    const packages = path.join(project, 'node_modules');
    const own = path.join(packages, 'tfjs-mamba2');
    web = path.join(own, 'dist/web');
    fs.mkdirSync(own, { recursive: true });
    made = await buildWeb(web);
    // as an installed package has it: its files, its packages beside it
    fs.copyFileSync('package.json', path.join(own, 'package.json'));
    for (const name of fs.readdirSync('node_modules').filter((each) => !each.startsWith('.')))
      fs.symlinkSync(path.resolve('node_modules', name), path.join(packages, name));
    fs.writeFileSync(path.join(project, 'program.js'), PROGRAM);
    fs.writeFileSync(
      path.join(project, 'index.html'),
      '<!doctype html><script type="module" src="/program.js"></script>',
    );
  });
  after(() => fs.rmSync(root, { recursive: true, force: true }));

  const files = (): string[] => fs.readdirSync(web).filter((name) => name.endsWith('.js'));

  it("asks for none of Node's modules, and uses none of its names", () => {
    expect(nodeImports(made.apart)).to.deep.equal([]);
    expect(nodeImports(made.whole)).to.deep.equal([]);
    for (const name of files().filter((each) => !WHOLE.test(each))) {
      const text = fs.readFileSync(path.join(web, name), 'utf8');
      expect(
        undefinedNames(text).filter((each) => OF_NODE.includes(each)),
        name,
      ).to.deep.equal([]);
    }
    // the check itself sees such a name
    expect(undefinedNames('Buffer.from([]); typeof process')).to.deep.equal(['Buffer']);
  });

  it('exports what the package exports in Node.js, under the condition browser', async () => {
    const { exports } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as {
      exports: Record<string, Record<string, string> | string>;
    };
    for (const name of ['index', 'layers', 'training', 'checkpoints']) {
      const entry = exports[name === 'index' ? '.' : `./${name}`] as Record<string, string>;
      expect(Object.keys(entry)).to.deep.equal(['types', 'browser', 'module', 'default']);
      expect(entry['browser']).to.equal(`./dist/web/${name}.js`);
      const output = Object.entries(made.apart.outputs).find(([file]) => file.endsWith(`/dist/web/${name}.js`))![1];
      const there = Object.keys((await import(`../../src/${name}.js`)) as object);
      expect(output.exports, name).to.have.members(there);
      expect(Object.keys(ENTRIES)).to.include(name);
    }
    // compiling is Node's
    expect(Object.keys(exports['./jit'] as object)).to.deep.equal(['types', 'module', 'default']);
  });

  it('is small: without TensorFlow.js, all of it is below 236 kB gzipped', () => {
    const all = files().filter((name) => !WHOLE.test(name));
    const bytes = all.reduce((sum, name) => sum + gzipSync(fs.readFileSync(path.join(web, name))).length, 0);
    expect(bytes).to.be.below(236_000);
  });

  /** Runs a bundled program in a page. */
  async function resultOf(browser: Browser, folder: string, script: string): Promise<unknown> {
    const wasm = 'node_modules/@tensorflow/tfjs-backend-wasm/dist';
    const server = await serve({
      folders: { out: folder, models: 'models', wasm, assets: path.join(folder, 'assets') },
      pages: { '/': `<!doctype html><script type="module" src="${script}"></script>` },
    });
    const told: string[] = [];
    const page = await openPage(browser, server.url, told);
    try {
      await page.waitForFunction('globalThis.result').catch((error: Error) => {
        throw new Error(`${error.message}\n${told.join('\n')}`);
      });
      return await page.evaluate('globalThis.result');
    } finally {
      await page.close();
      await server.close();
    }
  }

  inChromium('in a page', [], (browser) => {
    it('bundled by esbuild', async () => {
      const outfile = path.join(root, 'esbuild', 'program.js');
      await build({
        entryPoints: [path.join(project, 'program.js')],
        outfile,
        bundle: true,
        format: 'esm',
        platform: 'browser',
        logLevel: 'error',
        preserveSymlinks: true,
      });
      expect(await resultOf(browser(), path.dirname(outfile), '/out/program.js')).to.deep.equal(EXPECTED);
    });

    it('built by vite', async () => {
      const { build: vite } = await import('vite');
      const outDir = path.join(root, 'vite');
      await vite({
        root: project,
        configFile: false,
        logLevel: 'error',
        resolve: { preserveSymlinks: true },
        build: { outDir, target: 'es2022', chunkSizeWarningLimit: 10_000 },
      });
      const html = fs.readFileSync(path.join(outDir, 'index.html'), 'utf8');
      const script = /src="\/(assets\/[^"]+)"/.exec(html)![1]!;
      expect(await resultOf(browser(), outDir, `/${script}`)).to.deep.equal(EXPECTED);
    });

    it('reads rows of files that a person chose, and of addresses', async () => {
      const rows = '{"text": "one"}\n{"text": "two"}\n';
      const data = fs.mkdtempSync(path.join(os.tmpdir(), 'tfjs-mamba2-rows-'));
      fs.writeFileSync(path.join(data, 'rows.jsonl'), rows);
      const server = await serve({ folders: { web, data }, pages: { '/': '<!doctype html>' } });
      const page = await openPage(browser(), server.url);
      const read = await page.evaluate(
        async ([text, address]) => {
          const file: string = '/web/tfjs-mamba2.min.js';
          const m = (await import(file)) as typeof Whole;
          const chosen = m.folderOfFiles([new File([text!], 'rows.jsonl')]);
          const all = [
            await m.load_dataset(`${chosen}/rows.jsonl`, { split: 'train' }),
            await m.load_dataset(chosen, { split: 'train[1:]' }),
            await m.load_dataset('json', { data_files: address!, split: 'train' }),
            await m.load_dataset(address!, { split: 'train' }),
          ];
          return all.map((dataset) => [...dataset].map((row) => row['text']));
        },
        [rows, `${server.url}/data/rows.jsonl`],
      );
      await page.close();
      await server.close();
      fs.rmSync(data, { recursive: true });
      expect(read).to.deep.equal([['one', 'two'], ['two'], ['one', 'two'], ['one', 'two']]);
    });

    it('as one file, without a bundler, where what needs Node.js says so by its name', async () => {
      const server = await serve({ folders: { web, models: 'models' }, pages: { '/': '<!doctype html>' } });
      const page = await openPage(browser(), server.url);
      const told = await page.evaluate(async () => {
        const file: string = '/web/tfjs-mamba2.min.js';
        const m = (await import(file)) as typeof Whole;
        const messageOf = async (call: () => unknown): Promise<string> => {
          try {
            await call();
            return 'nothing was thrown';
          } catch (error) {
            return `${(error as Error).name}: ${(error as Error).message}`;
          }
        };
        m.configureBrowser({ packaged_models: '/models/' });
        const model = await m.AutoModelForCausalLM.from_pretrained('tiny-books-mamba2');
        return [
          await messageOf(() => m.setupRuntime()),
          await messageOf(() => m.loadTensorFlow()),
          await messageOf(() => m.selectBackend('tensorflow')),
          await messageOf(() => m.load_dataset('org/data')),
          await messageOf(() => model.save_pretrained('folder')),
          await messageOf(() => m.AutoModelForCausalLM.from_pretrained('tiny-books-mamba2', { engine: 'compiled' }).then((each) => each.engine())), // prettier-ignore
          await messageOf(() => m.configureBrowser({ wasmPaths: '/' } as never)),
        ];
      });
      await page.close();
      await server.close();
      const [setup, load, select, data, save, compiled, misspelt] = told;
      expect(setup).to.match(/^DeviceError: setupRuntime\(\) needs Node\.js/);
      expect(load).to.match(/^DeviceError: loadTensorFlow\(\) needs Node\.js/);
      expect(select).to.match(/^DeviceError: device 'tensorflow' needs Node\.js/);
      expect(data).to.match(/^DeviceError: A data set of the hub needs Node\.js/);
      expect(save).to.match(/^SaveError: Could not write folder.*opfs:\/folder/);
      expect(compiled).to.match(/^DeviceError: engine 'compiled' needs the tensorflow backend/);
      expect(misspelt).to.match(/^ArgumentError: .*wasm_folder/);
    });
  });
});
