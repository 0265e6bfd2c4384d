/** Jobs from the command line. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cli, type Product, startProduct, until } from './product.js';

let product: Product;
beforeAll(async () => {
  product = await startProduct();
});
afterAll(() => product.clean());

const jobs = (...args: string[]) => cli(['jobs', ...args, '--data-dir', product.dataDir]);

test('jobs are listed, shown, moved, cancelled and tried again', async () => {
  const { id: running } = await product.submit({ prompt: 'long', numInferenceSteps: 1000, width: 256, height: 256 });
  await until(async () => ((await product.job(running)).status === 'running' ? true : null));
  const [a, b] = [await product.submit({ prompt: 'a fox\nin two lines' }), await product.submit({ prompt: 'an owl' })];

  const { stdout: list } = await jobs('list');
  expect(list.split('\n').slice(0, 3)).toEqual([
    `${b.id}  queued    #2       an owl`,
    `${a.id}  queued    #1       a fox in two lines`,
    expect.stringMatching(new RegExp(`^${running}  running   \\d+/1000 +long$`)),
  ]);
  expect((await jobs('list', '--status', 'running', '--json')).stdout).toContain(`"id":"${running}"`);
  expect((await jobs('list', '-n', '1')).stdout.trim().split('\n')).toHaveLength(1);

  expect(await jobs('move', b.id, '--first')).toMatchObject({ code: 0, stdout: `${b.id} is number 1 in the queue\n` });
  expect((await jobs('move', b.id, '--first')).stdout).toBe(`${b.id} is number 1 in the queue\n`);
  expect((await jobs('move', a.id, '--before', b.id)).stdout).toBe(`${a.id} is number 1 in the queue\n`);
  expect((await jobs('move', a.id, '--priority', '-5')).stdout).toBe(`${a.id} is number 2 in the queue\n`);

  expect((await jobs('show', a.id)).stdout).toMatch(/status +queued\nprompt +a fox\nin two lines\n[\s\S]*priority +-5/);
  expect((await jobs('cancel', a.id, b.id)).stdout).toBe('2 cancelled\n');
  expect((await jobs('cancel', '--running')).stdout).toBe('1 cancelled\n');
  const { stdout: retried } = await jobs('retry', b.id);
  expect(retried).toMatch(/^job_[0-9a-f]{24} is queued\n$/);
  await product.ended(retried.slice(0, 28));
});

test.each([
  [['show', 'job_none'], 'JOB_NOT_FOUND', /no job/],
  [['cancel'], 'USAGE_INVALID', /--queued or --running/],
  [['move', 'job_none'], 'USAGE_INVALID', /--first/],
  [['move', 'job_none', '--priority', 'high'], 'USAGE_INVALID', /'high' is no whole number/],
  [['list', '--status', 'waiting'], 'USAGE_INVALID', /'waiting' is none of queued/],
  [['list', '-n', 'some'], 'USAGE_INVALID', /'some' is no number/],
])('jobs %j is refused with %s', async (args, code, why) => {
  const { stderr, code: exit } = await jobs(...args);
  expect(stderr).toMatch(new RegExp(`^error ${code}: .*${why.source}.*\nhint: `));
  expect(exit).not.toBe(0);
});
