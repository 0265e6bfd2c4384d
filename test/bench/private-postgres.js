/** A PostgreSQL of Debian's (postgresql-15) that nobody else uses, and what it costs its machine. */
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PROGRAMS = '/usr/lib/postgresql/15/bin';

export class PrivatePostgres {
  folder = mkdtempSync(join(tmpdir(), 'qwen-supervisor-bench-'));
  store = `postgres://postgres@localhost/postgres?host=${this.folder}`;
  #data = join(this.folder, 'postgres');
  /** A server refuses to be root's: then it is Debian's user's. */
  #owner = {};

  start(...settings) {
    if (process.getuid?.() === 0) {
      const [uid, gid] = ['-u', '-g'].map((of) => Number(execFileSync('id', [of, 'postgres'])));
      this.#owner = { uid, gid };
      chownSync(this.folder, uid, gid);
    }
    const options = ['listen_addresses=', ...settings].map((setting) => `-c ${setting}`).join(' ');
    this.#run('initdb', '-D', this.#data, '-U', 'postgres', '-A', 'trust', '--no-locale', '-E', 'UTF8');
    const log = join(this.folder, 'log');
    this.#run('pg_ctl', '-D', this.#data, '-w', '-o', `-k ${this.folder} ${options}`, '-l', log, 'start');
  }

  #run(program, ...args) {
    const stdio = ['ignore', 'ignore', 'inherit'];
    execFileSync(join(PROGRAMS, program), args, { ...this.#owner, cwd: this.folder, stdio });
  }

  psql(query) {
    const args = ['-h', this.folder, '-U', 'postgres', '-At', '-c', query];
    return execFileSync(join(PROGRAMS, 'psql'), args, { encoding: 'utf8' }).trim();
  }

  /** One that stays open, and takes statements by its stdin. */
  session() {
    const args = ['-h', this.folder, '-U', 'postgres'];
    return spawn(join(PROGRAMS, 'psql'), args, { stdio: ['pipe', 'ignore', 'inherit'] });
  }

  /** Seconds of a processor that all of its processes have used so far. Reference: proc(5), stat. */
  seconds() {
    const [postmaster] = readFileSync(join(this.#data, 'postmaster.pid'), 'utf8').split('\n');
    const ticks = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => {
        try {
          const [, rest] = /\) (.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? [];
          const fields = rest.split(' ');
          const own = Number(fields[11]) + Number(fields[12]);
          // With those of its processes that have ended.
          if (pid === postmaster) return own + Number(fields[13]) + Number(fields[14]);
          return fields[1] === postmaster ? own : 0;
        } catch (error) {
          // It has ended meanwhile.
          if (error.code === 'ENOENT' || error.code === 'ESRCH') return 0;
          throw error;
        }
      });
    return ticks.reduce((sum, one) => sum + one, 0) / 100;
  }

  remove() {
    this.#run('pg_ctl', '-D', this.#data, '-m', 'immediate', 'stop');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10 });
  }
}
