import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { loadGolden } from '../support/goldens.js';
import { sharedMamba2 } from './support.js';

const MODEL = 'models/tiny-books-mamba2';

describe('mamba2 state', function () {
  this.timeout(120_000);
  const mamba2 = sharedMamba2();
  let dir: string;
  before(() => (dir = fs.mkdtempSync(path.join(os.tmpdir(), 'state-'))));
  after(() => fs.rmSync(dir, { recursive: true }));
  const eager = ['--model', MODEL, '--engine', 'eager'];
  const runs = loadGolden('books-model').json.runs as {
    prompt: string;
    full_text: string;
    new_tokens: number[];
  }[];
  const { prompt, full_text, new_tokens } = runs[0]!;
  const greedy = ['generate', ...eager, '--max-new-tokens', String(Math.min(16, new_tokens.length))];

  it('keeps what was read; generate goes on from it as from the text, any number of times', async () => {
    const file = path.join(dir, 'prefix.safetensors');
    const saved = await mamba2(['state', 'save', ...eager, '--file', file, prompt]);
    expect([saved.code, saved.out], saved.err).to.deep.equal([0, '']);
    expect(saved.err).to.match(/^\d+ tokens kept in /);
    const whole = await mamba2([...greedy, prompt]);
    expect(full_text.startsWith(whole.out.trimEnd())).to.equal(true);
    const rest = whole.out.slice(prompt.length);
    for (const more of [[], ['--no-stream'], ['--engine', 'compiled']]) {
      expect(await mamba2([...greedy, '--state', file, ...more]), more.join()).to.deep.equal({
        code: 0,
        out: rest,
        err: '',
      });
    }
    const json: unknown = JSON.parse((await mamba2([...greedy, '--state', file, '--json'])).out);
    expect(json).to.include({ prompt: '', generated_text: rest.slice(0, -1), state: file });
    // what comes after the prefix is printed with what follows it
    const on = await mamba2([...greedy, '--state', file, ' and'], { input: '' });
    expect(on.out).to.equal((await mamba2([...greedy, `${prompt} and`])).out.slice(prompt.length));
    const longer = path.join(dir, 'longer.safetensors');
    expect(
      (await mamba2(['state', 'save', ...eager, '--from', file, '--file', longer], { input: ' and\n' })).code,
    ).to.equal(0);
    expect((await mamba2([...greedy, '--state', longer])).out).to.equal(on.out.slice(' and'.length));
  });

  it('shows and checks a file, and refuses what is none', async () => {
    const file = path.join(dir, 'shown.safetensors');
    await mamba2(['state', 'save', ...eager, '--file', file, 'Once upon a time']);
    const shown = await mamba2(['state', 'show', file]);
    expect(shown.out).to.match(/^File +.*shown\.safetensors, [\d.]+ MB\nTokens read +\d+\nLayers +8\n/);
    const as = await mamba2(['state', 'save', ...eager, '--file', file, '--json', 'Once upon a time']);
    expect([as.code, as.err]).to.deep.equal([0, '']);
    expect(as.out).to.equal((await mamba2(['state', 'show', file, '--json'])).out);
    const info = JSON.parse(as.out) as {
      config: Record<string, string>;
    };
    expect(info.config.vocab_size).to.equal('4096');
    const loaded = await mamba2(['state', 'load', ...eager, '--file', file]);
    expect(loaded.out).to.contain(`It is a state of ${MODEL}.`);
    const other = await mamba2(['state', 'show', path.join(MODEL, 'model.safetensors')]);
    expect([other.code, other.out]).to.deep.equal([1, '']);
    expect(other.err).to.contain('holds no state');
    const missing = await mamba2([...greedy, '--state', path.join(dir, 'none.safetensors')]);
    expect([missing.code, missing.out]).to.deep.equal([1, '']);
    expect(missing.err).to.match(/^mamba2: .*none\.safetensors/);
  });
});
