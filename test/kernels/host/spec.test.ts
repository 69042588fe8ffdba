import { expect } from 'chai';
import * as fs from 'node:fs';
import { LAYER_STEP, operandNames, operandsOf, packNumbers } from '../../../src/kernels/host/spec.js';
import { HEADER, nativeHeader, versionIsTaken } from '../../../scripts/native_header.js';

describe('how kernels of CPUs are called', () => {
  const call = {
    ...{ rows: 2, hidden: 64, heads: 4, headDim: 32, groups: 2, stateSize: 16, taps: 4, normGroups: 1 },
    ...{ contextRow: 900, place: 450, epsilon: 1, low: 0.5, high: Infinity },
    ...{ hasMask: true, hasBias: false, bf16State: true, inInt4: true, inBf16: true, inGroup: 32 },
    ...{ outInt4: false, outBf16: false, outGroup: 0, rounded: true },
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
    expect(packNumbers(LAYER_STEP, call)).to.deep.equal([
      ...[2, 64, 4, 32, 2, 16, 4, 1],
      ...[900, 450, one, half, infinity],
      ...[1, 0, 1, 1, 1, 32, 0, 0, 0, 1],
    ]);
  });

  it('operands are those that the numbers speak of', () => {
    const end = ['dtBias', 'aLog', 'd', 'normGamma', 'outMatrix'];
    const int4 = ['inMatrix', 'inScale', 'inZero'];
    expect(operandNames(LAYER_STEP, call)).to.deep.equal([
      ...['x', 'state', 'context', 'mask', 'gamma'],
      ...[...int4, 'taps', ...end],
    ]);
    const other = { ...call, hasMask: false, hasBias: true, inInt4: false };
    expect(operandNames(LAYER_STEP, other)).to.deep.equal([
      ...['x', 'state', 'context', 'gamma'],
      ...['inMatrix', 'taps', 'bias', ...end],
    ]);
  });

  it('an operand that a call needs and is not given is named', () => {
    expect(() => operandsOf(LAYER_STEP, call, { x: 1, state: 2, context: 3 })).to.throw('without mask');
  });
});
