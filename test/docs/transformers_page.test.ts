/** examples/transformers_page: the page of transformers, line by line, runs with the small model, and is typed without a cast. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import ts from 'typescript';

const root = process.cwd();
const folder = path.join(root, 'examples/transformers_page');
const read = (name: string): string => fs.readFileSync(path.join(folder, name), 'utf8');
const PROGRAMS = fs.readdirSync(folder).filter((name) => name.endsWith('.ts'));

/** The small model in place of 7B parameters, this machine's processor for a GPU, and a file for the hub's data set. */
function small(source: string, entry: string, dataset: string): string {
  return source
    .replaceAll('mistralai/Mamba-Codestral-7B-v0.1', 'tiny-books-mamba2')
    .replaceAll('device: 0', "device: 'cpu'")
    .replaceAll("'cuda'", "'cpu'")
    .replaceAll("'Abirate/english_quotes', { split", `'json', { data_files: ${JSON.stringify(dataset)}, split`)
    .replaceAll("'tfjs-mamba2'", JSON.stringify(entry));
}

describe("transformers' page", function () {
  this.timeout(300_000);
  let dir: string;
  before(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'page-'));
    // so that what is imported is found, and what is trained is little
    fs.symlinkSync(path.join(root, 'node_modules'), path.join(dir, 'node_modules'));
    const quotes = fs.readFileSync('examples/quotes.jsonl', 'utf8').split('\n').slice(0, 4).join('\n');
    fs.writeFileSync(path.join(dir, 'quotes.jsonl'), quotes);
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  function run(name: string): { status: number | null; out: string; err: string } {
    const entry = pathToFileURL(path.join(root, 'src/index.ts')).href;
    const source = small(read(name), entry, path.join(dir, 'quotes.jsonl'));
    fs.writeFileSync(path.join(dir, name.replace('.ts', '.mts')), source);
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', name.replace('.ts', '.mts')], {
      cwd: dir,
      encoding: 'utf8',
    });
    return { status, out: stdout, err: stderr };
  }

  const PROMPT = 'Plants create energy through a process known as';

  it('generates with a pipeline', () => {
    const { status, out, err } = run('pipeline.ts');
    expect(status, err).to.equal(0);
    expect(out).to.match(new RegExp(`generated_text: .${PROMPT} `));
  });

  it('generates with AutoModelForCausalLM and AutoTokenizer', () => {
    const { status, out, err } = run('generate.ts');
    expect(status, err).to.equal(0);
    expect(out.startsWith(`${PROMPT} `), out).to.equal(true);
  });

  it('generates from the command line', () => {
    const [command] = read('run.sh')
      .split('\n')
      .filter((line) => line.startsWith('echo'));
    const bin = `${JSON.stringify(process.execPath)} ${JSON.stringify(path.join(root, 'bin/mamba2.js'))}`;
    const line = command!
      .replace('mamba2 run', `${bin} run`)
      .replace('mistralai/Mamba-Codestral-7B-v0.1', 'tiny-books-mamba2')
      .replace('--device 0', '--device cpu');
    const { status, stdout, stderr } = spawnSync('bash', ['-c', line], { cwd: dir, encoding: 'utf8' });
    expect(status, stderr).to.equal(0);
    expect(stdout).to.contain(PROMPT);
  });

  it('quantises with TorchAoConfig', () => {
    const { status, out, err } = run('quantize.ts');
    expect(status, err).to.equal(0);
    expect(out.startsWith(`${PROMPT} `), out).to.equal(true);
  });

  it('fine-tunes with SFTTrainer and LoraConfig', () => {
    const { status, err } = run('finetune.ts');
    expect(status, err).to.equal(0);
    const saved = fs.readdirSync(path.join(dir, 'results')).filter((name) => name.startsWith('checkpoint-'));
    // 4 quotes in batches of 2, three times over
    expect(saved).to.include('checkpoint-6');
    const adapter = JSON.parse(fs.readFileSync(path.join(dir, 'results/checkpoint-6/adapter_config.json'), 'utf8')) as {
      r: number;
      target_modules: string[];
    };
    expect(adapter.r).to.equal(8);
    expect(adapter.target_modules).to.have.members(['embeddings', 'in_proj', 'out_proj']);
    expect(fs.existsSync(path.join(dir, 'logs')), 'logging_dir').to.equal(true);
  });

  it('is typed: tsc --strict, no cast and no any', () => {
    const { options } = ts.parseJsonConfigFileContent(
      { extends: '../../tsconfig.json', compilerOptions: { noUncheckedIndexedAccess: false }, include: ['.'] },
      ts.sys,
      folder,
    );
    expect(options.strict).to.equal(true);
    const program = ts.createProgram(
      PROGRAMS.map((name) => path.join(folder, name)),
      { ...options, noEmit: true },
    );
    const found = PROGRAMS.flatMap((name) => {
      const file = program.getSourceFile(path.join(folder, name))!;
      const casts: string[] = [];
      const visit = (node: ts.Node): void => {
        if (ts.isAsExpression(node) || ts.isTypeAssertionExpression(node) || ts.isNonNullExpression(node))
          casts.push(node.getText());
        if (node.kind === ts.SyntaxKind.AnyKeyword) casts.push('any');
        ts.forEachChild(node, visit);
      };
      visit(file);
      const wrong = program
        .getSemanticDiagnostics(file)
        .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
      expect(/@ts-|eslint-disable/.test(file.text), name).to.equal(false);
      return [...casts, ...wrong].map((what) => `${name}: ${what}`);
    });
    expect(PROGRAMS).to.have.length(4);
    expect(found).to.deep.equal([]);
  });
});
