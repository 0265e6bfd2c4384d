import type { ApiKey } from '@qwen-supervisor/protocol/api-keys';
import type { Config } from '@qwen-supervisor/protocol/config';
import type { JobStore } from './jobs/job-store.js';
import type { SharedFiles } from './jobs/shared-files.js';
import type { HttpPort } from './machine/http-port.js';
import type { OtherMachines } from './other-machines.js';
import type { PlannedModels } from './planned-models.js';
import type { Log } from './records/log.js';
import type { SystemdNotifier } from './service/systemd-notify.js';

/** What a supervisor is made of, opened and checked. */
export interface Parts {
  config: Config;
  readConfig: () => Config;
  models: PlannedModels;
  dataDir: string;
  store: JobStore;
  others: OtherMachines;
  /** Where the machines of a shared store find the pictures of each other. */
  shared: SharedFiles | null;
  httpPort: HttpPort;
  log: Log;
  socket: string;
  keys: ApiKey[];
  systemd: SystemdNotifier | null;
  watchdogMs: number | null;
}
