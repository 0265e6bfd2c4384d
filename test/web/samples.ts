/** A server's state as the page hears of it. */
import type { ModelAnswer, SnapshotAnswer } from '@qwen-supervisor/protocol/answers';
import { fromSnapshot, type LiveState } from '../../packages/web/src/live/state';
import { sampleStatus } from '../sample-status';

export const MODEL: ModelAnswer = {
  id: 'pocket',
  state: 'ready',
  defaults: { width: 128, height: 128, numInferenceSteps: 20, trueCfgScale: 4, negativePrompt: ' ' },
  sizes: { '1:1': [128, 128], '16:9': [176, 96] },
  presets: {
    fast: { numInferenceSteps: 10, trueCfgScale: 4 },
    balanced: { numInferenceSteps: 20, trueCfgScale: 4 },
    high: { numInferenceSteps: 40, trueCfgScale: 4 },
  },
  distilled: null,
  examples: [],
  note: null,
  limits: { maxSteps: 1000, maxPixels: 4_194_304, maxUploadBytes: 32e6 },
  plan: { neededBytes: 1e9, cardBytes: null, availableBytes: 4e9, residentPixels: 1e6, tileAbovePixels: 1e6 },
};

export { sampleJob as job } from '../sample-job';

export const SNAPSHOT: SnapshotAnswer = {
  version: '0.1.0',
  serverTime: '2026-11-27T12:00:00.000Z',
  lastEventId: 'a-1',
  role: 'use',
  status: sampleStatus(),
  models: [MODEL],
  running: [],
  previews: {},
  queue: [],
  ended: [],
  crashes: [],
};

export const NOW_MS = Date.parse(SNAPSHOT.serverTime);

export function stateOf(changes: Partial<SnapshotAnswer> = {}): LiveState {
  return fromSnapshot({ ...SNAPSHOT, ...changes }, NOW_MS, null);
}
