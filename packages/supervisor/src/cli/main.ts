/** The command line: one command per file, loaded when it is called. */
import { inspect } from 'node:util';
import { VERSION } from '@qwen-supervisor/ipc/version';
import { CodedError, ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { Command, CommanderError } from 'commander';
import { addExamples } from './examples.js';
import { printError } from './printer.js';

/** In the order of the help. What a command does not need is not loaded with it: a supervisor runs for years. */
const COMMANDS: Record<string, () => Promise<(program: Command) => void>> = {
  start: async () => (await import('./start.js')).addStart,
  stop: async () => (await import('./stop.js')).addStop,
  restart: async () => (await import('./restart.js')).addRestart,
  reload: async () => (await import('./reload.js')).addReload,
  status: async () => (await import('./status.js')).addStatus,
  open: async () => (await import('./open.js')).addOpen,
  generate: async () => (await import('./generate.js')).addGenerate,
  jobs: async () => (await import('./jobs.js')).addJobs,
  events: async () => (await import('./events.js')).addEvents,
  machines: async () => (await import('./machines.js')).addMachines,
  logs: async () => (await import('./logs.js')).addLogs,
  crashes: async () => (await import('./crashes.js')).addCrashes,
  model: async () => (await import('./model.js')).addModel,
  device: async () => (await import('./device.js')).addDevice,
  gpu: async () => (await import('./gpu.js')).addGpu,
  doctor: async () => (await import('./doctor.js')).addDoctor,
  verify: async () => (await import('./verify.js')).addVerify,
  bench: async () => (await import('./bench.js')).addBench,
  config: async () => (await import('./config.js')).addConfig,
  keys: async () => (await import('./keys.js')).addKeys,
  store: async () => (await import('./store.js')).addStore,
  completion: async () => (await import('./completion.js')).addCompletion,
  service: async () => (await import('./service.js')).addService,
};

/** What people try besides --version. */
const VERSION_WORDS = new Set(['-v', 'version']);

/** Every command takes them, wherever they stand; whoever paints looks for them. */
const COLOUR_WORDS = new Set(['--color', '--no-color']);

const HOW_IT_FAILS =
  "A command that fails prints 'error CODE: message' and 'hint: what to do', and exits with the code's own exit code.";

/** Commands with their flags, all if none is named; none is run. */
export async function commandLine(names = Object.keys(COMMANDS)): Promise<Command> {
  const program = new Command('qwen-supervisor')
    .description('A local Qwen-Image server that no crash can hurt.')
    .version(VERSION)
    .option('--color', 'colours, also where the output is no terminal; FORCE_COLOR does the same')
    .option('--no-color', 'no colours; NO_COLOR does the same')
    .showHelpAfterError(false)
    // On a telephone, too.
    .configureHelp({ minWidthToWrap: 12 });
  const adds = await Promise.all(names.map((name) => COMMANDS[name]?.()));
  for (const add of adds) add?.(program);
  addExamples(program);
  return program.addHelpText('after', `\n${HOW_IT_FAILS}`);
}

/** Runs the command line `argv` (without node and script) and sets the exit code. */
export async function main(argv: string[]): Promise<void> {
  const words = argv.filter((word, i) => !COLOUR_WORDS.has(word) || argv.slice(0, i).includes('--'));
  const [name = ''] = words;
  const isOne = Object.hasOwn(COMMANDS, name) && name !== 'completion';
  const program = await commandLine(isOne ? [name] : undefined);
  quiet(program);
  // Who reads us may go away: `qwen-supervisor logs | head`. The supervisor itself goes on without a reader.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (argv[0] === 'start') return;
    if (error.code !== 'EPIPE') throw error;
    // A command that has asked for something takes it back first.
    if (process.stdout.listenerCount('error') === 1) process.exit(0);
  });
  try {
    await program.parseAsync(VERSION_WORDS.has(name) ? ['--version'] : words, { from: 'user' });
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
