import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { replaceFile } from '@qwen-supervisor/files/replace-file';
import type { Config } from '@qwen-supervisor/protocol/config';
import { firstDevice } from '@qwen-supervisor/protocol/device';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Command } from 'commander';
import { type Measured, measureSystem } from '../verify/measure-system.js';
import { explained } from './client.js';
import { runEntry } from './entry.js';
import { print, printError } from './printer.js';
import { type Settings, withSettings } from './settings.js';
import { whileWaiting } from './while-waiting.js';

const MEASURING = 'a whole system in a scratch folder draws small pictures';
/** Of Qwen-Image's pictures, pixels. */
const SIDES = [512, 1024, 1328];

export function addBench(program: Command): void {
  withSettings(program.command('bench'))
    .description('measure this machine: a whole system in a scratch folder, with small pictures')
    .option('--probe', "instead, one block of Qwen-Image's width on the device, at 512, 1024 and 1328 pixels")
    .option('--find-threads', 'instead, the number of threads with the shortest step')
    .option('--write', 'with --find-threads: write it into the file of --config')
    .option('--json', 'print one JSON object')
    .action(async ({ probe, findThreads, write, json, ...settings }: Settings) => {
      const file = settings.config ?? process.env.QWEN_SUPERVISOR_CONFIG;
      if (write && !(findThreads && file))
        throw new CodedError('USAGE_INVALID', '--write: needs --find-threads, and a file named by --config');
      const { config } = explained(settings);
      if (probe) return probeDevice(config, Boolean(json));
      if (!findThreads) {
        const measured = await whileWaiting(() => MEASURING, measureSystem(config));
        return print(json ? JSON.stringify(measured) : linesOf(measured).join('\n'));
      }
      const found = await findThreadCount(config, Boolean(json));
      if (write) await writeThreads(file as string, found.best);
      if (json) print(JSON.stringify(found));
      else print(`best: threads = ${found.best}${write ? `, written into ${file}` : ''}`);
    });
}

async function probeDevice(config: Config, json: boolean): Promise<void> {
  const [{ findDevices }, { candidatesFor }, { firstWorking }] = await Promise.all([
    import('../devices/find-devices.js'),
    import('../devices/devices.js'),
    import('../devices/check-device.js'),
  ]);
  const fallback = config.device === 'auto' ? 'cpu' : 'none';
  const { candidates } = candidatesFor(firstDevice(config.device), fallback, await findDevices(config));
  // Of `auto` the first that works; one that was named has to.
  const { candidate } = await firstWorking(candidates, () => {});
  const { device, name, driver, env } = candidate;
  const dataDir = config['data-dir'];
  const command = { device, name, driver, threads: config.threads, sides: SIDES, json, dataDir };
  return runEntry('@qwen-supervisor/inference/bench-main', [JSON.stringify(command)], env);
}

/** Powers of two up to what there is, and that. */
function candidatesOf(processors: number): number[] {
  const powers = Array.from({ length: Math.floor(Math.log2(processors)) + 1 }, (_, i) => 2 ** i);
  return [...new Set([...powers, Math.ceil(processors / 2), processors])].sort((a, b) => a - b);
}

/** A difference of less is none: then fewer threads leave more to others. */
const BETTER = 0.97;

/** @throws CodedError VERIFY_FAILED */
async function findThreadCount(config: Config, json: boolean) {
  const steps: { threads: number; step: number }[] = [];
  for (const threads of candidatesOf(availableParallelism())) {
    const measuring = measureSystem({ ...config, threads });
    const { step } = await whileWaiting(() => `${MEASURING} with threads = ${threads}`, measuring);
    if (step === null) throw new CodedError('VERIFY_FAILED', `no step was seen with ${threads} threads`);
    steps.push({ threads, step });
    if (!json) print(`threads ${String(threads).padStart(3)}   step ${inSeconds(step)}`);
  }
  const best = steps.reduce((best, one) => (one.step < BETTER * best.step ? one : best));
  return { best: best.threads, steps };
}

/** One line of the file, whatever else is in it. @throws CodedError OUTPUT_UNWRITABLE */
async function writeThreads(file: string, threads: number): Promise<void> {
  const line = `threads = ${threads}`;
  const text = readFileSync(file, 'utf8');
  const pattern = /^threads\s*=.*$/m;
  const changed = pattern.test(text) ? text.replace(pattern, line) : `${text.trimEnd()}\n${line}\n`.trimStart();
  try {
    await replaceFile(file, Buffer.from(changed));
  } catch (cause) {
    throw new CodedError('OUTPUT_UNWRITABLE', `${file}: ${(cause as Error).message}`, { cause });
  }
  printError("a supervisor that runs takes it with 'qwen-supervisor reload'");
}

const NAME_WIDTH = 16;

function linesOf(measured: Measured): string[] {
  const { model, size, device, threads, serving, ready, load, queue, text, step, decode, http, ipc } = measured;
  const { supervisorBytes, workerBytes } = measured;
  const parts = Object.entries(load).map(([part, seconds]) => `${part} ${inSeconds(seconds)}`);
  const stages = Object.entries(workerBytes).flatMap(([stage, bytes]) =>
    bytes === null ? [] : [`${stage} ${megabytes(bytes)}`],
  );
  const rows: [string, string][] = [
    ['what', `${model}, ${size}, on ${device}, ${threads === 0 ? 'as many threads as cores' : `${threads} threads`}`],
    ['start', `${inSeconds(serving)} to the first answer, ${inSeconds(ready)} until it could draw`],
    ['load', parts.join(', ')],
    ['queue and IPC', `${inSeconds(queue)} from accepted to begun`],
    ['text', inSeconds(text)],
    ['step', inSeconds(step)],
    ['decode', inSeconds(decode)],
    ['round trip', `HTTP ${inSeconds(http)}, control socket ${inSeconds(ipc)}`],
    ['memory', `supervisor ${megabytes(supervisorBytes)}; worker at most ${stages.join(', ')}`],
  ];
  return rows.map(([name, value]) => `${name.padEnd(NAME_WIDTH)} ${value}`);
}

function inSeconds(seconds: number | null): string {
  if (seconds === null) return 'not seen';
  return seconds < 1 ? `${(seconds * 1000).toPrecision(3)} ms` : `${seconds.toFixed(1)} s`;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}
