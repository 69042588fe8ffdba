import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { loadGolden } from '../support/goldens.js';
import { BIN, mamba2, sharedMamba2 } from './support.js';

const MODEL = 'models/tiny-books-mamba2';

interface Expected {
  runs: { prompt: string; new_tokens: number[]; full_text: string }[];
}

describe('mamba2 generate', function () {
  this.timeout(120000);
  const shared = sharedMamba2();
  const { runs } = loadGolden('books-model').json as unknown as Expected;
  const [golden, quoted = golden] = runs as [Expected['runs'][number], Expected['runs'][number]?];

  it('prints the golden greedy text, streamed from an argument', () => {
    const length = String(golden.new_tokens.length);
    const result = mamba2(['generate', '--model', MODEL, '--max-new-tokens', length, golden.prompt]);
    expect(result).to.deep.equal({ code: 0, out: `${golden.full_text}\n`, err: '' });
  });

  it('prints it whole as well, from standard input, by the name of the task', async () => {
    const length = String(quoted.new_tokens.length);
    const args = ['run', '--task', 'text-generation', '--model', MODEL, '--max-new-tokens', length, '--no-stream'];
    expect(await shared(args, { input: `${quoted.prompt}\n` })).to.deep.equal({
      code: 0,
      out: `${quoted.full_text}\n`,
      err: '',
    });
  });

  it('holds states in another type', async () => {
    const few = String(Math.min(8, golden.new_tokens.length));
    const options = ['generate', '--model', MODEL, '--max-new-tokens', few, '--state-dtype'];
    const { code, out, err } = await shared([...options, 'bfloat16', golden.prompt]);
    expect(code, err).to.equal(0);
    // a few tokens, of which the rounding changes none
    expect(golden.full_text.startsWith(out.trimEnd())).to.equal(true);
    expect(out.length).to.be.greaterThan(golden.prompt.length + 1);
    expect((await shared([...options, 'int4', golden.prompt])).err).to.match(
      /--state-dtype.*Expected float32 or bfloat16/,
    );
  });

  it('takes a tokenizer apart and types by any name, and tells in JSON why the text ended and how long it took', async () => {
    const { code, out, err } = await shared([
      ...['generate', '--model', MODEL, '--tokenizer', MODEL, '--torch-dtype', 'bf16', '--state-dtype', 'F32'],
      ...['--local-files-only', '--max-new-tokens', '3', '--json', golden.prompt],
    ]);
    expect(code, err).to.equal(0);
    const told = JSON.parse(out) as Record<string, number | string>;
    expect(told).to.include({ finish_reason: 'length', completion_tokens: 3 });
    expect(told.prompt_tokens).to.be.greaterThan(0);
    for (const key of ['load_seconds', 'seconds', 'tokens_per_second']) expect(told[key], key).to.be.greaterThan(0);
    const without = await shared(['generate', '--model', MODEL, '--tokenizer', 'test', golden.prompt]);
    expect(without.err).to.match(/test.*tokenizer/);
  });

  it('samples the same text from the same seed, and another from another', async () => {
    const sample = async (seed: string) => {
      const options = ['--temperature', '0.8', '--top-p', '0.95', '--max-new-tokens', '24', '--json'];
      const { code, out, err } = await shared([
        'generate',
        '--model',
        MODEL,
        '--seed',
        seed,
        ...options,
        'Once upon a time',
      ]);
      expect(code, err).to.equal(0);
      return (JSON.parse(out) as { generated_text: string }).generated_text;
    };
    const text = await sample('1');
    expect(text).to.match(/^Once upon a time./);
    expect(await sample('1')).to.equal(text);
    expect(await sample('2')).not.to.equal(text);
  });

  it('answers a missing model, an empty prompt and wrong options in one line', async () => {
    for (const [args, code, message] of [
      [['--model', 'no/such/folder', 'Once'], 1, /^mamba2: .*no\/such\/folder.*\n$/],
      [['--model', MODEL], 1, /^mamba2: The prompt on standard input is empty\.\n$/],
      [['Once'], 2, /^error: required option '--model <name>' not specified\n/],
      [
        ['--model', MODEL, '--top-p', '2', 'Once'],
        2,
        /^error: option '--top-p <p>' argument '2' is invalid\. Expected/,
      ],
      [['--model', MODEL, '--max-new-tokens', '0', 'Once'], 2, /Expected a whole number from 1/],
    ] as const) {
      const result = await shared(['generate', ...args]);
      expect([result.code, result.out]).to.deep.equal([code, '']);
      expect(result.err).to.match(message);
    }
  });

  it('ends quietly when its reader has seen enough', () => {
    const command = `"${process.execPath}" "${BIN}" generate --model ${MODEL} --max-new-tokens 40 "Once upon" | head -c 4`;
    const { status, stdout, stderr } = spawnSync('bash', ['-c', `set -o pipefail; ${command}`], { encoding: 'utf8' });
    expect({ status, stdout, stderr }).to.deep.equal({ status: 0, stdout: 'Once', stderr: '' });
  });
});
