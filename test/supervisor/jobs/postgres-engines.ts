/** PostgreSQL for the specifications of a job store: in this process (PGlite), and a cluster of its own. */
import { appendFileSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import type { JobStore } from '@qwen-supervisor/supervisor/jobs/job-store';
import { bossOptions, install, usable } from '@qwen-supervisor/supervisor/jobs/open-postgres';
import type { ClaimHooks } from '@qwen-supervisor/supervisor/jobs/postgres-claims';
import { PostgresDatabase } from '@qwen-supervisor/supervisor/jobs/postgres-database';
import { execa } from 'execa';
import { type ConstructorOptions, type Db, fromPglite, PgBoss } from 'pg-boss';
import { afterAll } from 'vitest';
import { POSTGRES } from '../../debian-packages.js';

export const DEAF: ClaimHooks = {
  report: () => null,
  onMachines() {},
  onProgress() {},
  onPictures() {},
  onWork() {},
  onJobs() {},
  onMissed() {},
  onCancel() {},
  onLost() {},
  onAway() {},
};

export const hasPostgres = () => existsSync(join(POSTGRES, 'initdb'));

/** One connection: what is not in the transaction waits until it is over. */
function pgliteConnection(pglite: PGlite): Db {
  const plain = fromPglite(pglite);
  let tail: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(act: () => Promise<T>): Promise<T> => {
    const acting = tail.then(act, act);
    tail = acting.catch(() => {});
    return acting;
  };
  return {
    ...plain,
    executeSql: (text, values) => inTurn(() => plain.executeSql(text, values)),
    beginTransaction: () =>
      new Promise((resolve, reject) => {
        void inTurn(async () => {
          await plain.executeSql('BEGIN');
          await new Promise<void>((over) => {
            const end = (how: string) => plain.executeSql(how).then(() => over());
            resolve({ db: plain, commit: () => end('COMMIT'), rollback: () => end('ROLLBACK') });
          });
        }).catch(reject);
      }),
  };
}

export interface Postgres {
  /** A supervisor's store; `name` is of the database, as a folder is. */
  open(name: string, host?: string, hooks?: ClaimHooks): Promise<JobStore>;
  database(name: string): Promise<PostgresDatabase>;
}

/** One for all cases of a file: each has a schema of its own. */
function postgres(connect: () => Promise<ConstructorOptions>): Postgres {
  let connected: ReturnType<typeof connect> | null = null;
  const schemas = new Map<string, string>();
  const database = async (name: string) => {
    connected ??= connect();
    const options = await connected;
    const known = schemas.get(name);
    const schema = known ?? `case_${schemas.size}`;
    schemas.set(name, schema);
    const boss = new PgBoss({ ...bossOptions(schema), ...options, migrate: !known, createSchema: !known });
    boss.on('error', () => {});
    await boss.start();
    const opened = new PostgresDatabase(boss, schema);
    if (!known) await install(opened);
    return opened;
  };
  return { database, open: async (name, host = 'here', hooks = DEAF) => usable(await database(name), host, hooks) };
}

export function pglite(): Postgres {
  let one: PGlite | null = null;
  afterAll(() => one?.close());
  return postgres(async () => {
    one = await PGlite.create();
    const db = pgliteConnection(one);
    return { db, backend: 'pglite' };
  });
}

export interface Cluster extends Postgres {
  folder(): string;
  /** Makes and starts it, where that is not left to the first who asks for a database. */
  start(): Promise<void>;
  control(...args: string[]): Promise<void>;
}

/** A cluster of its own, which nobody reaches but through its folder, and over the `network`, if there is one. */
export function privateCluster(network: { address: string; addresses: string } | null = null): Cluster {
  const folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-postgres-'));
  const data = join(folder, 'data');
  /** A server refuses to be root's: then it is Debian's user's, and our own otherwise. */
  const owner = async () => {
    if (process.getuid?.() !== 0) return {};
    const [uid = 0, gid = 0] = await Promise.all(
      ['-u', '-g'].map(async (of) => Number((await execa('id', [of, 'postgres'])).stdout)),
    );
    return { uid, gid };
  };
  const run = async (program: string, args: string[]) => {
    await execa(join(POSTGRES, program), args, { ...(await owner()), cwd: folder, stdio: 'ignore' });
  };
  const control = async (...args: string[]) => {
    const server = `-k ${folder} -c listen_addresses=${network?.address ?? ''} -c fsync=off`;
    await run('pg_ctl', ['-D', data, '-w', '-o', server, '-l', join(folder, 'log'), ...args]);
  };
  afterAll(async () => {
    if (existsSync(join(data, 'postmaster.pid'))) await control('stop', '-m', 'immediate');
    rmSync(folder, { recursive: true });
  });
  const start = async () => {
    mkdirSync(data);
    const { uid, gid } = await owner();
    if (uid !== undefined) for (const path of [folder, data]) chownSync(path, uid, gid);
    await run('initdb', ['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '--no-locale', '-E', 'UTF8']);
    if (network) appendFileSync(join(data, 'pg_hba.conf'), `host all all ${network.addresses} trust\n`);
    await control('start');
  };
  return {
    folder: () => folder,
    start,
    control,
    ...postgres(async () => {
      await start();
      return { host: folder, user: 'postgres', database: 'postgres', max: 5 };
    }),
  };
}
