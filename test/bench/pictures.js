/** Draws pictures with the pipeline and prints the seconds of each as JSON. usage: pictures.js CHECKPOINT */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drawPicture } from '@qwen-supervisor/inference/recipe/pipeline';
import { AMPLE, loadSessions } from '@qwen-supervisor/inference/recipe/sessions';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';

const PICTURES = 8;

const cache = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
const sessions = await loadSessions(openCheckpoint(process.argv[2]), {
  cacheFolder: cache,
  threads: 2,
  plan: AMPLE,
});
const request = {
  prompt: 'a fox on a teal background',
  negativePrompt: ' ',
  width: 128,
  height: 128,
  numInferenceSteps: 20,
  trueCfgScale: 4,
  initImage: null,
  mask: null,
  strength: null,
};
const observer = { onStep() {}, onPart() {}, onDecoding() {}, isCancelled: () => false, isInterrupted: () => false };
const times = [];
for (let seed = 0; seed <= PICTURES; seed++) {
  const start = performance.now();
  await drawPicture(sessions, { ...request, seed }, observer);
  times.push((performance.now() - start) / 1000);
}
// The first one warms up.
console.log(JSON.stringify(times.slice(1)));
rmSync(cache, { recursive: true });
