/** kill -9 while saving over an earlier save, some rounds of each; fifty in kill.long.ts. */
import { folderForEach } from '../../support/cleanup.js';
import { KINDS, rounds } from './rounds.js';

describe('kill -9 while saving', function () {
  this.timeout(240_000);
  const folder = folderForEach('kill');
  for (const kind of KINDS) it(`leaves one of two whole: ${kind}`, () => rounds(kind, 3, folder()));
});
