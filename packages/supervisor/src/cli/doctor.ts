import { readFileSync, statSync } from 'node:fs';
import { availableParallelism, totalmem, userInfo } from 'node:os';
import { fileURLToPath } from 'node:url';
import { readKernelFile } from '@qwen-supervisor/files/kernel-file';
import { processorQuota } from '@qwen-supervisor/files/processor-quota';
import { availableMemory } from '@qwen-supervisor/model/plan/memory';
import { isBucketAddress } from '@qwen-supervisor/protocol/bucket-address';
import type { Config } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import type { Command } from 'commander';
import { execa } from 'execa';
import { readKeysFile } from '../config/keys-file.js';
import { loadExplained } from '../config/load-config.js';
import { databaseFinding, diskFinding, diskOf, folderFinding } from '../doctor/data.js';
import { type Finding, fail, findingLine, pass } from '../doctor/finding.js';
import {
  clockFinding,
  limitsFinding,
  memoryFinding,
  memoryHolders,
  processorsFinding,
  tasksFinding,
  tasksRoom,
} from '../doctor/machine.js';
import { deviceFindings, modelFindings, runtimeFinding } from '../doctor/model.js';
import { portFinding } from '../doctor/port.js';
import { nodeFinding, packagesFinding, toolsFinding } from '../doctor/program.js';
import { databaseServerFindings, machinesFinding, sharedFolderFinding } from '../doctor/shared.js';
import { serviceFinding, supervisorFinding } from '../doctor/supervisor.js';
import { openBlobs } from '../jobs/blobs.js';
import { SharedFiles } from '../jobs/shared-files.js';
import { DATABASE_VERSION } from '../jobs/sqlite-database.js';
import { fileSystemOf } from '../machine/file-system.js';
import { hasColours } from '../records/log-line.js';
import { installedUnit } from '../service/install.js';
import { lingers, type ServiceState, serviceState } from '../service/systemctl.js';
import { installedWith } from '../service/units.js';
import { answered, connect, explained } from './client.js';
import { heldBy } from './held-memory.js';
import { print, printPainted } from './printer.js';
import { type Settings, withSettings } from './settings.js';
import { whileWaiting } from './while-waiting.js';

export function addDoctor(program: Command): void {
  withSettings(program.command('doctor'))
    .description('look for what keeps this machine from drawing, and say what to do')
    .option('--json', 'print one JSON object')
    .action(async ({ json, ...settings }: Settings) => {
      const findings: Finding[] = [];
      const looking = look(settings);
      const next = () => whileWaiting(() => 'looking', looking.next());
      for (let found = await next(); !found.done; found = await next()) {
        const finding = found.value;
        findings.push(finding);
        if (!json) printPainted(findingLine(finding, hasColours()));
      }
      const failed = findings.filter(({ result }) => result === 'fail').length;
      if (json) print(JSON.stringify({ findings, failed }));
      if (failed > 0) throw new CodedError('DOCTOR_FAILED', `${failed} of ${findings.length} are wrong`);
    });
}

/** In the order in which one depends on the other; each as soon as it is known. */
async function* look(given: Settings): AsyncGenerator<Finding> {
  const { settings, whose } = settingsFor(given);
  yield nodeFinding(process.versions.node, new Date().toISOString().slice(0, 10));
  yield packagesFinding();
  yield await runtimeFinding();
  const read = await known(() => explained(settings));
  yield read.finding ?? pass('settings', whose === null ? 'valid' : `valid; those of ${whose}`);
  // With settings that cannot be read all else is looked at with those that a start without any would have.
  const config = read.value?.config ?? withoutFaults(settings);
  const dataDir = config['data-dir'];
  const keys = await known(() => readKeysFile(config['keys-file']));
  if (config['keys-file'] !== '') yield keys.finding ?? pass('keys', `${keys.value?.length} in ${config['keys-file']}`);
  const running = await known(() => statusOf(dataDir));
  const status = running.value;
  const isSilent = running.error !== null && running.error.code !== 'NOT_RUNNING';
  yield isSilent ? (running.finding as Finding) : supervisorFinding(status);
  yield await serviceLook();
  yield folderFinding(dataDir);
  yield diskFinding(diskOf(dataDir));
  if (status === null && !isSilent) yield databaseFinding(dataDir, DATABASE_VERSION);
  if (config.store !== 'sqlite') yield* await sharedLook(config, status);
  const isOpen = (keys.value?.length ?? 0) > 0 || config.keyless === 'anywhere';
  yield portFinding(config.host, config.port, isOpen, status?.supervisor.url ?? null);
  yield memoryFinding(totalmem(), availableMemory(), memoryHolders);
  yield limitsFinding(readKernelFile('/proc/self/limits'));
  yield processorsFinding(availableParallelism(), processorQuota());
  yield tasksFinding(tasksRoom());
  yield await clockLook();
  yield toolsFinding(process.env.PATH, installedUnit() !== null);
  yield* await deviceFindings(config, status?.children.map(({ pid }) => pid) ?? []);
  yield* await modelFindings(config, heldBy(status));
}

/** Of the installed service, where neither flags nor the environment say others: it is what runs here. */
function settingsFor(given: Settings): { settings: Settings; whose: string | null } {
  const isSaid = Object.keys(given).length > 0 || Object.keys(process.env).some((name) => name.startsWith(OF_US));
  const unit = installedUnit();
  const installed = unit && installedWith(readFileSync(unit.path, 'utf8'));
  if (isSaid || !installed) return { settings: given, whose: null };
  const { config, settings } = installed;
  return { settings: { ...settings, ...(config === null ? {} : { config }) }, whose: unit.path };
}

const OF_US = 'QWEN_SUPERVISOR_';

/** The settings of a start without any; where the flags say which folder it is, that one. */
function withoutFaults({ dataDir }: Settings): Config {
  return loadExplained(dataDir === undefined ? {} : { dataDir }, undefined, {}).config;
}

async function statusOf(dataDir: string): Promise<SystemStatus> {
  const { link, pid } = await connect(dataDir, undefined, true);
  try {
    return await answered(pid, link.request('status', {}));
  } finally {
    link.close();
  }
}

/** A value, or the finding of why there is none. */
async function known<T>(read: () => T | Promise<T>) {
  try {
    return { value: await read(), finding: null, error: null };
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    const finding = fail(ABOUT[error.code] ?? 'settings', `${error.code}: ${error.message}`, error.hint);
    return { value: null, finding, error };
  }
}

const ABOUT: Partial<Record<CodedError['code'], string>> = {
  KEYS_FILE_INVALID: 'keys',
  SUPERVISOR_SILENT: 'supervisor',
  LINK_LOST: 'supervisor',
  STORE_UNREACHABLE: 'shared database',
  STORE_NODE_TOO_OLD: 'shared database',
};

/** What is shared with other machines. */
async function sharedLook(config: Config, status: SystemStatus | null): Promise<Finding[]> {
  const { store, 'shared-folder': folder, 'data-dir': dataDir } = config;
  const { lookAtServer } = await import('../jobs/open-postgres.js');
  const server = await known(() => lookAtServer(store));
  const reach = async () => new SharedFiles(await openBlobs(folder), dataDir, { warn() {} }).requireThere();
  const found = folder === '' ? null : await known(reach);
  const fileSystem = folder === '' || isBucketAddress(folder) || found?.error ? null : fileSystemOf(folder);
  return [
    ...(server.value ? databaseServerFindings(server.value.facts, server.value.schema) : [server.finding as Finding]),
    sharedFolderFinding(folder, found?.error ?? null, fileSystem),
    ...(status ? [machinesFinding(status.machines)] : []),
  ];
}

async function serviceLook(): Promise<Finding> {
  const installed = installedUnit();
  if (installed === null) return serviceFinding(null, null, null);
  const state = await serviceState(installed.scope).catch((error: unknown): ServiceState | null => {
    if (!(error instanceof CodedError)) throw error;
    return null;
  });
  const { username } = userInfo();
  return serviceFinding(
    installed,
    state,
    installed.scope === 'user' && (await lingers(username)) === false ? username : null,
  );
}

async function clockLook(): Promise<Finding> {
  const built = statSync(fileURLToPath(import.meta.url)).mtimeMs;
  const { stdout, failed } = await execa('timedatectl', ['show', '--property=NTPSynchronized', '--value'], {
    reject: false,
  });
  return clockFinding(Date.now(), built, failed ? null : stdout.trim() === 'yes');
}
