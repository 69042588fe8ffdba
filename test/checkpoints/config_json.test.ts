import { expect } from 'chai';
import { parseConfigJson, stringifyConfigJson } from '../../src/checkpoints/config_json.js';
import { CheckpointError } from '../../src/base/errors.js';

describe('config.json with infinities', () => {
  it('reads the bare tokens of transformers 4.x', () => {
    const text = '{"time_step_limit": [0.0, Infinity], "a": -Infinity, "b": NaN, "c": 1}';
    expect(parseConfigJson(text)).to.deep.equal({ time_step_limit: [0, Infinity], a: -Infinity, b: NaN, c: 1 });
  });

  it('reads the objects of transformers 5.x', () => {
    const text = '{"time_step_limit": [0.0, {"__float__": "Infinity"}], "low": {"__float__":"-Infinity"}}';
    expect(parseConfigJson(text)).to.deep.equal({ time_step_limit: [0, Infinity], low: -Infinity });
  });

  it('leaves the words alone inside strings and keys', () => {
    const text = '{"Infinity": "NaN", "s": "to \\"Infinity\\" and -Infinity", "e": "\\\\"}';
    expect(parseConfigJson(text)).to.deep.equal({ Infinity: 'NaN', s: 'to "Infinity" and -Infinity', e: '\\' });
  });

  it('writes either form, and reads both back', () => {
    const config = { time_step_limit: [0, Infinity], low: -Infinity, name: 'x' };
    expect(stringifyConfigJson(config))
      .to.include('"__float__": "Infinity"')
      .and.not.match(/[^"-]Infinity[^"]/);
    expect(stringifyConfigJson(config, { legacy_json: true }))
      .to.match(/^\s+Infinity$/m)
      .and.not.include('__float__');
    for (const legacyJson of [true, false])
      expect(parseConfigJson(stringifyConfigJson(config, { legacy_json: legacyJson }))).to.deep.equal(config);
  });

  it('writes whole numbers with a point where transformers takes nothing but floats, and only there', () => {
    const config = {
      time_step_limit: [0, 100],
      time_step_max: 1,
      hidden_size: 64,
      layer_norm_epsilon: 1e-5,
      big: 1e21,
    };
    const text = stringifyConfigJson(config);
    expect(text.replace(/\s+/g, '')).to.equal(
      '{"big":1e+21,"hidden_size":64,"layer_norm_epsilon":0.00001,"time_step_limit":[0.0,100.0],"time_step_max":1.0}',
    );
    expect(parseConfigJson(text)).to.deep.equal(config);
  });

  it('refuses what is no JSON object, naming the file', () => {
    for (const text of ['', '[1]', 'null', '{"a":', '{"a": {"__float__": "big"}}', '{"a": Infinit}'])
      expect(() => parseConfigJson(text, 'dir/config.json'), text).to.throw(CheckpointError, 'dir/config.json');
  });

  it('says of what is nested too deeply that it is', () => {
    const text = `{"a": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    expect(() => parseConfigJson(text)).to.throw(CheckpointError, /config\.json is nested deeper/);
  });

  it('takes time in proportion to the text, whatever is in it', () => {
    for (const piece of ['"\\', '"a\\', '"', '-', '{"a":"\\']) {
      const start = performance.now();
      expect(() => parseConfigJson(piece.repeat(200_000 / piece.length))).to.throw(CheckpointError);
      expect(performance.now() - start, piece).to.be.below(2000);
    }
  });
});
