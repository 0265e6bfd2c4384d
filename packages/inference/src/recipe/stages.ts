/**
 * The sessions of a model by stage: all of them in memory; or, for a picture that is too large for that, those of one
 * stage, the others given back to the system. A picture goes through the stages one after the other.
 */
import { closeSync } from 'node:fs';
import type { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { STAGES, type Stage } from '@qwen-supervisor/model/plan/costs';
import { openForReading, readAt } from '@qwen-supervisor/model/safetensors';
import { type PlacedGraph, placeWeights, type Stretch, weightBytes } from '@qwen-supervisor/model/weights';
import { parseDevice } from '@qwen-supervisor/protocol/device';
import type { ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import type { LoadProgress } from '@qwen-supervisor/protocol/status';
import { InferenceSession } from 'onnxruntime-node';
import { providerOf } from './device.js';
import { fromRuntime } from './runtime-error.js';

/** Bytes that are read at once ahead of a session. */
const READ_BYTES = 8 << 20;

export interface Stages {
  /** Tells how many pixels the next picture has. */
  nextPicture(pixels: number): void;
  /** The sessions of a stage, in the order of its graphs; null where `isCancelled` said so while they were loaded. */
  use(stage: Stage, isCancelled?: () => boolean): Promise<InferenceSession[] | null>;
  release(): Promise<void>;
}

interface StageOptions {
  cacheFolder: string;
  threads: number;
  residentPixels: ModelPlan['residentPixels'];
  /** The graphs of the transformer for a picture of so many pixels: those above, or others with the same weights. */
  transformerFor(pixels: number): OnnxGraph[];
  device: string;
  /** Counts bytes of the whole model until each stage was there once, then of the stage that comes back. */
  report(progress: LoadProgress): void;
}

/** Bytes of all weights, as the sessions have them. */
export function bytesOfAll(graphs: Record<Stage, OnnxGraph[]>): number {
  return STAGES.flatMap((stage) => graphs[stage]).reduce((sum, graph) => sum + weightBytes(graph), 0);
}

/** @throws CodedError MODEL_* */
export async function openStages(
  graphs: Record<Stage, OnnxGraph[]>,
  { cacheFolder, threads, residentPixels, transformerFor, device, report }: StageOptions,
): Promise<Stages> {
  const loaded: Partial<Record<Stage, InferenceSession[]>> = {};
  /** Sessions of the stage that is not loaded whole yet. */
  let opening: InferenceSession[] = [];
  /** What is loaded, or is to be. */
  const wanted = { ...graphs };
  const bytesOf = (stage: Stage) => graphs[stage].reduce((sum, graph) => sum + weightBytes(graph), 0);

  async function open(stage: Stage, bytesBefore: number, bytesTotal: number, isCancelled: () => boolean) {
    let before = bytesBefore;
    const sessions: InferenceSession[] = [];
    opening = sessions;
    for (const graph of wanted[stage]) {
      const tell = (bytes: number) => report({ component: stage, bytesDone: before + bytes, bytesTotal });
      tell(0);
      // Half of a graph's bytes count when its weights lie ready, the other half when the session has taken them in.
      const placed = placeWeights(graph, cacheFolder, (done) => tell(Math.floor(done / 2)));
      // In one go from front to back: pages that the session asks for one by one come many times slower from a disk.
      const tellRead = (done: number) => tell(Math.floor(Math.min(placed.bytes, done) / 2));
      if (isCancelled() || !readAhead(placed.stretches, isCancelled, tellRead)) {
        await releaseOpening();
        return null;
      }
      tell(Math.floor(placed.bytes / 2));
      const on = stage === 'text_encoder' ? 'cpu' : device;
      // What goes from one part of the transformer to the next does not go by way of the machine's memory.
      const staysThere = stage === 'transformer' && graph !== wanted.transformer.at(-1);
      sessions.push(await createSession(graph.name, placed, { threads, device: on, staysThere }));
      before += placed.bytes;
      tell(0);
    }
    loaded[stage] = sessions;
    opening = [];
    return sessions;
  }

  async function releaseOpening(): Promise<void> {
    for (const session of opening.splice(0)) await session.release();
  }

  async function releaseStage(stage: Stage): Promise<void> {
    for (const session of loaded[stage] ?? []) await session.release();
    delete loaded[stage];
  }

  const bytesTotal = bytesOfAll(graphs);
  /** Stages that were there once. */
  const seen = new Set<Stage>();
  async function openNow(stage: Stage, isCancelled: () => boolean) {
    if (seen.has(stage)) return open(stage, 0, bytesOf(stage), isCancelled);
    const before = [...seen].reduce((sum, other) => sum + bytesOf(other), 0);
    const sessions = await open(stage, before, bytesTotal, isCancelled);
    if (sessions) seen.add(stage);
    return sessions;
  }

  if (residentPixels > 0) for (const stage of STAGES) await openNow(stage, () => false);
  let isAlone = residentPixels === 0;
  let transformer = wanted.transformer;

  return {
    nextPicture(pixels) {
      isAlone = pixels > residentPixels;
      transformer = transformerFor(pixels);
    },
    async use(stage, isCancelled = () => false) {
      // Of a load that failed.
      await releaseOpening();
      // Their memory is wanted for this one.
      if (stage === 'transformer' && wanted.transformer !== transformer) {
        await releaseStage(stage);
        wanted.transformer = transformer;
      }
      if (isAlone) for (const other of STAGES) if (other !== stage) await releaseStage(other);
      return loaded[stage] ?? openNow(stage, isCancelled);
    },
    async release() {
      await releaseOpening();
      for (const stage of STAGES) await releaseStage(stage);
    },
  };
}

async function createSession(
  name: string,
  placed: PlacedGraph,
  { threads, device, staysThere }: { threads: number; device: string; staysThere: boolean },
): Promise<InferenceSession> {
  const { kind } = parseDevice(device);
  // Each takes its own size of the card, and no more: its arena would take the next power of two.
  const onCuda = kind === 'cuda' ? { use_device_allocator_for_initializers: '1' } : {};
  try {
    return await InferenceSession.create(placed.model, {
      executionProviders: [providerOf(device)],
      // Left to itself it takes every core of the machine, whatever this process may use.
      intraOpNumThreads: threads,
      // What a run has taken is given back when it ends: the next stage, or a smaller picture, needs it less.
      enableCpuMemArena: false,
      // Of a card it warns that shapes are computed on the processor, as they should be.
      logSeverityLevel: device === 'cpu' ? 2 : 3,
      extra: { session: { model_external_initializers_file_folder_path: placed.folder, ...onCuda } },
      // Through CUDA the binding for Node has no tensors that stay on the card.
      ...(staysThere && kind === 'webgpu' ? { preferredOutputLocation: 'gpu-buffer' as const } : {}),
    });
  } catch (cause) {
    throw fromRuntime(cause, 'MODEL_LOAD_FAILED', name);
  }
}

/** Fills the page cache; false where `isCancelled` said so before all was read. @throws CodedError MODEL_TRUNCATED */
function readAhead(stretches: Stretch[], isCancelled: () => boolean, onProgress: (bytesDone: number) => void): boolean {
  let done = 0;
  for (const { file, from, to } of stretches) {
    const { fd } = openForReading(file);
    try {
      for (let at = from; at < to; at += READ_BYTES) {
        if (isCancelled()) return false;
        const length = Math.min(READ_BYTES, to - at);
        readAt(fd, file, at, length);
        done += length;
        onProgress(done);
      }
    } finally {
      closeSync(fd);
    }
  }
  return true;
}
