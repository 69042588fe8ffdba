/** No flag is silently ignored: every command refuses a misspelt one by name. */
import { expect } from 'chai';
import { type Command, CommanderError } from 'commander';
import { buildProgram } from '../../src/cli/main.js';
import { misspellings } from '../support/misspell.js';

/** Words that lead to a command. */
function pathOf(command: Command): string[] {
  return command.parent ? [...pathOf(command.parent), command.name()] : [];
}

/** The command that words lead to, of a program of its own: what was parsed before leaves traces. */
function at(path: readonly string[], program = buildProgram()): Command {
  return path.reduce((command, word) => command.commands.find((each) => each.name() === word)!, program);
}

/** Parses arguments of a command, without running it. */
async function parse(path: readonly string[], args: readonly string[]): Promise<{ error: unknown; said: string }> {
  const program = buildProgram();
  let said = '';
  const quiet = (command: Command): void => {
    command.configureOutput({ writeErr: (text) => (said += text), writeOut: (text) => (said += text) });
    command.action(() => expect.fail(`${path.join(' ')} ran with ${args.join(' ')}`));
    command.commands.forEach(quiet);
  };
  quiet(program);
  try {
    await program.parseAsync([...path, ...args], { from: 'user' });
    return { error: null, said };
  } catch (error) {
    return { error, said };
  }
}

describe('a misspelt flag', () => {
  it('is refused by every command, with the flag that was meant', async () => {
    const commands = (from: Command): Command[] => [from, ...from.commands.flatMap((each) => commands(each))];
    let tried = 0;
    for (const path of commands(buildProgram()).map(pathOf)) {
      const { options } = at(path);
      const known = new Set(options.flatMap(({ long, short }) => [long ?? '', short ?? '']));
      for (const { long } of options) {
        if (!long) continue;
        const wrongs = misspellings(long.slice(2), new Set([...known].map((flag) => flag.slice(2))));
        for (const wrong of wrongs.filter((each) => !/[A-Z]/.test(each[0]!))) {
          tried++;
          const { error, said } = await parse(path, [`--${wrong}`]);
          expect(error, `${path.join(' ')} --${wrong}`).to.be.instanceOf(CommanderError);
          expect(said, path.join(' '))
            .to.include(`--${wrong}`)
            .and.to.match(/unknown option|no option/);
        }
      }
    }
    expect(tried).to.be.greaterThan(200);
  });
});
