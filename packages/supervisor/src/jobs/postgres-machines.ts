/** The machines that share the store: each writes down how it is, again and again, and reads of the others. */
import {
  CHILD_STATES,
  type MachineReport,
  type MachineStatus,
  type WorkerName,
} from '@qwen-supervisor/protocol/status';
import { z } from 'zod';
import type { PostgresDatabase } from './postgres-database.js';

/** One that has said nothing for so long is dead, or cut off: its jobs are taken from it, too. */
const SILENT_SECONDS = 10;
/** One that nobody has heard of for so long is gone for good, and others may have its name. */
const GONE = '7 days';

/** Another version may tell other things of itself; what is not understood keeps nobody from what is. */
const reportSchema = z.object({
  version: z.string().catch('?'),
  url: z.string().catch(''),
  model: z.string().catch('?'),
  workers: z
    .array(
      z.object({
        name: z.custom<WorkerName>((name) => typeof name === 'string'),
        state: z.enum(CHILD_STATES),
        device: z.string(),
        job: z.string().nullable(),
        reason: z.string(),
      }),
    )
    .catch([]),
});

interface Row {
  name: string;
  is_here: boolean;
  is_drained: boolean;
  is_stopped: boolean;
  is_silent: boolean;
  seen_at: string;
  report: string;
}

export class PostgresMachines {
  readonly #database: PostgresDatabase;
  readonly #table: string;
  readonly #host: string;
  #isKnown = false;

  /** `host`: the host name, and what tells it from others of the same. */
  constructor(database: PostgresDatabase, host: string) {
    this.#database = database;
    this.#table = `${database.schema}.machines`;
    this.#host = host;
  }

  /** Says that this one lives, and how it is. Whether others should look at once. */
  async beat(report: MachineReport): Promise<boolean> {
    const sql = this.#database.alone;
    const text = JSON.stringify(report);
    if (!this.#isKnown) await this.#enter(text);
    this.#isKnown = true;
    const query = `UPDATE ${this.#table} AS now SET seen_at = clock_timestamp(), report = $2, is_stopped = false
      FROM ${this.#table} AS before WHERE now.host = $1 AND before.host = now.host
      RETURNING before.report <> $2 OR before.is_stopped AS changed`;
    const row = await sql.one<{ changed: boolean }>(query, this.#host, text);
    // Somebody has removed it, who thought that it was gone.
    this.#isKnown = row !== undefined;
    return row?.changed ?? true;
  }

  async #enter(report: string): Promise<void> {
    const [name = '', id = ''] = this.#host.split(' ');
    const sql = this.#database.alone;
    await sql.all(`DELETE FROM ${this.#table} WHERE seen_at < clock_timestamp() - interval '${GONE}'`);
    const query = `INSERT INTO ${this.#table} (host, name, report) SELECT $1::text,
        CASE WHEN EXISTS (SELECT 1 FROM ${this.#table} WHERE name = $2) THEN $3 ELSE $2 END, $4::text
      ON CONFLICT (host) DO NOTHING`;
    await sql.all(query, this.#host, name, `${name}-${id.slice(0, 4)}`, report);
  }

  /** In the order of their names. */
  async list(): Promise<MachineStatus[]> {
    const query = `SELECT name, host = $1 AS is_here, is_drained, is_stopped, report,
        to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS seen_at,
        seen_at < clock_timestamp() - interval '${SILENT_SECONDS} s' AS is_silent
      FROM ${this.#table} WHERE seen_at > clock_timestamp() - interval '${GONE}' ORDER BY name`;
    const rows = await this.#database.alone.all<Row>(query, this.#host);
    return rows.map((row) => ({
      name: row.name,
      state: row.is_stopped ? 'stopped' : row.is_silent ? 'silent' : 'up',
      isDrained: row.is_drained,
      isHere: row.is_here,
      seenAt: row.seen_at,
      ...readReport(row.report),
    }));
  }

  /** Whether there is one of this name. */
  async drain(name: string, isDrained: boolean): Promise<boolean> {
    const query = `UPDATE ${this.#table} SET is_drained = $2 WHERE name = $1 RETURNING name`;
    return (await this.#database.alone.one(query, name, isDrained)) !== undefined;
  }

  /** It ends in an orderly way: nobody need wait for it. */
  async stopped(): Promise<void> {
    await this.#database.alone.all(`UPDATE ${this.#table} SET is_stopped = true WHERE host = $1`, this.#host);
  }
}

function readReport(text: string): MachineReport {
  let report: unknown;
  try {
    report = JSON.parse(text);
  } catch {
    report = {};
  }
  return reportSchema.catch(reportSchema.parse({})).parse(report);
}
