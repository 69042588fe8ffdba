import { expect } from 'chai';
import { ConfigError } from '../../src/base/errors.js';
import { escapePattern, Pattern } from '../../src/base/pattern.js';
import { LoraConfig, matchesModule } from '../../src/peft/config.js';
import { planQuantization } from '../../src/quant/targets.js';
import { Int8WeightOnlyConfig } from '../../src/quant/index.js';

const NAME = 'backbone.layers.0.mixer.in_proj';
const pattern = (source: string, flags = ''): Pattern => new Pattern(source, 'test: key', ConfigError, flags);

describe('regular expressions of files', () => {
  it('are those of Python and JavaScript', () => {
    for (const [source, text, want] of [
      ['in_proj$', NAME, true],
      ['^in_proj$', NAME, false],
      ['^(?:.*\\.(in|out)_proj)$', NAME, true],
      ['^(?!.*lm_head).*proj$', NAME, true], // RE2 does not look around
      ['^(?!.*in_proj).*proj$', NAME, false],
      ['(layers)\\.0\\.\\1', 'layers.0.layers', true],
      ['(?P<n>\\d+)', NAME, true],
      ['(?<n>\\d+)', NAME, true],
      [escapePattern('a.b*'), 'a.b*', true],
      [escapePattern('a.b*'), 'axb', false],
    ] as const)
      expect(pattern(source).test(text), source).to.equal(want);
    expect(pattern('IN_PROJ', 'i').test(NAME)).to.equal(true);
    expect(pattern('layers\\.(?P<n>\\d+)').find(NAME)!.group('n')).to.equal('0');
    expect(pattern('layers\\.(?P<n>\\d+)(?=\\.)').find(NAME)!.group('n')).to.equal('0');
  });

  it('take no time for being bad ones: all are matched, or refused, at once', () => {
    const text = 'a'.repeat(200);
    for (const source of [
      '(a+)+b',
      '(a|a)*b',
      '(a*)*b',
      '.*.*.*.*.*.*.*.*b',
      '((a{1,20}){1,20})b',
      '(a+)+(?=b)',
      '(a|a)*\\1b',
    ]) {
      const start = performance.now();
      try {
        expect(pattern(source).test(text), source).to.equal(false);
      } catch (error) {
        expect(error).to.be.instanceOf(ConfigError);
        expect((error as Error).message).to.match(/test: key: '.*' takes more than 250 ms for/);
      }
      expect(performance.now() - start, source).to.be.below(2000);
    }
    for (const source of ['(', '[', 'a**', '\\', 'a'.repeat(5000)])
      expect(() => pattern(source), source.slice(0, 9)).to.throw(ConfigError, /^test: key: /);
  });

  it('are so in adapters and in quantised models', () => {
    const bad = '(([a-z]|[a-z_])+)+!';
    const start = performance.now();
    expect(matchesModule(NAME.repeat(5), bad)).to.equal(false);
    const config = new LoraConfig({
      rank_pattern: { [bad]: 4 },
      alpha_pattern: { [bad]: 4 },
      layers_to_transform: [0],
      layers_pattern: bad,
    });
    expect(config.rank(NAME)).to.equal(8);
    expect(config.targets(NAME)).to.equal(false);
    const weight = { name: `${NAME}.weight`, shape: [4, 4], role: 'projection' as const };
    for (const skip of [bad, new RegExp(bad), 'b*'.repeat(200) + '!']) {
      const plan = planQuantization([weight], new Int8WeightOnlyConfig({ modules_to_not_convert: [skip] }));
      expect(plan.names).to.deep.equal([weight.name]);
    }
    expect(performance.now() - start).to.be.below(2000);
    expect(() => matchesModule(NAME, '(')).to.throw(ConfigError, /target_modules/);
  });
});
