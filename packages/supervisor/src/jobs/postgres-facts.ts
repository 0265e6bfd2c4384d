/** What a shared database server is like, as far as jobs depend on it. */
import type { Sql } from './postgres-database.js';

export interface ServerFacts {
  /** As `150004`. */
  version: number;
  /** It only follows another server: nothing can be written. */
  isStandby: boolean;
  /** Settings that are off and without which a power cut loses what was accepted. */
  risky: string[];
  isSuperuser: boolean;
  /** Of our connection; null where it does not leave the machine. */
  isEncrypted: boolean | null;
  connections: number;
  connectionsMax: number;
  /** Of the oldest transaction that is open, whoever has it. */
  oldestTransactionSeconds: number;
  /** What we ask of every session is in force: a pooler between may have dropped it. */
  keepsSettings: boolean;
  roundTripMs: number;
}

/** Looked at again, so that one slow answer is none. */
const TRIPS = 5;

export async function factsOf(sql: Sql): Promise<ServerFacts> {
  const query = `SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby,
      current_setting('is_superuser') = 'on' AS superuser, inet_server_addr() IS NULL AS local,
      coalesce(inet_client_addr() = inet_server_addr(), true) AS same,
      (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS ssl,
      (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
      current_setting('max_connections')::int AS connections_max,
      (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS oldest,
      current_setting('idle_in_transaction_session_timeout') = '5s' AS kept,
      (SELECT coalesce(json_agg(name), '[]'::json) FROM pg_settings
        WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off') AS risky`;
  const row = (await sql.one<Row>(query)) as Row;
  const trips: number[] = [];
  for (let i = 0; i < TRIPS; i++) {
    const beganMs = performance.now();
    await sql.all('SELECT 1');
    trips.push(performance.now() - beganMs);
  }
  return {
    version: row.version,
    isStandby: row.standby,
    risky: row.risky,
    isSuperuser: row.superuser,
    isEncrypted: row.local || row.same ? null : row.ssl === true,
    connections: row.connections,
    connectionsMax: row.connections_max,
    oldestTransactionSeconds: row.oldest,
    keepsSettings: row.kept,
    roundTripMs: trips.sort((a, b) => a - b)[Math.floor(TRIPS / 2)] as number,
  };
}

interface Row {
  version: number;
  standby: boolean;
  superuser: boolean;
  local: boolean;
  same: boolean;
  ssl: boolean | null;
  connections: number;
  connections_max: number;
  oldest: number;
  kept: boolean;
  risky: string[];
}
