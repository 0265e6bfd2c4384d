/** The command line: one command per file, loaded when it is called. */
import { inspect } from 'node:util';
import { VERSION } from '@qwen-supervisor/ipc/version';
import { CodedError, ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { Command, CommanderError } from 'commander';
import { addBench } from './bench.js';
import { addCompletion } from './completion.js';
import { addConfig } from './config.js';
import { addCrashes } from './crashes.js';
import { addDevice } from './device.js';
import { addDoctor } from './doctor.js';
import { addEvents } from './events.js';
import { addGenerate } from './generate.js';
import { addGpu } from './gpu.js';
import { addJobs } from './jobs.js';
import { addKeys } from './keys.js';
import { addLogs } from './logs.js';
import { addModel } from './model.js';
import { addOpen } from './open.js';
import { printError } from './printer.js';
import { addReload } from './reload.js';
import { addRestart } from './restart.js';
import { addService } from './service.js';
import { addStart } from './start.js';
import { addStatus } from './status.js';
import { addStop } from './stop.js';
import { addVerify } from './verify.js';

const COMMANDS = [
  addStart,
  addStop,
  addRestart,
  addReload,
  addStatus,
  addOpen,
  addGenerate,
  addJobs,
  addEvents,
  addLogs,
  addCrashes,
  addModel,
  addDevice,
  addGpu,
  addDoctor,
  addVerify,
  addBench,
  addConfig,
  addKeys,
  addCompletion,
  addService,
];

/** What people try besides --version. */
const VERSION_WORDS = new Set(['-v', 'version']);

/** Every command takes them, wherever they stand; whoever paints looks for them. */
const COLOUR_WORDS = new Set(['--color', '--no-color']);

/** All commands, with their flags; none is run. */
export function commandLine(): Command {
  const program = new Command('qwen-supervisor')
    .description('A local Qwen-Image server that no crash can hurt.')
    .version(VERSION)
    .option('--color', 'colours, also where the output is no terminal; FORCE_COLOR does the same')
    .option('--no-color', 'no colours; NO_COLOR does the same')
    .addHelpText(
      'after',
      `
Examples:
  qwen-supervisor start                                     here, until Ctrl+C
  qwen-supervisor service install                           from login on, under systemd
  qwen-supervisor generate a fox on a teal background -o fox.png
  qwen-supervisor status --watch                            what it does
  qwen-supervisor doctor                                    what is wrong here

A command that fails prints 'error CODE: message' and 'hint: what to do', and exits with the code's own exit code.`,
    )
    .showHelpAfterError(false);
  for (const add of COMMANDS) add(program);
  return program;
}

/** Runs the command line `argv` (without node and script) and sets the exit code. */
export async function main(argv: string[]): Promise<void> {
  const program = commandLine();
  quiet(program);
  // Who reads us may go away: `qwen-supervisor logs | head`. The supervisor itself goes on without a reader.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (argv[0] === 'start') return;
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  try {
    const words = argv.filter((word, i) => !COLOUR_WORDS.has(word) || argv.slice(0, i).includes('--'));
    await program.parseAsync(VERSION_WORDS.has(words[0] ?? '') ? ['--version'] : words, { from: 'user' });
  } catch (error) {
    fail(error);
    // Whatever is still open of a failed start must not keep it alive.
    if (argv[0] === 'start') process.exit();
  }
}

/** Usage errors are reported as every other error is. */
function quiet(command: Command): void {
  command.exitOverride().configureOutput({ writeErr: () => {} });
  for (const sub of command.commands) quiet(sub);
}

function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return;
    // Commander shows the help where a command is missing; it has gone to the silenced output.
    const message =
      error.code === 'commander.help'
        ? 'no command was given'
        : error.message.replace(/^error: /, '').replaceAll('\n', ' ');
    report(new CodedError('USAGE_INVALID', message));
  } else report(toCodedError(error));
}

/** `error CODE: message`, then what to do. A stack only for bugs, and only when asked for. */
function report(error: CodedError): void {
  printError(`error ${error.code}: ${error.message}\nhint: ${error.hint}`);
  if (process.env.QWEN_SUPERVISOR_LOG_LEVEL === 'debug') printError(inspect(error.cause ?? error));
  process.exitCode = ERRORS[error.code].exit;
}
