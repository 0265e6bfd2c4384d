/**
 * Entry of `qwen-supervisor model add | list | show | verify | use | remove`, a process of its own: the
 * command line loads nothing of models. One argument: the command as JSON.
 */
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { modelFolder } from '@qwen-supervisor/protocol/data-files';
import { CodedError, ERRORS, toCodedError } from '@qwen-supervisor/protocol/errors';
import { harmless } from '@qwen-supervisor/protocol/harmless-text';
import { PREPARED } from '../prepare/prepare.js';
import { type AddOptions, addModel, checkModel } from './add-model.js';
import { modelInUse, useModel } from './in-use.js';
import { listRegistrations, type Registration, removeModel, requireRegistration } from './registry.js';
import { damagedTensors } from './verify.js';

/** What is asked for. */
export type ModelCommand = { dataDir: string; json: boolean } & (
  | ({ do: 'add'; folder: string; checkOnly: boolean } & Omit<AddOptions, 'threads'>)
  | { do: 'list' }
  | { do: 'show' | 'verify' | 'use' | 'remove'; name: string }
);

const command = JSON.parse(process.argv[2] ?? '{}') as ModelCommand;
const { dataDir, json } = command;

try {
  await run();
} catch (error) {
  const coded = toCodedError(error);
  console.error(harmless(`error ${coded.code}: ${coded.message}\nhint: ${coded.hint}`));
  process.exitCode = ERRORS[coded.code].exit;
}

async function run(): Promise<void> {
  switch (command.do) {
    case 'add':
      return add(command);
    case 'list': {
      const { models, damaged } = listRegistrations(dataDir);
      for (const name of damaged)
        console.error(
          harmless(`${name}: is damaged; remove it and add it again: qwen-supervisor model remove ${name}`),
        );
      if (models.length === 0 && !json) console.log('no model was added yet: qwen-supervisor model add FOLDER');
      const inUse = modelInUse(dataDir);
      const told = models.map((model) => ({ ...model, inUse: model.name === inUse }));
      return say(
        told,
        told.map((model) => `${line(model)}${model.inUse ? '  (in use)' : ''}`),
      );
    }
    case 'show': {
      const model = requireRegistration(dataDir, command.name);
      return say(model, [
        line(model),
        `prepared: ${modelFolder(dataDir, model.name)}`,
        `checkpoint (stays needed): ${model.source}`,
      ]);
    }
    case 'verify': {
      const { name } = requireRegistration(dataDir, command.name);
      const files = Object.values(PREPARED).map((file) => join(modelFolder(dataDir, name), file));
      let read = 0;
      const total = files.reduce((sum, file) => sum + statSync(file).size, 0);
      const show = progress('verifying', total);
      const onBytes = (count: number) => {
        read += count;
        show(read);
      };
      const damaged = files.flatMap((file) => damagedTensors(file, onBytes));
      show(total);
      if (damaged.length > 0)
        throw new CodedError(
          'MODEL_INVALID',
          `${name}: ${damaged.length} tensors are damaged, ${damaged[0]} the first; remove the model and add it again`,
        );
      return say({ name, ok: true }, [`${name}: every tensor has the checksum that it was written with`]);
    }
    case 'use': {
      const { name } = requireRegistration(dataDir, command.name);
      await useModel(dataDir, name);
      return say({ name }, [`${name} is what 'qwen-supervisor start' runs from now on`]);
    }
    case 'remove': {
      const { name } = command;
      await removeModel(dataDir, name);
      return say({ name }, [`${name} is removed; the checkpoint that it was made from is left as it is`]);
    }
  }
}

async function add(options: Extract<ModelCommand, { do: 'add' }>): Promise<void> {
  const given: AddOptions = { ...options, threads: availableParallelism() };
  const checked = checkModel(dataDir, options.folder, given);
  const { name, folder, quantize, license, preparation } = checked;
  const summary = {
    name,
    folder,
    license: license.name,
    quantize,
    bytesToRead: preparation.bytesToRead,
    bytesToWrite: preparation.bytesToWrite,
  };
  if (!json) {
    console.log(harmless(`${folder}: every tensor that is needed is there`));
    console.log(harmless(`licence: ${license.name ?? 'the folder says nothing of one'}`));
    console.log(
      `${gigabytes(preparation.bytesToRead)} are read, ${gigabytes(preparation.bytesToWrite)} written (${quantize})`,
    );
  }
  if (options.checkOnly) return json ? console.log(JSON.stringify(summary)) : undefined;
  const model = await addModel(dataDir, checked, given, progress('preparing', preparation.bytesToRead));
  say(model, [`added: qwen-supervisor start --model ${model.name}`]);
}

/** Told on a terminal as it goes, elsewhere every tenth. */
function progress(doing: string, total: number): (done: number) => void {
  const startedMs = performance.now();
  let [begunAt, told] = [-1, -1];
  return (done) => {
    if (begunAt < 0) begunAt = done;
    const percent = Math.floor((100 * done) / total);
    const step = process.stderr.isTTY ? 1 : 10;
    const seconds = (performance.now() - startedMs) / 1000;
    // What is done at once needs no line.
    if (percent < told + step || seconds < 1) return;
    told = percent;
    const left = done > begunAt ? `, ${Math.ceil((seconds * (total - done)) / (done - begunAt))} s left` : '';
    const text = `${doing}: ${percent} % of ${gigabytes(total)}${left}`;
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}${done === total ? '\n' : ''}` : `${text}\n`);
  };
}

function line({ name, quantize, bytes, license }: Registration): string {
  return harmless(
    `${name.padEnd(32)} ${quantize.padEnd(5)} ${gigabytes(bytes).padStart(9)}  ${license ?? ''}`,
  ).trimEnd();
}

function say(value: object, lines: string[]): void {
  if (json) console.log(JSON.stringify(value));
  else for (const one of lines) console.log(harmless(one));
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
