/** What is known here of the machines that share the queue, and whom it concerns. */
import type { ChildState, MachineStatus } from '@qwen-supervisor/protocol/status';
import { OtherMachines } from '@qwen-supervisor/supervisor/other-machines';
import { expect, onTestFinished, test, vi } from 'vitest';

function machine(name: string, isHere: boolean, state: MachineStatus['state'], worker: ChildState): MachineStatus {
  const workers = [{ name: 'inference' as const, state: worker, device: 'cuda:0', job: null, reason: worker }];
  const seenAt = '2026-01-01T00:00:00.000Z';
  return { name, isHere, state, isDrained: false, version: '1', url: 'http://h', model: 'm', workers, seenAt };
}

/** As signs of life are told. */
function lookEvery3s(others: OtherMachines): (machines: MachineStatus[]) => void {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  return (machines) => {
    vi.advanceTimersByTime(3000);
    others.onMachines(machines);
  };
}

/** One machine whose own worker is in this phase. */
function attended(phase: string) {
  const announceFailure = vi.fn();
  const others = new OtherMachines();
  others.attend({
    core: { state: () => ({ workers: { inference: { child: { phase, reason: 'no driver' } } } }) },
    events: { announceFailure, publish: vi.fn() },
    log: { logger: { info: vi.fn() } },
  } as never);
  return { others, announceFailure };
}

test('who waits is told that nothing will be drawn when the last other machine falls away, once', () => {
  const { others, announceFailure } = attended('failed');
  const here = machine('here', true, 'up', 'failed');
  const look = lookEvery3s(others);
  // All are silent for a moment after a time without the database; a worker that dies is loaded anew.
  for (const [state, worker] of [
    ['up', 'busy'],
    ['silent', 'busy'],
    ['up', 'loading'],
    ['up', 'loading'],
    ['up', 'busy'],
  ] as const)
    look([here, machine('other', false, state, worker)]);
  for (let i = 0; i < 3; i++) look([here, machine('other', false, 'silent', 'busy')]);
  expect(announceFailure).not.toHaveBeenCalled();
  for (let i = 0; i < 5; i++) look([here, machine('other', false, 'silent', 'busy')]);
  expect(announceFailure.mock.calls).toEqual([['no driver']]);
});

test('a machine that is drained ends what it draws: it is waited for, and for no other', () => {
  const { others, announceFailure } = attended('failed');
  const look = lookEvery3s(others);
  const here = machine('here', true, 'up', 'failed');
  const drained = { ...machine('other', false, 'up', 'busy'), isDrained: true };
  const [worker] = drained.workers;
  for (let i = 0; i < 6; i++) look([here, { ...drained, workers: [{ ...worker, job: 'job_1' }] } as MachineStatus]);
  expect(announceFailure).not.toHaveBeenCalled();
  for (let i = 0; i < 6; i++) look([here, drained]);
  expect(announceFailure).toHaveBeenCalledOnce();
});

test('a preview that comes more slowly than the steps goes with the next one, and holds up no notice', async () => {
  const told: unknown[] = [];
  const answers: ((png: Uint8Array) => void)[] = [];
  const others = new OtherMachines();
  others.attend({
    events: { relay: async (events: unknown[]) => void told.push(...events) },
    shared: { getPreview: () => new Promise((resolve) => answers.push(resolve)) },
  } as never);
  const step = (step: number) => ({ type: 'step' as const, jobId: 'job_1', step, steps: 9, preview: null, eta: null });
  const png = Uint8Array.of(1);
  others.onProgress(step(1), true);
  others.onProgress(step(2), true);
  await vi.waitFor(() => expect(told).toEqual([step(2)]));
  answers[0]?.(png);
  await Promise.resolve();
  others.onProgress(step(3), false);
  await vi.waitFor(() => expect(told.at(-1)).toEqual({ ...step(3), preview: png }));
  others.onProgress(step(4), true);
  await vi.waitFor(() => expect(answers).toHaveLength(2));
  answers[1]?.(png);
  await vi.waitFor(() => expect(told.at(-1)).toEqual({ ...step(4), preview: png }));
  expect(told).toHaveLength(3);
});

test('as long as our own worker comes back by itself, nobody is told anything', () => {
  const { others, announceFailure } = attended('backing-off');
  const here = machine('here', true, 'up', 'backing-off');
  const look = lookEvery3s(others);
  look([here, machine('other', false, 'up', 'ready')]);
  for (let i = 0; i < 6; i++) look([here]);
  expect(announceFailure).not.toHaveBeenCalled();
});
