import type { ChildName, ChildState, ChildStatus, SystemStatus } from '@qwen-supervisor/protocol/status';

const DEVICE = { device: 'cpu', name: 'a processor', memoryBytes: null, reason: 'there is no graphics card' };

export function sampleChild(name: ChildName, state: ChildState): ChildStatus {
  return {
    name,
    pid: 7,
    state,
    restarts: 0,
    rssBytes: 1e6,
    deviceBytes: 0,
    device: name === 'api' ? null : DEVICE,
    load: null,
    job: null,
    lastExit: null,
    reason: state,
  };
}

/** Of a system that draws. */
export function sampleStatus(version = '0.1.0'): SystemStatus {
  return {
    supervisor: { pid: 1, version, uptimeSeconds: 60, url: 'http://127.0.0.1:8000' },
    machine: { memoryBytes: 32e9, availableBytes: 20e9 },
    children: [sampleChild('inference', 'ready'), sampleChild('api', 'ready')],
    device: DEVICE,
    model: {
      id: 'pocket',
      folder: 'pocket',
      state: 'ready',
      component: null,
      bytesDone: 0,
      bytesTotal: 0,
      etaSeconds: null,
      loadSeconds: 1,
    },
    queue: { queued: 0, running: 0, current: null, problem: null },
    machines: [],
  };
}
