/** What waits for a database that is away, and what does not. */
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { OrderedWrites } from '@qwen-supervisor/supervisor/jobs/ordered-writes';
import { pino } from 'pino';
import { expect, test, vi } from 'vitest';

const hooks = { whenAway: () => null, onWritten() {}, onFailure: vi.fn() };
const away = new CodedError('STORE_UNREACHABLE', 'connection refused');

test('who asks while an operation is tried again and again is told so, also who asked before that was known', async () => {
  const writes = new OrderedWrites('the job database', pino({ level: 'silent' }), hooks);
  const said: string[] = [];
  let fail: (error: CodedError) => void = () => {};
  let isAway = true;
  writes.later(async () => {
    if (isAway) await new Promise((_, reject) => (fail = reject));
    said.push('finished');
  });
  await vi.waitFor(() => expect(fail).toHaveLength(1));
  const early = writes.ask(async () => said.push('cancelled'));
  isAway = false;
  fail(away);
  const refusal = { code: 'STORE_UNREACHABLE', message: expect.stringContaining('the job database cannot be written') };
  await expect(early).rejects.toMatchObject(refusal);
  await expect(writes.ask(async () => said.push('moved'))).rejects.toMatchObject(refusal);
  await vi.waitFor(() => expect(said).toEqual(['finished']), { timeout: 10_000 });
  expect(await writes.ask(async () => said.push('asked again'))).toBe(2);
  expect(said, 'what was refused is not done later').toEqual(['finished', 'asked again']);
  // Whoever is answered finds what he has changed.
  const order: string[] = [];
  const noting = { ...hooks, onWritten: () => order.push('known to be written') };
  const next = new OrderedWrites('the job database', pino({ level: 'silent' }), noting);
  await next.ask(async () => order.push('written'));
  order.push('answered');
  expect(order).toEqual(['written', 'known to be written', 'answered']);
  expect(hooks.onFailure).not.toHaveBeenCalled();
});
