/**
 * Machines on one cable: a network namespace each, with an address of its own. A cut is silent, as a pulled plug is:
 * nobody is told that a connection is over. Needs root and `ip` (iproute2).
 */
import { execaSync } from 'execa';

const ip = (...args: string[]) => execaSync('ip', args).stdout;
/** Nobody has it: what is sent there is lost on the cable. */
const NOBODY = '02:00:00:00:00:fe';

export interface Machine {
  name: string;
  /** What a program runs with that runs on it. */
  exec: string[];
  pids(): number[];
  /** `out`: what it sends is lost; `in`: what is sent to it; `both`: the plug is pulled. */
  cut(which: 'both' | 'in' | 'out'): void;
  heal(): void;
}

export interface Network {
  /** Of this side, which all machines reach. */
  address: string;
  /** All of them, for pg_hba.conf. */
  addresses: string;
  machines: Machine[];
  remove(): void;
}

/** Whether there can be one here. */
export function canHaveNetworks(): boolean {
  const probe = `qsprobe${process.pid}`;
  if (process.getuid?.() !== 0) return false;
  const made = execaSync('ip', ['link', 'add', probe, 'type', 'bridge'], { reject: false });
  if (made.failed) return false;
  ip('link', 'del', probe);
  const space = execaSync('ip', ['netns', 'add', probe], { reject: false });
  if (space.failed) return false;
  ip('netns', 'del', probe);
  return true;
}

export function makeNetwork(count: number): Network {
  const id = process.pid % 100_000;
  // One of 250 networks for private use: two runs at a time seldom have the same.
  const net = `10.213.${(id % 250) + 1}`;
  const [bridge, address] = [`qs${id}`, `${net}.1`];
  // One of its own: else it changes with the machines that are added.
  const bridgeMac = '02:00:00:00:00:01';
  ip('link', 'add', bridge, 'address', bridgeMac, 'type', 'bridge');
  ip('addr', 'add', `${address}/24`, 'dev', bridge);
  ip('link', 'set', bridge, 'up');

  const machines = Array.from({ length: count }, (_, i): Machine => {
    const [space, outer, inner, own] = [`qs${id}h${i}`, `qs${id}o${i}`, `qs${id}i${i}`, `${net}.${10 + i}`];
    const inside = (...args: string[]) => ip('-n', space, ...args);
    ip('netns', 'add', space);
    ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', inner, 'netns', space);
    ip('link', 'set', outer, 'master', bridge, 'up');
    inside('addr', 'add', `${own}/24`, 'dev', inner);
    inside('link', 'set', inner, 'up');
    inside('link', 'set', 'lo', 'up');
    const innerMac = /link\/ether (\S+)/.exec(inside('link', 'show', inner))?.[1] as string;
    const sendTo = (mac: string) =>
      inside('neigh', 'replace', address, 'lladdr', mac, 'dev', inner, 'nud', 'permanent');
    const hearFrom = (mac: string) => ip('neigh', 'replace', own, 'lladdr', mac, 'dev', bridge, 'nud', 'permanent');
    return {
      name: space,
      exec: ['ip', 'netns', 'exec', space],
      pids: () => ip('netns', 'pids', space).split('\n').filter(Boolean).map(Number),
      cut(which) {
        if (which === 'both') ip('link', 'set', outer, 'down');
        if (which === 'out') sendTo(NOBODY);
        if (which === 'in') hearFrom(NOBODY);
      },
      heal() {
        ip('link', 'set', outer, 'up');
        sendTo(bridgeMac);
        hearFrom(innerMac);
      },
    };
  });
  return {
    address,
    addresses: `${net}.0/24`,
    machines,
    remove() {
      for (const { name, pids } of machines) {
        for (const pid of pids()) process.kill(pid, 'SIGKILL');
        ip('netns', 'del', name);
      }
      ip('link', 'del', bridge);
    },
  };
}
