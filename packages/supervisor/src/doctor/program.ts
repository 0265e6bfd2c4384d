/** The program itself: Node, its packages, and what of the system it uses. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type Finding, fail, pass, warn } from './finding.js';

/** Least version, as in package.json. */
const NODE_MIN = [20, 19] as const;
/** When the long-term releases are no longer mended. Reference: Node.js release schedule. */
const END_OF_LIFE: Record<number, string> = { 20: '2026-04-30', 22: '2027-04-30', 24: '2028-04-30', 26: '2029-04-30' };
const NODE_STEP = 'install Node 22, 24 or 26';

/** `version` as 22.12.0, `today` as 2026-11-27. */
export function nodeFinding(version: string, today: string): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [leastMajor, leastMinor] = NODE_MIN;
  if (major < leastMajor || (major === leastMajor && minor < leastMinor))
    return fail('Node', `${version} is older than ${NODE_MIN.join('.')}`, NODE_STEP);
  const end = END_OF_LIFE[major];
  if (end === undefined)
    return warn('Node', `${version} is no long-term release that this program is tried with`, NODE_STEP);
  if (end < today) return warn('Node', `${version} works, and has not been mended since ${end}`, NODE_STEP);
  return pass('Node', `${version}, mended until ${end}`);
}

/** What the supervisor's own process loads, and what its children load. */
const PACKAGES = [
  ...['execa', 'tree-kill', 'pino', 'commander', 'node-ipc', 'libsql', 'smol-toml', 'zod', 'msgpackr'],
  ...['fastify', 'sharp', 'onnxruntime-node', '@huggingface/tokenizers'],
];

/** Whether each can be found from here. */
export function packagesFinding(resolves: (name: string) => boolean = canResolve): Finding {
  const missing = PACKAGES.filter((name) => !resolves(name));
  if (missing.length === 0) return pass('packages', `all ${PACKAGES.length} are there`);
  return fail('packages', `missing: ${missing.join(', ')}`, 'install the program again');
}

function canResolve(name: string): boolean {
  try {
    import.meta.resolve(name);
    return true;
  } catch (error) {
    // Some export nothing under their name alone, and are there.
    return (error as NodeJS.ErrnoException).code === 'ERR_PACKAGE_PATH_NOT_EXPORTED';
  }
}

/** Programs of the system, and what is lost without them. */
const TOOLS: Record<string, string> = {
  setpriv: 'a supervisor that is killed may leave children behind (util-linux has it)',
  'systemd-notify': 'systemd cannot be told anything (systemd has it)',
};

export function toolsFinding(path: string | undefined, usesSystemd: boolean): Finding {
  const missing = Object.keys(TOOLS).filter((name) => !isOnPath(name, path ?? ''));
  const mattering = missing.filter((name) => name !== 'systemd-notify' || usesSystemd);
  if (mattering.length === 0)
    return pass(
      'tools',
      Object.keys(TOOLS)
        .filter((name) => !missing.includes(name))
        .join(', '),
    );
  return warn(
    'tools',
    mattering.map((name) => `without ${name} ${TOOLS[name]}`).join('; '),
    `install ${mattering.join(' and ')}`,
  );
}

function isOnPath(name: string, path: string): boolean {
  return path.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch (error) {
      if (['ENOENT', 'EACCES', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
      throw error;
    }
  });
}
