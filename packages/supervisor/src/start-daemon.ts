/** From a configuration to a running supervisor: everything is opened and checked before a process is spawned. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { logFile } from '@qwen-supervisor/protocol/data-files';
import { CodedError, ERRORS } from '@qwen-supervisor/protocol/errors';
import { printError } from './cli/printer.js';
import { readKeysFile } from './config/keys-file.js';
import { isServiceVariable } from './config/load-config.js';
import { Daemon, type RunningDaemon } from './daemon.js';
import { openBlobs } from './jobs/blobs.js';
import { type OpenedStore, openJobStore } from './jobs/open-job-store.js';
import type { ClaimHooks } from './jobs/postgres-claims.js';
import { SharedFiles } from './jobs/shared-files.js';
import { emptyTemporaryFolder, prepareDataDir, prepareSocket, readPresence } from './machine/data-folder.js';
import { fileSystemOf } from './machine/file-system.js';
import { adoptHttpPort, bindHttpPort, type HttpPort } from './machine/http-port.js';
import { processState } from './machine/process-state.js';
import { OtherMachines } from './other-machines.js';
import { PlannedModels } from './planned-models.js';
import { deathSignalLauncher } from './processes/spawn-child.js';
import { sweepSurvivors } from './processes/survivors.js';
import { type Log, openLog } from './records/log.js';
import { SystemdNotifier, takeActivation } from './service/systemd-notify.js';

/**
 * Starts a supervisor. Whatever can be known before a process is spawned is checked here, in the order of cost.
 * `readConfig` is called now and at every reload.
 * @throws CodedError SUPERVISOR_STOPPING where it is told to stop meanwhile, of the configuration, the model, the data
 * folder, the port, or ALREADY_RUNNING
 */
export async function startDaemon(
  readConfig: () => Config,
  env: NodeJS.ProcessEnv,
  stopping: AbortSignal,
): Promise<RunningDaemon> {
  // Prompts and pictures are nobody else's.
  process.umask(0o077);
  const activation = takeActivation(env);
  const config = readConfig();
  const keys = readKeysFile(config['keys-file']);
  const models = await PlannedModels.open(config, stopping);
  const dataDir = prepareDataDir(config['data-dir']);
  const others = new OtherMachines();
  const { store, setAside, leftHere } = await openStore(config.store, dataDir, others);
  emptyTemporaryFolder(dataDir);
  let httpPort: HttpPort | undefined;
  try {
    const open = keys.length > 0 || config.keyless === 'anywhere';
    httpPort =
      activation.listenFds.length === 0
        ? bindHttpPort(config.host, config.port, open)
        : adoptHttpPort(activation.listenFds, open);
    const log = openLog(logFile(dataDir), config['log-level']);
    process.on('uncaughtException', (error) => endForBug(error, log));
    if (isServiceVariable(env.QWEN_SUPERVISOR_PORT ?? ''))
      log.logger.warn('QWEN_SUPERVISOR_PORT is of a Kubernetes Service and is ignored (enableServiceLinks: false)');
    if (setAside) log.logger.error(`the job database was damaged: kept as ${setAside}, the queue begins empty`);
    if (leftHere > 0)
      log.logger.warn(
        { jobs: leftHere },
        "jobs wait in this folder's own database: they are drawn with store = 'sqlite'",
      );
    if (deathSignalLauncher().length === 0) {
      log.logger.warn(
        'this system has no setpriv that ends children with their supervisor: a killed one may leave some behind',
      );
    }
    const survivors = await sweepSurvivors(dataDir);
    if (survivors.length > 0) log.logger.warn({ pids: survivors }, 'killed processes of an earlier supervisor');
    const socket = prepareSocket(dataDir, env);
    const systemd = activation.notify ? new SystemdNotifier(env, (reason) => log.logger.warn(reason)) : null;
    delete env.NOTIFY_SOCKET;
    const isAlone = config.store === 'sqlite' || config['shared-folder'] === '';
    const shared = isAlone ? null : new SharedFiles(await openBlobs(config['shared-folder']), dataDir, log.logger);
    await shared?.requireThere();
    const parts = { config, readConfig, models, dataDir, store, others, shared, httpPort, log, socket, keys };
    const daemon = new Daemon({ ...parts, systemd, watchdogMs: activation.watchdogMs });
    others.attend({ core: daemon, jobs: daemon.jobs, events: daemon.events, log, store, shared });
    await daemon.open();
    return daemon;
  } catch (error) {
    httpPort?.close();
    await store.close();
    throw error;
  }
}

/** A fault of ours: what is acknowledged is in the database, and a new supervisor is better than this one. */
function endForBug(error: Error, { logger }: Log): never {
  logger.fatal({ stack: error.stack }, `INTERNAL: ${error.message}`);
  printError(`error INTERNAL: ${error.message}\nhint: ${ERRORS.INTERNAL.hint}`);
  process.exit(ERRORS.INTERNAL.exit);
}

async function openStore(where: string, dataDir: string, hooks: ClaimHooks): Promise<OpenedStore> {
  try {
    return await openJobStore(where, dataDir, hooks);
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'ALREADY_RUNNING') throw error;
    const other = readPresence(dataDir);
    if (other && processState(other.pid) !== null)
      throw new CodedError('ALREADY_RUNNING', `${dataDir} is in use by process ${other.pid}, ${other.url}`, {
        cause: error,
      });
    const text = `${dataDir}: jobs.db is locked, and no supervisor runs there that is known: another program has it open, or its file system (${fileSystemOf(dataDir).name}) cannot lock; use a folder on a local disk`;
    throw new CodedError('DATA_DIR_UNUSABLE', text, { cause: error });
  }
}
