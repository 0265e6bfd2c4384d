/**
 * The sessions of a model by stage: all of them in memory, or those of one stage, the others given back to the system.
 * A picture goes through the stages one after the other.
 */
import { closeSync } from 'node:fs';
import type { OnnxGraph } from '@qwen-supervisor/model/onnx';
import { STAGES, type Stage } from '@qwen-supervisor/model/plan/costs';
import { openForReading, readAt } from '@qwen-supervisor/model/safetensors';
import { type PlacedGraph, placeWeights, type Stretch, weightBytes } from '@qwen-supervisor/model/weights';
import type { ModelPlan } from '@qwen-supervisor/protocol/model-plan';
import type { Device, LoadProgress } from '@qwen-supervisor/protocol/status';
import { InferenceSession } from 'onnxruntime-node';
import { fromRuntime } from './runtime-error.js';

/** Bytes that are read at once ahead of a session. */
const READ_BYTES = 8 << 20;

export interface Stages {
  /** The sessions of a stage, in the order of its graphs; null where `isCancelled` said so between two loads. */
  use(stage: Stage, isCancelled?: () => boolean): Promise<InferenceSession[] | null>;
  release(): Promise<void>;
}

interface StageOptions {
  cacheFolder: string;
  threads: number;
  residency: ModelPlan['residency'];
  device: Device;
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
  { cacheFolder, threads, residency, device, report }: StageOptions,
): Promise<Stages> {
  const loaded: Partial<Record<Stage, InferenceSession[]>> = {};
  /** Sessions of the stage that is not loaded whole yet. */
  let opening: InferenceSession[] = [];
  const bytesOf = (stage: Stage) => graphs[stage].reduce((sum, graph) => sum + weightBytes(graph), 0);

  async function open(stage: Stage, bytesBefore: number, bytesTotal: number, isCancelled: () => boolean) {
    let before = bytesBefore;
    // One that fails, or is cancelled, leaves gigabytes of others that are given back with all.
    const sessions: InferenceSession[] = [];
    opening = sessions;
    for (const graph of graphs[stage]) {
      if (isCancelled()) {
        await releaseAll();
        return null;
      }
      const tell = (bytes: number) => report({ component: stage, bytesDone: before + bytes, bytesTotal });
      tell(0);
      // Half of a graph's bytes count when its weights lie ready, the other half when the session has taken them in.
      const placed = placeWeights(graph, cacheFolder, (done) => tell(Math.floor(done / 2)));
      // In one go from front to back: pages that the session asks for one by one come many times slower from a disk.
      readAhead(placed.stretches, (done) => tell(Math.floor(Math.min(placed.bytes, done) / 2)));
      tell(Math.floor(placed.bytes / 2));
      sessions.push(await createSession(graph.name, placed, threads, stage === 'text_encoder' ? 'cpu' : device));
      before += placed.bytes;
      tell(0);
    }
    loaded[stage] = sessions;
    opening = [];
    return sessions;
  }

  async function releaseAll(): Promise<void> {
    for (const session of opening.splice(0)) await session.release();
    for (const stage of STAGES) {
      for (const session of loaded[stage] ?? []) await session.release();
      delete loaded[stage];
    }
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

  if (residency === 'resident') for (const stage of STAGES) await openNow(stage, () => false);

  return {
    async use(stage, isCancelled = () => false) {
      const there = loaded[stage];
      if (there) return there;
      // Their memory is wanted for this one.
      await releaseAll();
      return openNow(stage, isCancelled);
    },
    release: releaseAll,
  };
}

async function createSession(
  name: string,
  placed: PlacedGraph,
  threads: number,
  device: Device,
): Promise<InferenceSession> {
  try {
    return await InferenceSession.create(placed.model, {
      executionProviders: [device],
      // Left to itself it takes every core of the machine, whatever this process may use.
      intraOpNumThreads: threads,
      // What a run has taken is given back when it ends: the next stage, or a smaller picture, needs it less.
      enableCpuMemArena: false,
      extra: { session: { model_external_initializers_file_folder_path: placed.folder } },
    });
  } catch (cause) {
    throw fromRuntime(cause, 'MODEL_LOAD_FAILED', name);
  }
}

/** Fills the page cache. @throws CodedError MODEL_TRUNCATED */
function readAhead(stretches: Stretch[], onProgress: (bytesDone: number) => void): void {
  let done = 0;
  for (const { file, from, to } of stretches) {
    const { fd } = openForReading(file);
    try {
      for (let at = from; at < to; at += READ_BYTES) {
        const length = Math.min(READ_BYTES, to - at);
        readAt(fd, file, at, length);
        done += length;
        onProgress(done);
      }
    } finally {
      closeSync(fd);
    }
  }
}
