import { expect } from 'chai';
import { once } from 'node:events';
import { checkedAddon } from '../../src/runtime/load.js';
import { NATIVE_VERSION } from '../../src/runtime/paths.js';

describe('the native addon', () => {
  it('is taken when it is of this version', () => {
    const addon = { version: NATIVE_VERSION };
    expect(checkedAddon(addon, '/runtime')).to.equal(addon);
  });

  for (const version of [undefined, NATIVE_VERSION + 1])
    it(`is left out, with one line, when it is of version ${version ?? 'none'}`, async () => {
      const warned = once(process, 'warning');
      expect(checkedAddon({ version }, '/runtime')).to.equal(null);
      const [warning] = (await warned) as [Error & { code?: string }];
      expect(warning.code).to.equal('MAMBA2_NATIVE_VERSION');
      const words = `in /runtime are of version ${version ?? 'none'}, expected ${NATIVE_VERSION}: .*setup --force`;
      expect(warning.message).to.match(new RegExp(words)).and.not.match(/\n/);
    });
});
