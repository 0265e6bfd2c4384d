/** What several machines share: the database server, the folder, and the machines themselves. */
import { VERSION } from '@qwen-supervisor/ipc/version';
import type { CodedError } from '@qwen-supervisor/protocol/errors';
import type { MachineStatus } from '@qwen-supervisor/protocol/status';
import type { ServerFacts } from '../jobs/postgres-facts.js';
import { type Finding, fail, pass, warn } from './finding.js';

const VERSION_MIN = 130_000;
/** A claim takes some ten questions; a sign of life is waited for ten seconds. */
const ROUND_TRIP_SLOW_MS = 50;
/** What is kept for old transactions makes every claim slower. */
const TRANSACTION_LONG_SECONDS = 300;
/** Each supervisor takes five, and one that listens. */
const CONNECTIONS_EACH = 6;

/** `schema`: what is wrong with the tables; null: nothing. */
export function databaseServerFindings(facts: ServerFacts, schema: CodedError | null): Finding[] {
  const about = 'shared database';
  const { version, risky, connections, connectionsMax, roundTripMs } = facts;
  const major = Math.floor(version / 10_000);
  const who = `PostgreSQL ${major}, ${Math.round(roundTripMs * 10) / 10} ms away`;
  const findings: Finding[] = [];
  if (version < VERSION_MIN) findings.push(fail(about, `${who}: too old`, 'use 13 or newer'));
  if (facts.isStandby)
    findings.push(fail(about, `${who}: a standby, to which nothing can be written`, 'name the primary in store'));
  if (schema) findings.push(fail(about, `${schema.code}: ${schema.message}`, schema.hint));
  if (!facts.keepsSettings)
    findings.push(
      fail(
        about,
        `${who}: it does not keep what each session asks for, as behind a pooler of transactions`,
        'name the server itself, or a pooler of sessions: notices and locks need one',
      ),
    );
  if (risky.length > 0)
    findings.push(
      warn(
        about,
        `${risky.join(' and ')} are off: a power cut there loses accepted jobs`,
        'switch them on, and restart it',
      ),
    );
  if (facts.isEncrypted === false)
    findings.push(
      warn(
        about,
        'prompts go to it over the network in plain text',
        "'?sslmode=verify-full' at the end of store, with a certificate there",
      ),
    );
  if (facts.isSuperuser)
    findings.push(warn(about, 'we are its superuser', 'a user of its own, which owns one database, is enough'));
  if (connectionsMax - connections < CONNECTIONS_EACH)
    findings.push(
      warn(
        about,
        `${connections} of ${connectionsMax} connections are in use`,
        'raise max_connections: each machine takes six',
      ),
    );
  if (facts.oldestTransactionSeconds > TRANSACTION_LONG_SECONDS)
    findings.push(
      warn(
        about,
        `somebody has a transaction open for ${Math.round(facts.oldestTransactionSeconds / 60)} minutes: claims get slower`,
        'find it in pg_stat_activity, and end it',
      ),
    );
  if (roundTripMs > ROUND_TRIP_SLOW_MS)
    findings.push(warn(about, `${who}: every job waits for it some ten times`, 'a nearer server, or a better network'));
  return findings.length > 0 ? findings : [pass(about, who)];
}

/** `fileSystem`: what the folder lies on, where it is there; null of a bucket. */
export function sharedFolderFinding(
  folder: string,
  problem: CodedError | null,
  fileSystem: { name: string; locksBadly: boolean } | null,
): Finding {
  const about = 'shared folder';
  if (folder === '')
    return warn(about, 'none: pictures can be had from the machine alone that has drawn them', "set 'shared-folder'");
  if (problem) return fail(about, `${problem.code}: ${problem.message}`, problem.hint);
  if (fileSystem === null) return pass(about, `${folder} answers`);
  // Those of the network lock badly, and hardly any other does.
  if (!fileSystem.locksBadly)
    return warn(
      about,
      `${folder} is on a disk of this machine (${fileSystem.name})`,
      'let the other machines mount it, if they do not: on them this line names NFS or SMB',
    );
  return pass(about, `${folder}, on ${fileSystem.name}`);
}

/** As a supervisor that runs knows them. */
export function machinesFinding(machines: readonly MachineStatus[]): Finding {
  const about = 'machines';
  const named = (which: readonly MachineStatus[]) => which.map(({ name }) => name).join(', ');
  const up = machines.filter(({ state }) => state === 'up');
  const says = `${up.length} of ${machines.length} are up`;
  const silent = machines.filter(({ state }) => state === 'silent');
  if (silent.length > 0)
    return warn(
      about,
      `${says}; nothing is heard of ${named(silent)}`,
      'look whether it runs, and reaches the database',
    );
  const others = up.filter(({ version }) => version !== VERSION);
  if (others.length > 0)
    return warn(
      about,
      `${says}; ${named(others)} run another version than ${VERSION}`,
      'install the same version on all',
    );
  const here = up.find(({ isHere }) => isHere);
  const strangers = here ? up.filter(({ model }) => model !== here.model) : [];
  if (strangers.length > 0)
    return warn(
      about,
      `${says}; ${named(strangers)} draw with another model than ${here?.model}`,
      'whoever takes a job draws it with its own: use the same model on all',
    );
  return pass(about, says);
}
