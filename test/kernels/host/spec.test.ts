import { expect } from 'chai';
import * as fs from 'node:fs';
import { INT4_ROW, operandNames, packNumbers } from '../../../src/kernels/host/spec.js';
import { HEADER, nativeHeader, versionIsTaken } from '../../../scripts/native_header.js';

describe('how int4 kernels of CPUs are called', () => {
  const call = {
    ...{ inner: 64, group: 32, out: 40, hasGate: false, hasSkip: true, hasNorm: true, hasResidual: false },
    ...{ hasEpilogue: true, hasBias: false, bf16Levels: true, skipHeads: 2, skipOffset: 64, normGroups: 1, epsilon: 1 },
    ...{ first: 8, channels: 30, taps: 4, low: 0.5, high: Infinity, place: 90 },
  };

  it('C++ has the description that TypeScript has', () => {
    expect(fs.readFileSync(HEADER, 'utf8')).to.equal(nativeHeader());
  });

  it('another description needs another version', () => {
    const header = nativeHeader();
    expect(versionIsTaken(header)).to.equal(false);
    expect(versionIsTaken(header.replace(/(is the description) \w+/, '$1 000000000000'))).to.equal(true);
    expect(
      versionIsTaken(header.replace(/Version \d+ is the description \w+/, 'Version 0 is the description 0')),
    ).to.equal(false);
  });

  it('numbers travel in the order of the description, floats by their bits', () => {
    const [one, half, infinity] = [0x3f800000, 0x3f000000, 0x7f800000];
    const flags = [0, 1, 1, 0, 1, 0, 1];
    expect(packNumbers(INT4_ROW, call)).to.deep.equal([
      64,
      32,
      40,
      ...flags,
      2,
      64,
      1,
      one,
      8,
      30,
      4,
      half,
      infinity,
      90,
    ]);
  });

  it('operands are those that the numbers speak of', () => {
    const matrix = ['codes', 'scale', 'zero'];
    expect(operandNames(INT4_ROW, call)).to.deep.equal([
      'x',
      'gate',
      'd',
      'gamma',
      ...matrix,
      'context',
      'taps',
      'dtBias',
    ]);
    const bare = { ...call, hasSkip: false, hasNorm: false, hasEpilogue: false };
    expect(operandNames(INT4_ROW, bare)).to.deep.equal(['x', ...matrix]);
  });
});
