import type { MachineStatus } from '@qwen-supervisor/protocol/status';
import type { Command } from 'commander';
import { ask, withDataDir } from './client.js';
import { print } from './printer.js';
import { machineLines } from './status-lines.js';

interface Asked {
  dataDir?: string;
  json?: boolean;
}

export function addMachines(program: Command): void {
  const machines = program.command('machines').description('the machines that draw from one queue');

  withDataDir(machines.command('list'))
    .description('how each is, what its workers do, and when it was last heard of')
    .option('--json', 'one JSON object per line')
    .action(async (options: Asked) => {
      const found = await ask(options, async ({ link }) => (await link.request('status', {})).machines);
      if (options.json) for (const machine of found) print(JSON.stringify(machine));
      else print(found.length === 0 ? ALONE : found.flatMap((machine) => described(machine)).join('\n'));
    });

  for (const { verb, isDrained, does, says } of [
    {
      verb: 'drain',
      isDrained: true,
      does: 'let it take no more jobs; what it draws it ends',
      says: "takes no more jobs, also after a new start: 'machines resume' takes that back",
    },
    { verb: 'resume', isDrained: false, does: 'let it take jobs again', says: 'takes jobs again' },
  ]) {
    withDataDir(machines.command(verb))
      .description(does)
      .argument('<name>', "as 'machines list' has it")
      .option('--json', 'print one JSON object')
      .action(async (name: string, options: Asked) => {
        await ask(options, ({ link }) => link.request('drainMachine', { name, isDrained }));
        print(options.json ? JSON.stringify({ name, isDrained }) : `${name} ${says}`);
      });
  }
}

const ALONE = "this machine shares its queue with nobody ('store' is 'sqlite')";

function described(machine: MachineStatus): string[] {
  const { workers, url, version } = machine;
  const draws = workers.map(({ name, device, state, job, reason }) =>
    [`  ${name.padEnd(14)}${device.padEnd(10)}${state}`, job ?? reason].join(', '),
  );
  return [...machineLines([machine]), `  ${url}, version ${version}`, ...draws];
}
