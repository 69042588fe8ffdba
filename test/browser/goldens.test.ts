/** The golden values in real Chromium: the suites of other folders, run in a page, on WebAssembly and WebGPU (SwiftShader's, where there is no card). */
import { expect } from 'chai';
import * as fs from 'node:fs';
import type { Browser } from 'playwright-core';
import { bundleSuites, type Outcome, runSuites } from '../support/page_suites.js';
import { inChromium } from '../support/pages.js';

const SUITES = [
  'test/models/mamba2/goldens.test.ts',
  'test/generation/goldens.test.ts',
  'test/support/page/golden_suite.ts',
];

function expectPassed(outcomes: readonly Outcome[], least: number): void {
  const failed = outcomes.filter(({ error }) => error !== null).map(({ title, error }) => `${title}: ${error}`);
  expect(failed.join('\n')).to.equal('');
  expect(outcomes.length).to.be.at.least(least);
}

inChromium('golden values in a page', ['--enable-unsafe-webgpu'], (browser: () => Browser) => {
  let folder: string;
  before(async () => (folder = await bundleSuites(SUITES)));
  after(() => fs.rmSync(folder, { recursive: true, force: true }));

  it('on WebAssembly: logits, states, padding, cached steps, greedy search, beams and the text of tiny-books', async () => {
    expectPassed(await runSuites(browser(), folder, ['suite0', 'suite1'], 'wasm', /compiled/), 14);
  });

  for (const device of ['wasm', 'webgpu'])
    it(`on ${device}: the same where values have to be waited for, and int4`, async () => {
      expectPassed(await runSuites(browser(), folder, ['suite2'], device), 10);
    });
});
