/**
 * Prepares the weights of a checkpoint for this machine: over the processors, a piece of a weight in memory for each,
 * and so that it goes on where a kill has stopped it.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { Checkpoint, WeightComponent } from '../checkpoint.js';
import { buildGraphs } from '../graphs.js';
import type { TensorEntry } from '../safetensors.js';
import { placeWeights } from '../weights.js';
import type { Lora } from './lora.js';
import { type Precision, precisionOf, type Quantisation } from './precision.js';
import type { Task, ThreadMessage } from './prepare-thread.js';
import {
  type Layout,
  layOut,
  PreparedFileWriter,
  type Recipe,
  readPreparedHeader,
  type Sums,
} from './prepared-file.js';

/** What a preparation writes into the model's folder. */
export const PREPARED = { text_encoder: 'text_encoder.safetensors', transformer: 'transformer.safetensors' } as const;
type Prepared = keyof typeof PREPARED;

/** Threads: more would read and write against each other, and each takes its 30 MB. */
const THREADS_MAX = 8;

/** The weights of one component that are prepared, in the order in which its graphs use them. */
export interface PreparedWeights {
  component: Prepared;
  tensors: TensorEntry[];
  precisions: Precision[];
  layout: Layout;
}

/** What preparing a checkpoint comes to. */
export interface Preparation {
  components: PreparedWeights[];
  /** Weights that are read in their own files when they are needed, and only looked at now. */
  others: TensorEntry[];
  lora: Map<string, Lora>;
  recipe: Recipe;
  /** Of the source, all together. */
  bytesToRead: number;
  bytesToWrite: number;
}

/** Lays out what `checkpoint` becomes. @throws CodedError MODEL_INVALID for tensors that are missing or misshapen */
export function planPreparation(
  checkpoint: Checkpoint,
  quantisation: Quantisation,
  lora: Map<string, Lora>,
  recipe: Recipe,
): Preparation {
  const graphs = buildGraphs(checkpoint);
  const { textEncoder, transformer } = checkpoint.architecture;
  const component = (name: Prepared, tensors: TensorEntry[], numLayers: number): PreparedWeights => {
    const precisions = tensors.map((tensor) => precisionOf(name, tensor.name, quantisation, numLayers));
    const wanted = tensors.map((tensor, i) => ({ ...tensor, precision: precisions[i] as Precision }));
    return { component: name, tensors, precisions, layout: layOut(wanted, recipe) };
  };
  const tensorsOf = (of: { weights: { tensor: TensorEntry }[] }[]) =>
    of.flatMap(({ weights }) => weights.map(({ tensor }) => tensor));
  const components = [
    component('text_encoder', tensorsOf([graphs.textEncoder]), textEncoder.numLayers),
    component('transformer', tensorsOf(graphs.transformer.map(({ graph }) => graph)), transformer.numLayers),
  ];
  const { embed, layers } = graphs.modulation;
  const others = [
    graphs.embeddings,
    ...[...embed, ...layers].flatMap(({ weight, bias }) => [weight, bias]),
    ...tensorsOf([graphs.decoder, graphs.encoder]),
  ];
  const read = [...components.flatMap(({ tensors }) => tensors), ...others];
  return {
    components,
    others,
    lora,
    recipe,
    bytesToRead: read.reduce((sum, { length }) => sum + length, 0),
    bytesToWrite: components.reduce((sum, { layout }) => sum + layout.size, 0),
  };
}

/**
 * Writes the prepared files into `folder`. `onProgress` is told the bytes of the source that are done, those of an
 * earlier attempt included.
 * @throws CodedError MODEL_INVALID for values that are no numbers, DISK_FULL, DATA_DIR_UNUSABLE
 */
export async function prepareWeights(
  checkpoint: Checkpoint,
  { components, others, lora, recipe }: Preparation,
  folder: string,
  threads: number,
  onProgress: (bytesDone: number) => void,
): Promise<void> {
  let done = 0;
  const read = (bytes: number) => {
    done += bytes;
    onProgress(done);
  };
  const open = inDiskErrors(folder, () => {
    mkdirSync(folder, { recursive: true });
    return components.flatMap((of) => {
      const file = join(folder, PREPARED[of.component]);
      // A kill between two components leaves the first one whole.
      if (existsSync(file) && readPreparedHeader(file).source === recipe.source) {
        for (const { length } of of.tensors) read(length);
        return [];
      }
      return [{ ...of, writer: new PreparedFileWriter(file, of.layout) }];
    });
  });
  const loraOf = (component: WeightComponent, name: string) =>
    (component === 'transformer' && lora.get(name.replace(/\.weight$/, ''))) || null;
  const tasks: { task: Task; finish: (sums: Sums) => void }[] = [];
  for (const { component, tensors, precisions, layout, writer } of open) {
    for (const [i, tensor] of tensors.entries()) {
      if (writer.isDone(i)) {
        read(tensor.length);
        continue;
      }
      const place = layout.places[i] as Layout['places'][number];
      const target = { file: writer.partial, place, precision: precisions[i] as Precision };
      const task = { tensor, lora: loraOf(component, tensor.name), quality: recipe.quality, target };
      tasks.push({ task, finish: (sums) => writer.done(i, sums) });
    }
  }
  // With the LoRA, whose part in the modulation is added each time: one that makes no numbers is found now.
  for (const tensor of others) {
    const task = { tensor, lora: loraOf('transformer', tensor.name), quality: recipe.quality, target: null };
    tasks.push({ task, finish: () => {} });
  }
  try {
    await overThreads(tasks, Math.min(threads, THREADS_MAX), folder, read);
    inDiskErrors(folder, () => {
      for (const { writer } of open) writer.finish();
    });
  } catch (error) {
    // What is done is noted for the next attempt.
    for (const { writer } of open) writer.close();
    throw error;
  }
  // Small, and written in one go.
  const { decoder, encoder } = buildGraphs(checkpoint);
  for (const graph of [decoder, encoder]) placeWeights(graph, folder, () => {});
}

/** Each thread takes the next task when it has done one; the first fault ends all. */
async function overThreads(
  tasks: { task: Task; finish: (sums: Sums) => void }[],
  threads: number,
  folder: string,
  read: (bytes: number) => void,
): Promise<void> {
  const waiting = tasks.values();
  const workers = Array.from({ length: Math.min(threads, tasks.length) }, () => {
    return new Worker(new URL('./prepare-thread.js', import.meta.url));
  });
  const work = (worker: Worker) =>
    new Promise<void>((resolve, reject) => {
      let current: { finish: (sums: Sums) => void } | undefined;
      const next = () => {
        const { value, done } = waiting.next();
        if (done) return resolve();
        current = value;
        worker.postMessage(value.task);
      };
      worker.on('error', reject);
      worker.on('message', (message: ThreadMessage) => {
        if (message.type === 'read') return read(message.bytes);
        if (message.type === 'failed') return reject(diskError(folder, message) ?? CodedError.from(message.error));
        try {
          inDiskErrors(folder, () => current?.finish(message.sums));
          next();
        } catch (error) {
          reject(error);
        }
      });
      next();
    });
  try {
    await Promise.all(workers.map(work));
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** What the file system says of the folder that is written to, in our words. */
export function inDiskErrors<T>(folder: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    const { code = null, message } = cause as NodeJS.ErrnoException;
    throw diskError(folder, { system: code, error: { message } }) ?? cause;
  }
}

function diskError(folder: string, fault: { system: string | null; error: { message: string } }): CodedError | null {
  const { system, error } = fault;
  if (system === 'ENOSPC' || system === 'EDQUOT')
    return new CodedError(
      'DISK_FULL',
      `${folder}: there is no room left for the prepared weights; what is done is kept`,
    );
  if (system !== null && /^E[A-Z]+$/.test(system))
    return new CodedError('DATA_DIR_UNUSABLE', `${folder}: ${error.message}`);
  return null;
}
