/** docs/specification.md: what comments cite is there. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';

/** Every .ts, .js, .mjs and .cc file below some folders. */
function sources(dirs: readonly string[]): string[] {
  return dirs.flatMap((dir) =>
    fs
      .readdirSync(dir, { recursive: true, encoding: 'utf8' })
      .filter((file) => /\.(ts|js|mjs|cc|h)$/.test(file))
      .map((file) => path.join(dir, file)),
  );
}

describe('docs/specification.md', () => {
  it('has every section and trap that comments cite', () => {
    const text = fs.readFileSync('docs/specification.md', 'utf8');
    const there = new Set([
      ...[...text.matchAll(/^### ([A-Z]\.\d+) /gm)].map(([, section]) => section!),
      ...[...text.matchAll(/^\| (D\d+) \|/gm)].map(([, trap]) => trap!),
    ]);
    const cited = sources(['src', 'bench', 'native', 'scripts', 'test']).flatMap((file) => {
      const code = fs.readFileSync(file, 'utf8');
      const whole = [...code.matchAll(/\bspec ([A-Z]\.?\d+)/g)].map(([, what]) => what!);
      const alone = [...code.matchAll(/\((D\d+)\)/g)].map(([, what]) => what!);
      return [...whole, ...alone].map((what) => ({ file, what }));
    });
    expect(cited.length).to.be.greaterThan(15);
    for (const { file, what } of cited) expect(there.has(what), `${file} cites ${what}`).to.equal(true);
  });
});
