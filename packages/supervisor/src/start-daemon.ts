/** From a configuration to a running supervisor: everything is opened and checked before a process is spawned. */
import type { Config } from '@qwen-supervisor/protocol/config';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { readKeysFile } from './config/keys-file.js';
import { type Daemon, openWhole, Supervisor } from './daemon.js';
import { openSqliteJobStore } from './jobs/sqlite-database.js';
import { logFile, prepareDataDir, prepareSocket, readPresence } from './machine/data-folder.js';
import { adoptListener, bindListener, type Listener } from './machine/http-port.js';
import { SystemdNotifier, takeGifts } from './machine/systemd.js';
import { deathSignalLauncher } from './processes/spawn-child.js';
import { sweepSurvivors } from './processes/survivors.js';
import { openLog } from './records/log.js';

/**
 * Starts a supervisor. Whatever can be known before a process is spawned is checked here, in the order of cost.
 * `readConfig` is called now and at every reload.
 * @throws CodedError of the configuration, the model, the data folder, the port, or ALREADY_RUNNING
 */
export async function startDaemon(readConfig: () => Config, env: NodeJS.ProcessEnv): Promise<Daemon> {
  const gifts = takeGifts(env);
  const config = readConfig();
  const keys = readKeysFile(config['keys-file']);
  const checkpoint = openWhole(config.model);
  const dataDir = prepareDataDir(config['data-dir']);
  const { store, setAside } = openStore(dataDir);
  let listener: Listener | undefined;
  try {
    const open = keys.length > 0 || config.keyless === 'anywhere';
    listener =
      gifts.listenFd === null ? bindListener(config.host, config.port, open) : adoptListener(gifts.listenFd, open);
    const log = openLog(logFile(dataDir), config['log-level']);
    if (setAside) log.error(`the job database was damaged: kept as ${setAside}, the queue begins empty`);
    if (deathSignalLauncher().length === 0) {
      log.warn(
        'this system has no setpriv that ends children with their supervisor: a killed one may leave some behind',
      );
    }
    const survivors = await sweepSurvivors(dataDir);
    if (survivors.length > 0) log.warn({ pids: survivors }, 'killed processes of an earlier supervisor');
    const socket = prepareSocket(dataDir, env);
    const systemd = gifts.notify ? new SystemdNotifier(env, (reason) => log.warn(reason)) : null;
    delete env.NOTIFY_SOCKET;
    const parts = { config, readConfig, checkpoint, dataDir, store, listener, log, socket, keys };
    const supervisor = new Supervisor({ ...parts, systemd, watchdogMs: gifts.watchdogMs });
    await supervisor.open();
    return supervisor;
  } catch (error) {
    listener?.close();
    await store.close();
    throw error;
  }
}

function openStore(dataDir: string): ReturnType<typeof openSqliteJobStore> {
  try {
    return openSqliteJobStore(dataDir);
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'ALREADY_RUNNING') throw error;
    const other = readPresence(dataDir);
    const who = other ? `process ${other.pid}, ${other.url}` : 'another process';
    throw new CodedError('ALREADY_RUNNING', `${dataDir} is in use by ${who}`, { cause: error });
  }
}
