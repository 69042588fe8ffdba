import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { ends, WAYS, type Way } from '../support/end_in_mid_run.js';

/** Exit code and signal of each way. */
const EXPECTED: Record<Way, readonly [number | null, string | null]> = {
  itself: [0, null],
  exit: [3, null],
  error: [1, null],
  SIGTERM: [null, 'SIGTERM'],
};

for (const way of WAYS)
  it(`a process that ends in the middle of a run, by ${way}, neither crashes nor hangs`, function () {
    this.timeout(240_000);
    for (const { status, signal, stderr } of ends(way, [30])) {
      expect([status, signal], stderr).to.deep.equal(EXPECTED[way]);
      if (way === 'error') expect(stderr).to.include('thrown on purpose');
      else expect(stderr).to.equal('');
    }
  });

it('an uncaught error ends the process before anything that a run uses is destroyed, however long that takes', function () {
  this.timeout(240_000);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slow-end-'));
  try {
    // registered before a run makes what it uses: that is destroyed first, and then there is half a second to miss it
    const source = `#include <stdlib.h>
      #include <unistd.h>
      static void wait(void) { usleep(500000); }
      extern "C" void* napi_register_module_v1(void* env, void* exports) { atexit(wait); return exports; }`;
    fs.writeFileSync(path.join(dir, 'slow_end.cc'), source);
    const addon = path.join(dir, 'slow_end.node');
    execFileSync('g++', ['-shared', '-fPIC', '-o', addon, path.join(dir, 'slow_end.cc')]);
    const [{ status, signal, stderr }] = ends('error', [600], addon) as [ReturnType<typeof ends>[0]];
    expect([status, signal], stderr).to.deep.equal(EXPECTED.error);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});
