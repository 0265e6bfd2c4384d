import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { imageFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError, ERRORS, type ErrorObject } from '@qwen-supervisor/protocol/errors';
import { type Job, type JobOrder, pictureOf } from '@qwen-supervisor/protocol/job';
import { completeRequest, type NativeRequest, parseNativeRequest } from '@qwen-supervisor/protocol/job-request';
import { drawSeed, seedAfter } from '@qwen-supervisor/protocol/seed';
import type { InputQuestion, StoredInput } from '@qwen-supervisor/protocol/stored-input';
import type { Command } from 'commander';
import { execa } from 'execa';
import { answered, type Client, connect, dataDirOf, type Listener, withDataDir } from './client.js';
import { type Output, outputOf, writeOutput } from './output.js';
import { print, printError } from './printer.js';
import { watchJobs } from './watch-jobs.js';

interface Options {
  dataDir?: string;
  output?: string;
  seed?: string;
  steps?: string;
  size?: string;
  cfg?: string;
  negative?: string;
  priority?: string;
  number: string;
  image?: string;
  strength?: string;
  detach?: boolean;
  json?: boolean;
}

/** By these a command is told to end. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** Of one command; more are several commands. */
const PICTURES_MAX = 1000;

export function addGenerate(program: Command): void {
  withDataDir(program.command('generate'))
    .description('draw pictures with the running supervisor')
    .argument('[prompt...]', "what to draw; '-', or nothing in a pipe, reads a prompt per line from standard input")
    .option('-o, --output <path>', 'a folder, or a file: .png, .jpg or .webp (default: JOB.png in this folder)')
    .option('-n, --number <count>', 'pictures of each prompt, with seeds that follow one another', '1')
    .option('--seed <integer>', 'the same seed gives the same picture')
    .option('--steps <count>', 'denoising steps')
    .option('--size <WxH>', 'width and height in pixels, multiples of 16')
    .option('--cfg <scale>', 'true CFG scale; 1 switches guidance off')
    .option('--negative <prompt>', 'what not to draw')
    .option('--image <file>', 'a picture to draw over')
    .option('--strength <share>', 'how much of it is drawn anew, above 0, at most 1')
    .option('--priority <integer>', 'higher goes first; 0 if not given')
    .option('--detach', 'queue them, print their ids and do not wait')
    .option('--json', 'one JSON object per picture')
    .action(async (words: string[], options: Options) => generate(await promptsOf(words), options));
}

/** @throws CodedError USAGE_INVALID */
async function promptsOf(words: string[]): Promise<string[]> {
  const isPiped = words.length === 0 && !process.stdin.isTTY;
  if (!isPiped && words.join(' ') !== '-') {
    if (words.length === 0) throw new CodedError('USAGE_INVALID', 'generate: what is to be drawn?');
    return [words.join(' ')];
  }
  const prompts: string[] = [];
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() !== '') prompts.push(line.trim());
    if (prompts.length > PICTURES_MAX)
      throw new CodedError('USAGE_INVALID', `generate: more than ${PICTURES_MAX} prompts in standard input`);
  }
  if (prompts.length === 0) throw new CodedError('USAGE_INVALID', 'generate: there is no prompt in standard input');
  return prompts;
}

async function generate(prompts: string[], options: Options): Promise<void> {
  const count = countOf(options.number, prompts.length);
  const output = outputOf(options.output, count * prompts.length > 1);
  const given = prompts.map((prompt) => inFlags(() => parseNativeRequest(toRequest(prompt, options))));
  const watcher: Listener = { event() {}, missed() {}, workerFailed() {} };
  const client = await connect(dataDirOf(options), {
    event: (event) => watcher.event(event),
    missed: () => watcher.missed(),
    workerFailed: (reason) => watcher.workerFailed(reason),
  });
  const { link, pid } = client;
  try {
    const input = options.image === undefined ? null : await storedInput(resolve(options.image), given[0], client);
    const orders = given.flatMap((request) => inFlags(() => ordersOf(request, input, count, client)));
    await answered(pid, link.request('subscribe', { since: null }));
    const left = new Set<string>();
    const submitted = answered(pid, link.request('submitJobs', { orders, idempotency: null })).then(({ jobs }) => {
      for (const { id } of jobs) left.add(id);
      return jobs;
    });
    let isInterrupted = false;
    const interrupt = (code: number) => {
      if (isInterrupted) return;
      isInterrupted = true;
      // Before the answer: the first may be drawn by then, and which to cancel is known when it comes.
      const end = () => cancel(client, [...left], code);
      submitted.then(end, end);
    };
    if (!options.detach) {
      for (const signal of SIGNALS) process.once(signal, () => interrupt(128 + constants.signals[signal]));
      // `generate … | head`: nobody reads of the others.
      process.stdout.on('error', () => interrupt(0));
    }
    const jobs = await submitted;
    if (options.detach) {
      for (const job of jobs) print(options.json ? JSON.stringify(job) : job.id);
      return;
    }
    await watchJobs(client, jobs, watcher, async (job) => {
      left.delete(job.id);
      if (isInterrupted) return;
      await take(job, client, output, options.json ?? false, jobs.length > 1);
    });
  } finally {
    link.close();
  }
}

/** Puts a picture where it is wanted. Of several one that has failed is told, and costs no other. */
async function take(job: Job, { dataDir }: Client, output: Output, json: boolean, isOneOfMany: boolean): Promise<void> {
  const { id, seed, prompt } = job;
  try {
    // It names a file of ours.
    if (!/^job_[0-9a-f]{24}$/.test(pictureOf(job).id))
      throw new CodedError('MESSAGE_INVALID', 'the supervisor names no picture');
    const file = output(id);
    await writeOutput(join(dataDir, imageFile(id)), file);
    print(json ? JSON.stringify({ id, file, seed, prompt }) : `${file}  seed ${seed}`);
  } catch (error) {
    if (!(error instanceof CodedError) || !(isOneOfMany || json)) throw error;
    const { code, message, hint } = error;
    process.exitCode = ERRORS[code].exit;
    if (json) print(JSON.stringify({ id, seed, prompt, error: { code, message, hint } }));
    else printError(`error ${code}: ${id}: ${message}\nhint: ${hint}`);
  }
}

function ordersOf(given: NativeRequest, input: StoredInput | null, count: number, { welcome }: Client): JobOrder[] {
  const over = input && { initImage: input.sha256, width: input.width, height: input.height };
  const request = completeRequest({ ...given, ...over }, welcome.model, welcome.limits, drawSeed);
  return Array.from({ length: count }, (_, i) => ({
    request: { ...request, seed: seedAfter(request.seed, i) },
    priority: given.priority ?? 0,
    source: 'cli',
    retryOf: null,
    owner: null,
  }));
}

/** Decoding pictures is nothing that this process has a library for. @throws CodedError UPLOAD_INVALID, DISK_FULL */
async function storedInput(file: string, given: NativeRequest | undefined, client: Client): Promise<StoredInput> {
  const { dataDir, welcome } = client;
  const { width, height } = given ?? {};
  const { limits, model } = welcome;
  const question: InputQuestion = { file, dataDir, given: { width, height }, defaults: model.defaults, limits };
  const entry = fileURLToPath(import.meta.resolve('@qwen-supervisor/api/pictures/input-main'));
  const { stdout } = await execa(process.execPath, [entry, JSON.stringify(question)]);
  const answer = JSON.parse(stdout) as StoredInput | { error: ErrorObject };
  if ('error' in answer) throw CodedError.from(answer.error);
  return answer;
}

/** @throws CodedError USAGE_INVALID */
function countOf(text: string, prompts: number): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count * prompts > PICTURES_MAX)
    throw new CodedError('USAGE_INVALID', `--number: '${text}' is not 1 to ${Math.floor(PICTURES_MAX / prompts)}`);
  return count;
}

/** What the fields of a request are called here. */
const FLAGS: Record<string, string> = {
  numInferenceSteps: '--steps',
  trueCfgScale: '--cfg',
  negativePrompt: '--negative',
  width: '--size',
  height: '--size',
  seed: '--seed',
  priority: '--priority',
  strength: '--strength',
  initImage: '--image',
};

/** @throws CodedError USAGE_INVALID for what is wrong with a request, in the words of the command line */
function inFlags<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'REQUEST_INVALID') throw error;
    const message = error.message.replace(/\b[a-zA-Z]+(?=[:,])|initImage/g, (name) => FLAGS[name] ?? name);
    throw new CodedError('USAGE_INVALID', message, { cause: error });
  }
}

function toRequest(prompt: string, options: Options): Record<string, unknown> {
  const number = (flag: string, text: string | undefined) => {
    if (text === undefined) return undefined;
    if (text.trim() === '' || !Number.isFinite(Number(text)))
      throw new CodedError('USAGE_INVALID', `${flag}: '${text}' is no number`);
    return Number(text);
  };
  const { size } = options;
  const [, width, height] = /^(\d{1,5})x(\d{1,5})$/i.exec(size ?? '') ?? [];
  if (size !== undefined && !width) throw new CodedError('USAGE_INVALID', `--size: '${size}' is not WIDTHxHEIGHT`);
  const request = {
    prompt,
    negativePrompt: options.negative,
    width: number('--size', width),
    height: number('--size', height),
    numInferenceSteps: number('--steps', options.steps),
    trueCfgScale: number('--cfg', options.cfg),
    seed: number('--seed', options.seed),
    priority: number('--priority', options.priority),
    strength: number('--strength', options.strength),
    initImage: options.image,
  };
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
}

/**
 * `code`: of a command that was ended by a signal, as shells count. Ends in any case: a supervisor that has gone away
 * meanwhile cannot be told.
 */
function cancel({ link, pid }: Client, ids: string[], code: number): void {
  const end = () => {
    printError(`${process.stderr.isTTY ? '\n' : ''}${ids.length} cancelled`);
    process.exit(code);
  };
  answered(pid, Promise.all(ids.map((id) => link.request('cancelJob', { id, ifQueued: false })))).then(end, end);
}
