/** What a whole system takes on this machine: time by what it does, and memory by what it is doing. */
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';
import type { ModelAnswer } from '@qwen-supervisor/protocol/answers';
import type { Config } from '@qwen-supervisor/protocol/config';
import { firstDevice } from '@qwen-supervisor/protocol/device';
import type { NumberedEvent } from '@qwen-supervisor/protocol/events';
import type { SystemStatus } from '@qwen-supervisor/protocol/status';
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
  /** Most memory of the worker, bytes, by what it was doing when it was looked at. */
  workerBytes: { loading: number; drawing: number };
}

const PICTURES = 3;
const STEPS = 8;
const ROUND_TRIPS = 100;
const LOOK_MS = 250;

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
    const workerBytes = { loading: 0, drawing: 0 };
    const look = ({ children }: SystemStatus) => {
      const worker = children.find(({ name }) => name === 'inference');
      const doing = worker?.state === 'busy' ? 'drawing' : 'loading';
      workerBytes[doing] = Math.max(workerBytes[doing], worker?.rssBytes ?? 0);
    };
    // A look that is on its way when the connection is closed has nobody who waits for it.
    const nobodyWaits = () => {};
    looking = setInterval(() => void link.request('status', {}).then(look, nobodyWaits), LOOK_MS);
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
      supervisorBytes: residentBytes(status.supervisor.pid),
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

/** 0 where the system does not tell. Reference: proc(5), VmRSS. */
function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readKernelFile(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}
