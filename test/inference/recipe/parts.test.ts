import { drawPicture, type Observer } from '@qwen-supervisor/inference/recipe/pipeline';
import { loadSessions } from '@qwen-supervisor/inference/recipe/sessions';
import { openCheckpoint } from '@qwen-supervisor/model/checkpoint';
import { expect, test } from 'vitest';
import { POCKET, temporaryFolder } from '../../fixture-files.js';

const REQUEST = {
  prompt: 'a fox on a teal background',
  negativePrompt: ' ',
  width: 64,
  height: 48,
  numInferenceSteps: 2,
  trueCfgScale: 4,
  seed: 3,
  initImage: null,
  strength: null,
  mask: null,
};

async function load(blocksPerPart: number) {
  return loadSessions(openCheckpoint(POCKET), temporaryFolder(), 2, () => {}, { blocksPerPart });
}

const watch = (isCancelled = () => false): Observer => ({
  onStep() {},
  onDecoding() {},
  isCancelled,
  isInterrupted: () => false,
});

test('a transformer in parts draws the same bytes as in one', async () => {
  const [whole, cut] = [await load(10), await load(3)];
  expect([whole.transformer.length, cut.transformer.length]).toEqual([1, 3]);
  const pictures = [await drawPicture(whole, REQUEST, watch()), await drawPicture(cut, REQUEST, watch())];
  expect(pictures[0]?.pixels).toEqual(pictures[1]?.pixels);
  await whole.release();
  await cut.release();
});

test('whoever cancels is heard between two parts, in the middle of a step', async () => {
  const sessions = await load(2);
  let asked = 0;
  const picture = await drawPicture(sessions, REQUEST, {
    ...watch(() => ++asked > 2),
    onStep: () => expect.unreachable('a step was completed'),
  });
  expect([picture, asked]).toEqual([null, 3]);
  await sessions.release();
});

test('the modulation of a timestep does not depend on those that are computed with it', async () => {
  const sessions = await load(10);
  const together = await sessions.modulation(Float32Array.of(0.9, 0.5, 0.02));
  const alone = await sessions.modulation(Float32Array.of(0.5));
  expect(together.slice(alone.length, 2 * alone.length)).toEqual(alone);
  await sessions.release();
});
