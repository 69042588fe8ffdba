/** kill -9 while saving over an earlier save, fifty rounds of each kind. */
import { folderForEach } from '../../support/cleanup.js';
import { KINDS, rounds } from './rounds.js';

describe('kill -9 while saving, often', function () {
  this.timeout(1_800_000);
  const folder = folderForEach('kill');
  for (const kind of KINDS) it(`leaves one of two whole: ${kind}`, () => rounds(kind, 50, folder()));
});
