/** The table of element types, against TensorFlow. */
import { expect } from 'chai';
import { DeviceError } from '../../src/base/errors.js';
import { createNative, nodeBackend } from '../../src/runtime/binding.js';
import { dtypeBytes, dtypeName, dtypeNumber, findDtype, isDtype, type Dtype } from '../../src/runtime/data_types.js';
import { useBackend } from '../support/backends.js';

const ALL: Dtype[] = [
  ...(['float32', 'int32', 'bool', 'bfloat16', 'uint8', 'int8', 'int16', 'uint16', 'int64', 'float16'] as const),
  ...(['complex64', 'uint32'] as const),
];

describe('the table of element types', () => {
  before(() => useBackend('tensorflow'));

  for (const dtype of ALL) {
    it(`has TensorFlow's number and size of ${dtype}`, () => {
      const { binding } = nodeBackend();
      const type = (name: string, value: number) => ({ name, type: binding.TF_ATTR_TYPE, value });
      const made = [createNative('float32', [3], Float32Array.of(0, 1, 1))];
      const run = (op: string, attrs: { name: string; type: number; value: unknown }[]) => {
        const out = binding.executeOp(op, attrs, [made.at(-1)!], 1)[0]!;
        made.push(out.id);
        return out;
      };
      try {
        const truncate = { name: 'Truncate', type: binding.TF_ATTR_BOOL, value: false };
        const cast = run('Cast', [type('SrcT', 1), type('DstT', dtypeNumber(dtype)), truncate]);
        expect(dtypeName(cast.dtype)).to.equal(dtype);
        expect(isDtype(dtype)).to.equal(true);
        if (dtype === 'bool') return; // has no bitcast
        const bytes = run('Bitcast', [type('T', dtypeNumber(dtype)), type('type', dtypeNumber('uint8'))]);
        expect(bytes.shape[1] ?? 1).to.equal(dtypeBytes(dtype));
      } finally {
        for (const id of made) binding.deleteTensor(id);
      }
    });
  }

  it('knows no strings and no float64', () => {
    for (const number of [2, 7]) {
      expect(findDtype(number)).to.equal(null);
      expect(() => dtypeName(number)).to.throw(DeviceError, `${number}`);
    }
    expect(isDtype('float64')).to.equal(false);
    expect(isDtype('toString')).to.equal(false);
  });
});
