/** What a whole system takes on this machine: time by what it does, and memory by what it is doing. */
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';
import type { ModelAnswer } from '@qwen-supervisor/protocol/answers';
import type { Config } from '@qwen-supervisor/protocol/config';
import { firstDevice } from '@qwen-supervisor/protocol/device';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import { type Client, connect } from '../cli/client.js';
import { fetchOk, get, jobEnd, smallWish, submit } from './apis.js';
import { startScratchSystem } from './scratch-system.js';
import { median, type Timings, timingsOf } from './timings.js';

export interface Measured extends Timings {
  model: string;
  /** `128x128`. */
  size: string;
  threads: number;
  device: string;
  /** Seconds from the command to the first answer of the API, and to the first picture that could be drawn. */
  serving: number | null;
  ready: number;
  /** Seconds of a question and its answer: over HTTP, and over the control socket. */
  http: number | null;
  ipc: number | null;
  supervisorBytes: number;
  /** Most memory of its own that the worker had, bytes, by what it was doing; null where no look fell into that. */
  workerBytes: Record<Stage, number | null>;
}

type Stage = 'loading' | 'text' | 'step' | 'decode';

const PICTURES = 3;
const STEPS = 8;
const ROUND_TRIPS = 100;
const LOOK_MS = 20;

/** @throws CodedError VERIFY_FAILED where it does not start, or draws nothing */
export async function measureSystem(config: Config): Promise<Measured> {
  const startMs = performance.now();
  const startedAt = Date.now();
  // Of several devices the first is measured.
  const system = await startScratchSystem({ ...config, device: firstDevice(config.device) });
  const server = { url: system.url, key: null };
  const events: NumberedEvent[] = [];
  const on = { event: (event: NumberedEvent) => void events.push(event), missed() {}, workerFailed() {} };
  let client: Client | null = null;
  let looking: NodeJS.Timeout | undefined;
  try {
    client = await connect(system.dataDir, on);
    const { link } = client;
    await link.request('subscribe', { since: 0 });
    const workerBytes: Measured['workerBytes'] = { loading: null, text: null, step: null, decode: null };
    const worker = await system.pidOf('inference');
    looking = setInterval(() => {
      const stage = stageAfter(events.at(-1));
      const bytes = memoryOf(worker, 'RssAnon');
      if (stage && bytes > 0) workerBytes[stage] = Math.max(workerBytes[stage] ?? 0, bytes);
    }, LOOK_MS);
    await system.ready();
    const ready = (performance.now() - startMs) / 1000;
    const { models } = await get<{ models: [ModelAnswer] }>(server, '/api/v1/models');
    const [model] = models;
    const { steps, scale, ...rest } = smallWish(model);
    const request = { ...rest, numInferenceSteps: model.distilled ? steps : STEPS, trueCfgScale: scale };
    for (let i = 0; i < PICTURES; i++) await jobEnd(server, (await submit(server, request)).id);
    const status = await link.request('status', {});
    return {
      model: model.id,
      size: `${rest.width}x${rest.height}`,
      threads: config.threads,
      device: status.device.device,
      serving: servingSeconds(events, startedAt),
      ready,
      ...timingsOf(events),
      http: await roundTrip(() => fetchOk(server, '/healthz').then((response) => response.text())),
      ipc: await roundTrip(() => link.request('status', {})),
      supervisorBytes: memoryOf(status.supervisor.pid, 'VmRSS'),
      workerBytes,
    };
  } finally {
    clearInterval(looking);
    client?.link.close();
    await system.stop().finally(() => system.remove());
  }
}

function servingSeconds(events: readonly NumberedEvent[], startedAt: number): number | null {
  const served = events.find((one) => one.type === 'child' && one.name === 'api' && one.state === 'ready');
  return served ? (Date.parse(served.at) - startedAt) / 1000 : null;
}

async function roundTrip(ask: () => Promise<unknown>): Promise<number | null> {
  const seconds: number[] = [];
  for (let i = 0; i < ROUND_TRIPS; i++) {
    const startMs = performance.now();
    await ask();
    seconds.push((performance.now() - startMs) / 1000);
  }
  return median(seconds);
}

/** What the worker does after an event of it; null between two pictures. */
function stageAfter(event: NumberedEvent | undefined): Stage | null {
  switch (event?.type) {
    case 'load':
      return 'loading';
    case 'running':
      return 'text';
    case 'progress':
    case 'step':
      return 'step';
    case 'decoding':
      return 'decode';
    default:
      return null;
  }
}

/** 0 where the system does not tell. Reference: proc(5), `/proc/PID/status`. */
function memoryOf(pid: number, kind: 'VmRSS' | 'RssAnon'): number {
  const line = new RegExp(`^${kind}:\\s+(\\d+) kB$`, 'm');
  return Number(line.exec(readKernelFile(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}
