/** Entry of the `mamba2` command: parses arguments, runs a command, turns its outcome into an exit code. */
import { Command, CommanderError } from 'commander';
import { packageVersion } from '../runtime/version.js';
import { COMMANDS } from './commands.js';
import { report } from './output.js';

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
    // `--debug` may stand after the command's name too.
    if (command !== program) command.option('--debug', 'show where an error came from');
    command.commands.forEach(settle);
  };
  settle(program);
  return program;
}

/**
 * Runs the command line.
 *
 * @param argv arguments after the program's name
 * @returns the exit code
 */
export async function main(argv: readonly string[]): Promise<number> {
  // A reader that has seen enough (`| head`) closes the pipe: that is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  const program = buildProgram();
  if (argv.length === 0) {
    program.outputHelp({ error: true });
    return USAGE;
  }
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE; // commander has printed it
    report(error, argv.includes('--debug'));
    return 1;
  }
}
