/** einsum against running over every value of every label. */
import * as tf from '@tensorflow/tfjs';
import { expect } from 'chai';
import { ArgumentError } from '../../src/base/errors.js';
import { einsum } from '../../src/layers/einsum.js';
import { onBackends, useBackend } from '../support/backends.js';
import { expectClose } from '../support/compare.js';
import { thrown } from '../support/errors.js';
import { type Arr, einsum as naive, randomArr, toTensor } from '../support/oracle.js';
import { lcg } from '../support/random.js';

/** The equations of the layers, and one of each kind: outer, dot, sums of one operand, transposed outputs, scalars. */
const EQUATIONS = [
  'zqgn,zsgn->zgqs',
  'zgrqp,zqgn->zgrpn',
  'zqgn,zgrpn->zgrqp',
  'bhzj,bjhx->bzhx',
  'ij,jk->ik',
  'ij,kj->ki',
  'ji,jk->ki',
  'bij,bjk->bik',
  'i,i->',
  'ij,ij->',
  'i,j->ij',
  'i,j->ji',
  'i,j->',
  'ij,jk->',
  'bi,bj->bij',
  'b,bj->jb',
  'abc,b->ca',
  'abc,d->adcb',
  'ab,ab->ba',
  'ab,ba->a',
  'a,a->a',
];

const SIZES: Record<string, number> = {
  a: 2,
  b: 3,
  c: 4,
  d: 2,
  g: 2,
  h: 3,
  i: 3,
  j: 4,
  k: 2,
  n: 3,
  p: 2,
  q: 4,
  r: 2,
  s: 5,
  x: 3,
  z: 2,
};

function operands(equation: string, sizes: Record<string, number>, random: () => number): [Arr, Arr] {
  const [a, b] = equation.split('->')[0]!.split(',') as [string, string];
  return [a, b].map((labels) =>
    randomArr(
      random,
      [...labels].map((l) => sizes[l]!),
    ),
  ) as [Arr, Arr];
}

/** A random equation: each label is in one operand or in both, and in the output or not. */
function randomEquation(random: () => number): { equation: string; sizes: Record<string, number> } {
  const labels = [...'abcdefg'].slice(0, 1 + Math.floor(random() * 5));
  const shuffled = (list: string[]): string => {
    const order = list.map((l) => ({ l, key: random() }));
    return order
      .sort((x, y) => x.key - y.key)
      .map(({ l }) => l)
      .join('');
  };
  const home = labels.map((l, i) => ({ l, in: i === 0 ? 2 : Math.floor(random() * 3), out: random() < 0.6 }));
  const a = shuffled(home.filter((h) => h.in !== 1).map(({ l }) => l));
  const b = shuffled(home.filter((h) => h.in !== 0).map(({ l }) => l));
  const out = shuffled(home.filter((h) => h.out).map(({ l }) => l));
  const sizes = Object.fromEntries(labels.map((l) => [l, 1 + Math.floor(random() * 4)]));
  return { equation: `${a},${b}->${out}`, sizes };
}

onBackends(['tensorflow', 'wasm', 'cpu'], 'einsum', () => {
  function check(equation: string, sizes: Record<string, number>, random: () => number): void {
    const [a, b] = operands(equation, sizes, random);
    const want = naive(equation, a, b);
    const start = tf.memory().numTensors;
    tf.tidy(() => {
      const got = einsum(equation, toTensor(a), toTensor(b));
      expect(got.shape, equation).to.deep.equal(want.shape);
      expectClose(got, want.data, 1e-5, equation);
      // the gradient of Σ d·(A∘B) is the einsum of d with the other operand
      const [la, lb, lo] = equation.split(/,|->/) as [string, string, string];
      const d = randomArr(random, want.shape);
      const [da, db] = tf.grads((x, y) => tf.sum(tf.mul(einsum(equation, x, y), toTensor(d))))([
        toTensor(a),
        toTensor(b),
      ]);
      // a label that one operand alone has and the output lacks was summed: its gradient repeats
      const summed = (labels: string, other: string): string =>
        [...labels].filter((l) => !other.includes(l) && !lo.includes(l)).join('');
      const ones = (labels: string): Arr =>
        randomArr(
          () => 1,
          [...labels].map((l) => sizes[l]!),
          0,
          1,
        );
      const gradient = (own: string, other: string, operand: Arr): Arr => {
        const extra = summed(own, other);
        const wide = extra ? naive(`${lo},${extra}->${lo}${extra}`, d, ones(extra)) : d;
        return naive(`${lo}${extra},${other}->${own}`, wide, operand);
      };
      expectClose(da!, gradient(la, lb, b).data, 1e-4, `${equation}, gradient of operand 0`);
      expectClose(db!, gradient(lb, la, a).data, 1e-4, `${equation}, gradient of operand 1`);
      expect(da!.shape).to.deep.equal(a.shape);
      expect(db!.shape).to.deep.equal(b.shape);
    });
    expect(tf.memory().numTensors).to.equal(start);
  }

  for (const equation of EQUATIONS) it(equation, () => check(equation, SIZES, lcg(equation.length)));

  it('two hundred random equations', () => {
    const random = lcg(11);
    for (let i = 0; i < 200; i++) {
      const { equation, sizes } = randomEquation(random);
      check(equation, sizes, random);
    }
  });
});

describe('einsum refuses', () => {
  before(() => useBackend('cpu'));
  const refuse = (equation: string, shapes: [number[], number[]]): string => {
    const error = thrown(() => tf.tidy(() => einsum(equation, tf.ones(shapes[0]), tf.ones(shapes[1]))));
    expect(error).to.be.instanceOf(ArgumentError);
    return error.message;
  };
  const square: [number[], number[]] = [
    [2, 2],
    [2, 2],
  ];

  for (const equation of ['ij,jk', 'ij->ij', 'ij,jk,kl->il', '...i,ij->j', 'ij,jk->IK', '']) {
    it(`the equation '${equation}'`, () => expect(refuse(equation, square)).to.contain(`'${equation}'`));
  }
  it('a diagonal', () => expect(refuse('ii,ij->j', square)).to.contain("'ii'"));
  it('a repeated output label', () => expect(refuse('ij,jk->ii', square)).to.contain('repeats'));
  it('an output label of neither operand', () => expect(refuse('ij,jk->iz', square)).to.contain("'z'"));
  it('an operand of another rank', () => expect(refuse('ijk,jk->i', square)).to.contain('expected rank 3'));
  it('sizes that disagree', () => {
    expect(
      refuse('ij,jk->ik', [
        [2, 3],
        [4, 2],
      ]),
    ).to.contain("'j' is 3 in operand 0 and 4 in operand 1");
  });
});
