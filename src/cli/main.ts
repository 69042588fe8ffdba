/** Entry of the `mamba2` command: parses arguments, runs a command, turns its outcome into an exit code. */
import { Command, CommanderError } from 'commander';
import { packageVersion } from '../runtime/version.js';
import { COMMANDS } from './commands.js';
import { adviseFlag } from './flags.js';
import { endWithOutput, report } from './output.js';

/** Exit codes: 0 done, 1 the command failed, 2 wrong usage. */
const USAGE = 2;

/** The whole command line, with every command of the table. */
export function buildProgram(): Command {
  const program = new Command('mamba2')
    .description('Mamba-2 language models on TensorFlow.js')
    .version(packageVersion(), '-V, --version', 'print the version')
    .option('--debug', 'show where an error came from')
    .showHelpAfterError('(see --help)')
    .enablePositionalOptions();
  for (const register of COMMANDS) register(program);
  const settle = (command: Command) => {
    command.exitOverride();
    command.configureOutput({ outputError: (text, print) => print(adviseFlag(text, command)) });
    // `--debug` may stand after the command's name too.
    if (command !== program) command.option('--debug', 'show where an error came from');
    requireLast(command);
    command.commands.forEach(settle);
  };
  settle(program);
  return program;
}

/** Asks for required options when all flags are known: where one is misspelt, that is what is wrong, not that it is missing. */
function requireLast(command: Command): void {
  const required = command.options.filter(({ mandatory }) => mandatory);
  for (const option of required) option.mandatory = false;
  command.hook('preAction', (_, action) => {
    if (action !== command) return;
    const missing = required.find((option) => command.getOptionValue(option.attributeName()) === undefined);
    if (missing)
      command.error(`error: required option '${missing.flags}' not specified`, {
        code: 'commander.missingMandatoryOptionValue',
      });
  });
}

/**
 * Runs the command line.
 *
 * @param argv arguments after the program's name
 * @returns the exit code
 */
export async function main(argv: readonly string[]): Promise<number> {
  endWithOutput();
  const program = buildProgram();
  if (argv.length === 0) {
    program.outputHelp({ error: true });
    return USAGE;
  }
  let ran: Command | null = null;
  program.hook('preAction', (_program, command) => void (ran = command));
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE; // commander has printed it
    report(error, argv.includes('--debug'), ran);
    return 1;
  }
}
