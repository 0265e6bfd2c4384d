import type { PreflightQuestion } from '@qwen-supervisor/model/preflight';
import type { PlanQuestion } from '@qwen-supervisor/model/registry/plan-of';
import type { Config } from '@qwen-supervisor/protocol/config';
import { firstDevice, listOfDevices } from '@qwen-supervisor/protocol/device';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { SIDE_MAX, SIDE_MIN, SIDE_MULTIPLE, STEPS_MAX } from '@qwen-supervisor/protocol/job-request';
import type { Command } from 'commander';
import { modelQuestion } from '../config/config-parts.js';
import type { Free } from '../planned-models.js';
import { askRunning, configOf, dataDirOf, withDataDir } from './client.js';
import { runEntry } from './entry.js';
import { heldBy } from './held-memory.js';
import { printError } from './printer.js';

type Options = { dataDir?: string; json?: boolean };
interface AddOptions extends Options {
  quantize: string;
  quality: string;
  name?: string;
  checkOnly?: boolean;
  acceptLicense?: boolean;
  memory?: string;
  lightning?: string;
}
interface PlanOptions extends Options {
  memory?: string;
  size?: string;
  steps?: string;
}

export function addModel(program: Command): void {
  const model = program.command('model').description('look after checkpoints');
  const withOptions = (command: Command) => withDataDir(command).option('--json', 'print one JSON object');
  withOptions(model.command('add'))
    .description('prepare a checkpoint for this machine, once')
    .argument('<folder>', 'checkpoint folder')
    .option('--quantize <precision>', 'int4, int8, none for float32, or auto: what the memory is enough for', 'auto')
    .option('--memory <size>', 'for which auto chooses, as 16GiB; what is free here if left out')
    .option('--quality <quality>', 'standard, or best: ten times the time for 3 % less error', 'standard')
    .option('--lightning <file>', 'LoRA of Qwen-Image-Lightning: pictures in 4 or 8 steps')
    .option('--name <name>', 'what to call it')
    .option('--check-only', 'look at the headers of its files and write nothing')
    .option('--accept-license', 'for a licence that forbids commercial use')
    .action(async (folder: string, options: AddOptions) => {
      const { quantize, quality, name, checkOnly = false, acceptLicense = false } = options;
      oneOf('--quantize', quantize, ['int4', 'int8', 'none', 'auto']);
      oneOf('--quality', quality, ['standard', 'best']);
      const config = configOf(options);
      const held = await heldNow(config);
      const { memoryBytes, heldBytes } = questionOf(config, options.memory, held);
      const card = quantize === 'auto' ? (await deviceFor(config, held)).card : null;
      const lightning = options.lightning ?? null;
      return look(options, {
        do: 'add',
        folder,
        quantize,
        quality,
        name,
        checkOnly,
        acceptLicense,
        memoryBytes,
        heldBytes,
        card,
        lightning,
      });
    });
  withOptions(model.command('list'))
    .description('the models that were added')
    .action((options: Options) => look(options, { do: 'list' }));
  for (const [verb, text] of [
    ['show', 'what a model is made of'],
    ['verify', 'compare the prepared weights with their checksums'],
    ['use', "start this one where nobody names a model; 'start' looks when it begins"],
    ['remove', 'remove the prepared weights of a model; its checkpoint stays'],
  ] as const) {
    withOptions(model.command(verb))
      .description(text)
      .argument('<name>', 'name of a model that was added')
      .action(async (name: string, options: Options) => {
        if (verb === 'remove') await requireUnused(dataDirOf(options), name);
        await look(options, { do: verb, name });
        const { model: started } = configOf(options);
        if (verb === 'use' && !process.exitCode && started !== name)
          printError(`note: the configuration names another model, ${started}, and that is what starts`);
      });
  }
  withOptions(model.command('plan'))
    .description('whether a model fits into the memory of this machine, and how long a picture takes')
    .argument('[model]', 'name of a model that was added, or a checkpoint folder; the one that is started if left out')
    .option('--memory <size>', 'as 16GiB; what is free here if left out')
    .option('--size <WxH>', "of the picture; the model's own if left out")
    .option('--steps <n>', "denoising steps; the model's own if left out")
    .action(async (target: string | undefined, options: PlanOptions) => {
      const { memory, size, steps, json = false } = options;
      const config = configOf(options);
      const held = await heldNow(config);
      const question = questionOf(config, memory, held);
      const asked = { ...question, target: target ?? config.model, size: sizeOf(size), steps: stepsOf(steps) };
      const { threads } = config;
      const whole = { ...asked, ...(await deviceFor(config, held)), threads, json };
      return runEntry('@qwen-supervisor/inference/plan-main', [JSON.stringify(whole)]);
    });
  withOptions(model.command('check'))
    .description('compare what a checkpoint computes here with golden tensors')
    .argument('<model>', 'name of a model that was added, or a checkpoint folder')
    .requiredOption('--golden <folder>', 'folder of golden tensors')
    .action((folder: string, options: Options & { golden: string }) => {
      const format = options.json ? 'json' : 'text';
      return runEntry('@qwen-supervisor/inference/check-main', [folder, options.golden, dataDirOf(options), format]);
    });
}

/** A worker that is started anew would not find its weights. @throws CodedError MODEL_RUNNING */
async function requireUnused(dataDir: string, name: string): Promise<void> {
  const running = await askRunning(dataDir, async ({ welcome, pid }) => ({ folder: welcome.model.folder, pid }));
  if (running?.folder === name)
    throw new CodedError('MODEL_RUNNING', `'${name}' is what the supervisor (process ${running.pid}) runs`);
}

/** What a start would be asked; what running workers hold counts as free: it is planned for the time after them. */
function questionOf(config: Config, memory: string | undefined, held: Free): PreflightQuestion {
  const given = bytesOf(memory);
  const sharers = listOfDevices(config.device).length;
  if (given !== null) return { ...modelQuestion(config, 0, sharers), memoryBytes: given };
  return modelQuestion(config, held.machineBytes, sharers);
}

async function heldNow(config: Config): Promise<Free> {
  const status = await askRunning(config['data-dir'], ({ link }) => link.request('status', {})).catch((error) => {
    // One of another version, or that stands still, keeps nobody from planning.
    if (!(error instanceof CodedError)) throw error;
    printError(`note: ${error.code}: what the running worker holds is not counted as free`);
    return null;
  });
  return heldBy(status);
}

/** The device that a start would try first and that works, of several the first, and its memory. */
async function deviceFor(
  config: Config,
  held: Free,
): Promise<Pick<PlanQuestion, 'device' | 'name' | 'driver' | 'card'>> {
  const [{ findDevices }, { candidatesFor }, { firstWorking }] = await Promise.all([
    import('../devices/find-devices.js'),
    import('../devices/devices.js'),
    import('../devices/check-device.js'),
  ]);
  const { candidates } = candidatesFor(firstDevice(config.device), 'cpu', await findDevices(config));
  const onFault = ({ code, message }: CodedError) =>
    printError(`note: ${code}: ${message}; the next device is looked at`);
  const { candidate, card } = await firstWorking(candidates, onFault, held.heldOn);
  const { device, name, driver } = candidate;
  return { device, name, driver, card };
}

/** @throws CodedError USAGE_INVALID */
function bytesOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([GM]i?B?)?$/i.exec(text) ?? [];
  if (number === undefined) throw new CodedError('USAGE_INVALID', `--memory: '${text}' is no size like 16GiB or 16GB`);
  const [base, power] = [/i/i.test(unit) ? 1024 : 1000, /m/i.test(unit) ? 2 : 3];
  return Number(number) * base ** power;
}

/** @throws CodedError USAGE_INVALID */
function sizeOf(text: string | undefined): { width: number; height: number } | null {
  if (text === undefined) return null;
  const [width = 0, height = 0] = (/^(\d+)x(\d+)$/.exec(text) ?? []).slice(1).map(Number);
  if ([width, height].every((side) => side >= SIDE_MIN && side <= SIDE_MAX && side % SIDE_MULTIPLE === 0))
    return { width, height };
  throw new CodedError(
    'USAGE_INVALID',
    `--size: '${text}' is no size like 1328x1328, its sides multiples of ${SIDE_MULTIPLE} up to ${SIDE_MAX}`,
  );
}

/** @throws CodedError USAGE_INVALID */
function stepsOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (/^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= STEPS_MAX) return Number(text);
  throw new CodedError('USAGE_INVALID', `--steps: '${text}' is no number from 1 to ${STEPS_MAX}`);
}

function oneOf(flag: string, value: string, values: string[]): void {
  if (!values.includes(value))
    throw new CodedError('USAGE_INVALID', `${flag}: '${value}' is none of ${values.join(', ')}`);
}

function look(options: Options, command: object): Promise<void> {
  const whole = { ...command, dataDir: dataDirOf(options), json: options.json ?? false };
  return runEntry('@qwen-supervisor/model/registry/models-main', [JSON.stringify(whole)]);
}
