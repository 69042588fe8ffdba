/** No option is silently ignored: whatever takes options refuses a misspelt one by name. */
import { spawnSync } from 'node:child_process';
import { expect } from 'chai';
import { Mamba2Error } from '../../src/base/errors.js';
import { optionTables } from '../../src/base/options.js';
import { misspellings } from '../support/misspell.js';
import { ENTRIES, type OptionParameter, optionParameters } from '../support/option_parameters.js';

type Callable = ((...args: unknown[]) => unknown) & (new (...args: unknown[]) => unknown);
type Members = Record<string, (...args: unknown[]) => unknown>;

/** What a call throws or rejects with; null where it does neither. */
async function failure(call: () => unknown): Promise<unknown> {
  try {
    const result = call();
    // an iterator that is made does nothing before it is asked
    if (typeof result === 'object' && result !== null && Symbol.asyncIterator in result)
      await (result as AsyncIterable<unknown>)[Symbol.asyncIterator]().next();
    await result;
    return null;
  } catch (error) {
    return error ?? 'undefined';
  }
}

describe('a misspelt option', function () {
  this.timeout(120_000);
  const modules: Record<string, Record<string, unknown>> = {};
  let parameters: OptionParameter[];
  before(async () => {
    for (const entry of ENTRIES) modules[entry] = (await import(`../../src/${entry}.js`)) as Record<string, unknown>;
    parameters = optionParameters();
  });

  /** Calls with nothing but the options: they are checked before anything else is looked at. */
  function call({ entry, name, kind, member, index }: OptionParameter, options: object): Promise<unknown> {
    const args = [...new Array<undefined>(index), options];
    const exported = modules[entry]![name] as Callable;
    switch (kind) {
      case 'function':
        return failure(() => exported(...args));
      case 'constructor':
        return failure(() => new exported(...args));
      case 'static':
        return failure(() => (exported as unknown as Members)[member]!(...args));
      case 'method': {
        const instance = Object.create(exported.prototype as object) as Members;
        return failure(() => instance[member]!(...args));
      }
    }
  }

  it('is refused by name by every function, constructor and method, before it looks at anything else', async () => {
    const passed: string[] = [];
    let tried = 0;
    for (const parameter of parameters) {
      const known = new Set(parameter.names);
      for (const wrong of parameter.names.flatMap((name) => misspellings(name, known))) {
        tried++;
        const error = await call(parameter, { [wrong]: 1 });
        const named = error instanceof Mamba2Error && error.message.includes(wrong);
        if (!named) passed.push(`${parameter.title}: ${wrong}: ${String(error)}`);
      }
    }
    expect(parameters.length).to.be.greaterThan(40);
    expect(tried).to.be.greaterThan(200);
    expect([...new Set(passed)]).to.deep.equal([]);
  });

  it('is refused by the compiler, too: no type of options lets any name through', () => {
    expect(parameters.filter(({ open }) => open).map(({ title }) => title)).to.deep.equal([]);
  });

  it('is refused by every table, with the name that was meant for nearly all', () => {
    let [tried, meant] = [0, 0];
    for (const table of optionTables()) {
      const known = new Set([...table.names, ...Object.keys(table.others)]);
      for (const name of table.names)
        for (const wrong of misspellings(name, known)) {
          tried++;
          try {
            table.check({ [wrong]: 1 });
            expect.fail(`${table.where} takes ${wrong}`);
          } catch (error) {
            expect(error, `${table.where}: ${wrong}`).to.be.instanceOf(Mamba2Error);
            const { message } = error as Error;
            expect(message).to.include(wrong);
            if (message.includes(`Did you mean ${name}?`)) meant++;
          }
        }
    }
    expect(tried).to.be.greaterThan(200);
    expect(meant / tried).to.be.greaterThan(0.9);
  });

  it('is not in docs/options.md, which is made of the tables', () => {
    // in a process of its own: other tests make tables, too
    const script = 'scripts/docs/option_tables.ts';
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, '--check'], {
      encoding: 'utf8',
    });
    expect(status, stderr).to.equal(0);
  });
});
