import { expect } from 'chai';
import { InvalidArgumentError } from 'commander';
import { loadingOptions, numberIn, readPrompt, samplingOptions } from '../../src/cli/options.js';

describe('command line options', () => {
  it('reads numbers within bounds only', () => {
    const whole = numberIn({ min: 1, whole: true });
    expect(whole('12')).to.equal(12);
    for (const text of ['0', '1.5', 'x', '', ' ', '1e400', '9007199254740993']) {
      expect(() => whole(text), text).to.throw(InvalidArgumentError, 'Expected a whole number from 1.');
    }
    expect(numberIn({ min: 0, max: 1 })('0.25')).to.equal(0.25);
    expect(() => numberIn({ min: 0, max: 1 })('1.01')).to.throw('a number from 0 up to 1');
    expect(() => numberIn({ above: 0 })('0')).to.throw('a number above 0');
  });

  it('samples when an option of sampling is given, and only then', () => {
    expect(samplingOptions({ maxNewTokens: 5 })).to.deep.equal({ max_new_tokens: 5 });
    expect(samplingOptions({ maxNewTokens: 5, repetitionPenalty: 1.2 })).to.deep.equal({
      max_new_tokens: 5,
      repetition_penalty: 1.2,
    });
    expect(samplingOptions({ maxNewTokens: 5, seed: 0 })).to.deep.equal({
      max_new_tokens: 5,
      seed: 0,
      do_sample: true,
    });
    expect(samplingOptions({ maxNewTokens: 5, temperature: 0.5, topK: 3, topP: 0.9, minP: 0.1 })).to.deep.equal({
      ...{ max_new_tokens: 5, do_sample: true, temperature: 0.5, top_k: 3, top_p: 0.9, min_p: 0.1 },
    });
  });

  it('takes temperature 0 for the best token each time', () => {
    expect(samplingOptions({ maxNewTokens: 5, temperature: 0, seed: 3 })).to.deep.equal({
      max_new_tokens: 5,
      do_sample: false,
    });
  });

  it('takes a number of devices, or all of them, for a plan', () => {
    expect(loadingOptions({ model: 'm', tensorParallel: 2 })).to.deep.equal({
      ...{ device: 'auto', tp_plan: 'auto', tp_size: 2 },
    });
    expect(loadingOptions({ model: 'm', device: 'cpu', tensorParallel: 'auto' })).to.deep.equal({
      ...{ device: 'cpu', tp_plan: 'auto' },
    });
  });

  it('joins the words of a prompt', async () => {
    expect(await readPrompt(['Once', 'upon a', 'time'])).to.equal('Once upon a time');
  });
});
