import { atOnce } from '../../src/base/pieces.js';
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { attr, graphDef, type NodeText } from '../../src/jit/trace/graphdef.js';
import { allocate, NativeSession, type SessionError } from '../../src/runtime/native_session.js';
import { useBackend } from '../support/backends.js';

const FLOAT = 1;
const type = { T: attr.type(FLOAT) };
const placeholder = (name: string, shape: readonly number[]): NodeText => ({
  name,
  op: 'Placeholder',
  inputs: [],
  attrs: { dtype: attr.type(FLOAT), shape: attr.shape(shape) },
});
/** y = x + x, and x again */
const twice = (shape: readonly number[]): NodeText[] => [
  placeholder('x', shape),
  { name: 'y', op: 'AddV2', inputs: ['x', 'x'], attrs: type },
  { name: 'same', op: 'Identity', inputs: ['x'], attrs: type },
];

describe('a session of TensorFlow', () => {
  before(() => useBackend('tensorflow'));

  const opened: NativeSession[] = [];
  afterEach(() => opened.splice(0).forEach((session) => session.close()));
  const open = (nodes: readonly NodeText[]): NativeSession => {
    const session = new NativeSession();
    opened.push(session);
    session.loadSync(atOnce(graphDef(nodes, [])));
    return session;
  };
  const floats = (results: readonly ArrayBuffer[]): number[][] => results.map((one) => [...new Float32Array(one)]);

  it('runs a graph at once and on its own thread, with one result', async () => {
    const session = open(twice([2]));
    const call = session.prepare([['x:0', FLOAT, [2]]], ['y:0', 'same:0']);
    const both = [
      [6, 8],
      [3, 4],
    ];
    expect(floats(session.runSync(call, [Float32Array.of(3, 4)]))).to.deep.equal(both);
    expect(floats(await session.run(call, [Float32Array.of(3, 4)]))).to.deep.equal(both);
  });

  it('grows: nodes that are loaded later are run as well', async () => {
    const session = open(twice([2]));
    const first = session.prepare([['x:0', FLOAT, [2]]], ['y:0']);
    session.runSync(first, [Float32Array.of(1, 2)]);
    await session.load(
      atOnce(graphDef([placeholder('u', [1]), { name: 'v', op: 'Neg', inputs: ['u'], attrs: type }], [])),
    );
    const second = session.prepare([['u:0', FLOAT, [1]]], ['v:0']);
    expect(floats(await session.run(second, [Float32Array.of(5)]))).to.deep.equal([[-5]]);
    expect(floats(session.runSync(first, [Float32Array.of(1, 2)]))).to.deep.equal([[2, 4]]);
  });

  it('does calls in the order they come, those that wait for an answer among them', async () => {
    const session = open(twice([1]));
    const call = session.prepare([['x:0', FLOAT, [1]]], ['y:0']);
    const ends: string[] = [];
    const promised = Array.from({ length: 20 }, (_, i) =>
      session.run(call, [Float32Array.of(i)]).then(([y]) => {
        ends.push(String(i));
        return new Float32Array(y!)[0];
      }),
    );
    expect(floats(session.runSync(call, [Float32Array.of(20)]))).to.deep.equal([[40]]);
    expect(await Promise.all(promised)).to.deep.equal(Array.from({ length: 20 }, (_, i) => 2 * i));
    expect(ends).to.deep.equal(Array.from({ length: 20 }, (_, i) => String(i)));
  });

  it('leaves the event loop free while it runs', async () => {
    const n = 1024;
    const product = { transpose_a: attr.bool(false), transpose_b: attr.bool(false), ...type };
    const nodes = Array.from({ length: 24 }, (_, i): NodeText => {
      const inputs = [i === 0 ? 'x' : `m${i - 1}`, 'x'];
      return { name: `m${i}`, op: 'MatMul', inputs, attrs: product };
    });
    const session = open([placeholder('x', [n, n]), ...nodes]);
    const call = session.prepare([['x:0', FLOAT, [n, n]]], ['m23:0']);
    const x = new Float32Array(n * n);
    for (let i = 0; i < n; i++) x[i * n + i] = 1;
    let fired = 0;
    const timer = setInterval(() => fired++, 5);
    const began = performance.now();
    const [y] = await session.run(call, [x]);
    clearInterval(timer);
    const ms = performance.now() - began;
    expect(ms, 'longer than some ticks').to.be.greaterThan(30);
    expect(fired).to.be.greaterThan(ms / 50);
    expect(new Float32Array(y!)).to.deep.equal(x); // the identity's powers
  });

  it('copies what it is fed, but for memory of its own', async () => {
    const session = open(twice([20_000]));
    const call = session.prepare([['x:0', FLOAT, [20_000]]], ['y:0', 'same:0']);
    for (const x of [new Float32Array(20_000), new Float32Array(allocate(80_000))]) {
      x.fill(2);
      const promise = session.run(call, [x]);
      const [y, same] = floats(await promise);
      expect(y!.every((v) => v === 4)).to.equal(true);
      expect(same!.every((v) => v === 2)).to.equal(true);
    }
    const plain = new Float32Array(20_000).fill(2);
    const promise = session.run(call, [plain]);
    plain.fill(9); // the call has its own
    expect(floats(await promise)[0]!.every((v) => v === 4)).to.equal(true);
  });

  it('hands a result to another session without a word to JavaScript', async () => {
    const [from, to] = [open(twice([3])), open(twice([3]))];
    const places = [['x:0', FLOAT, [3]]] as const;
    const [kept] = await from.keep(from.prepare(places, ['y:0']), [Float32Array.of(1, 2, 3)]);
    expect(floats(to.runSync(to.prepare(places, ['y:0']), [kept!]))).to.deep.equal([[4, 8, 12]]);
  });

  it("tells TensorFlow's whole message and its code, and goes on", async () => {
    const long = Array.from({ length: 40 }, (_, i) => `node_${i}_of_a_long_name`);
    const nodes = [placeholder('x', [-1]), placeholder('w', [-1])];
    const name = long.join('_');
    const session = open([...nodes, { name, op: 'AddV2', inputs: ['x', 'w'], attrs: type }]);
    const call = session.prepare(
      [
        ['x:0', FLOAT, [-1]],
        ['w:0', FLOAT, [-1]],
      ],
      [`${name}:0`],
    );
    const bad = [Float32Array.of(1, 2), Float32Array.of(1, 2, 3)];
    const failures: SessionError[] = [];
    await session.run(call, bad).catch((error: SessionError) => failures.push(error));
    try {
      session.runSync(call, bad);
    } catch (error) {
      failures.push(error as SessionError);
    }
    expect(failures).to.have.length(2);
    for (const { message, code } of failures) {
      expect(code).to.equal(3); // INVALID_ARGUMENT
      expect(message).to.match(/Incompatible shapes: \[2\] vs. \[3\]/);
      expect(message).to.include(name); // beyond 499 bytes
    }
    expect(floats(await session.run(call, [Float32Array.of(1), Float32Array.of(2)]))).to.deep.equal([[3]]);
  });

  it('says what does not fit, before anything runs', () => {
    const session = open(twice([2]));
    expect(() => session.prepare([['z:0', FLOAT, [2]]], ['y:0'])).to.throw("the graph has no 'z:0'");
    const call = session.prepare([['x:0', FLOAT, [2]]], ['y:0']);
    expect(() => session.runSync(call, [Float32Array.of(1)])).to.throw('got 4 bytes, expected 8');
    expect(() => session.runSync(call, [])).to.throw('got 0 values, expected 1');
    expect(() => new NativeSession(Uint8Array.of(255)).loadSync(new Uint8Array(0))).to.throw(/ConfigProto/);
    expect(() => open([{ name: 'a', op: 'NoSuchOp', inputs: [], attrs: {} }])).to.throw(/NoSuchOp/);
  });

  it('closed while it runs, ends that run and refuses those that wait', async () => {
    const session = open(twice([1]));
    const call = session.prepare([['x:0', FLOAT, [1]]], ['y:0']);
    const told = Array.from({ length: 50 }, () =>
      session.run(call, [Float32Array.of(1)]).then(
        () => 'ended',
        (error: Error) => error.message,
      ),
    );
    session.close();
    const ends = await Promise.all(told);
    expect(ends).to.include('the session is closed');
    expect(ends.filter((end) => end !== 'ended' && end !== 'the session is closed')).to.deep.equal([]);
    expect(() => session.runSync(call, [Float32Array.of(1)])).to.throw('closed');
    await sleep(1);
    session.close();
  });
});
