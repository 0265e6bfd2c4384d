/** What is known here of the machines that share the queue, and whom it concerns. */
import type { ChildState, MachineStatus } from '@qwen-supervisor/protocol/status';
import { OtherMachines } from '@qwen-supervisor/supervisor/other-machines';
import { expect, test, vi } from 'vitest';

function machine(name: string, isHere: boolean, state: MachineStatus['state'], worker: ChildState): MachineStatus {
  const workers = [{ name: 'inference' as const, state: worker, device: 'cuda:0', job: null, reason: worker }];
  const seenAt = '2026-01-01T00:00:00.000Z';
  return { name, isHere, state, isDrained: false, version: '1', url: 'http://h', model: 'm', workers, seenAt };
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
  others.onMachines([here, machine('other', false, 'up', 'busy')]);
  expect(announceFailure).not.toHaveBeenCalled();
  for (let i = 0; i < 2; i++) others.onMachines([here, machine('other', false, 'silent', 'busy')]);
  expect(announceFailure.mock.calls).toEqual([['no driver']]);
});

test('as long as our own worker comes back by itself, nobody is told anything', () => {
  const { others, announceFailure } = attended('backing-off');
  const here = machine('here', true, 'up', 'backing-off');
  others.onMachines([here, machine('other', false, 'up', 'ready')]);
  others.onMachines([here]);
  expect(announceFailure).not.toHaveBeenCalled();
});
