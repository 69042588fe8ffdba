import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'chai';

const CODE = `
import { pipeline } from ${JSON.stringify(path.resolve('src/index.ts'))};
import { configureRuntime } from ${JSON.stringify(path.resolve('src/runtime/index.ts'))};
import { tensorCount } from ${JSON.stringify(path.resolve('test/support/backends.ts'))};
configureRuntime({ compileCache: true });
const engine = process.argv[2];
const seen = [];
for (let i = 1; i <= 200; i++) {
  const write = await pipeline('text-generation', 'models/tiny-books-mamba2', { device: 'cpu', engine });
  await write('Once upon a time', { max_new_tokens: 4, do_sample: false });
  write.dispose();
  if (i % 10 > 0) continue;
  gc();
  seen.push({ rss: process.memoryUsage().rss, heap: process.memoryUsage().heapUsed, ...tensorCount() });
}
process.stdout.write(JSON.stringify(seen), () => process.exit(0));
`;

interface Seen {
  rss: number;
  heap: number;
  tf: number;
  binding: number;
}

describe('models that are loaded and disposed', function () {
  this.timeout(1_800_000);

  for (const engine of ['compiled', 'eager'])
    it(`200 times leave nothing behind: ${engine}`, () => {
      const script = path.resolve(`test/runtime/.lifetimes-${process.pid}.mts`);
      fs.writeFileSync(script, CODE);
      try {
        const args = ['--expose-gc', '--import', 'tsx', script, engine];
        const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
        expect(status, stderr).to.equal(0);
        const seen = JSON.parse(stdout) as Seen[];
        expect(seen).to.have.length(20);
        for (const { tf, binding } of seen) expect({ tf, binding }).to.deep.equal({ tf: 0, binding: 0 });
        // the first ones fill what is kept for the next; a leak of one of the model's 10 MB of weights would be 1,500 MB
        const most = (part: Seen[], of: 'rss' | 'heap'): number => Math.max(...part.map((each) => each[of]));
        for (const of of ['rss', 'heap'] as const)
          expect(most(seen.slice(15), of) - most(seen.slice(0, 5), of), of).to.be.lessThan(40e6);
      } finally {
        fs.rmSync(script);
      }
    });
});
