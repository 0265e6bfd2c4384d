/**
 * Installs CUDA's libraries: wheels are checked, what is wanted of them is unpacked into `lib.part`, which is renamed
 * when it is whole; `installed.json` comes last. What a kill leaves is done anew, or gone on with.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, statfsSync } from 'node:fs';
import { copyFile, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { withFolderLock } from '@qwen-supervisor/files/folder-lock';
import { replaceFile, syncFolder } from '@qwen-supervisor/files/replace-file';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { execa } from 'execa';
import yauzl from 'yauzl';
import { type CudaInstallation, findInstallation, MANIFEST, runtimeFolder } from './cuda-runtime.js';
import type { Wheel } from './cuda-wheels.js';

/** ONNX Runtime's own, beside which it looks for its providers. */
const LIBRARY = 'libonnxruntime.so.1';
/** Left free on the disk: jobs and pictures need it. */
const ROOM_BYTES = 500e6;
/** What pip is told, so that it takes the same files on whatever machine and Python it runs. */
const PLATFORM = ['manylinux_2_28', 'manylinux_2_27', 'manylinux_2_17', 'manylinux2014', 'manylinux_2_5', 'manylinux1'];

/**
 * Installs the libraries of `wheels`, those of `from` or, where that is null, downloaded with pip.
 * @throws CodedError WHEEL_MISSING, WHEEL_INVALID, DISK_FULL, GPU_INSTALL_RUNNING, DEVICE_UNAVAILABLE on other systems
 */
export async function installCuda(
  dataDir: string,
  wheels: Wheel[],
  from: string | null,
  tell: (line: string) => void,
): Promise<CudaInstallation> {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new CodedError(
      'DEVICE_UNAVAILABLE',
      `CUDA's libraries are for Linux on x64, not for ${process.platform} on ${process.arch}`,
    );
  const folder = runtimeFolder(dataDir);
  await mkdir(folder, { recursive: true });
  return locked(folder, async () => {
    const there = findInstallation(dataDir);
    if (there) return there;
    // Half of another attempt takes the room of this one.
    const part = join(folder, 'lib.part');
    await rm(part, { recursive: true, force: true });
    requireRoom(folder, wheels, from);
    const source = from ?? join(folder, 'wheels');
    if (from === null) await download(wheels, source);
    for (const wheel of wheels) {
      tell(`checking ${wheel.file}`);
      await checkWheel(source, wheel);
    }
    await mkdir(part);
    for (const wheel of wheels) {
      tell(`unpacking ${wheel.name} ${wheel.version}`);
      await unpack(join(source, wheel.file), wheel, part);
    }
    await copyFile(join(onnxRuntimeFolder(), LIBRARY), join(part, LIBRARY));
    await syncFile(join(part, LIBRARY));
    const lib = join(folder, 'lib');
    await rm(lib, { recursive: true, force: true });
    await rename(part, lib);
    await syncFolder(folder);
    const installation: CudaInstallation = {
      packages: wheels.map(({ name, version }) => ({ name, version })),
      files: await sizesIn(lib),
      installedAt: new Date().toISOString(),
    };
    await replaceFile(join(folder, MANIFEST), Buffer.from(`${JSON.stringify(installation, null, 2)}\n`));
    await rm(join(folder, 'wheels'), { recursive: true, force: true });
    return installation;
  });
}

/** First that it is installed, then the rest. Whether anything was there. @throws CodedError GPU_INSTALL_RUNNING */
export async function removeCuda(dataDir: string): Promise<boolean> {
  const folder = runtimeFolder(dataDir);
  if (!existsSync(folder)) return false;
  await locked(folder, async () => {
    await rm(join(folder, MANIFEST), { force: true });
    await rm(folder, { recursive: true, force: true });
  });
  return true;
}

function locked<T>(folder: string, act: () => Promise<T>): Promise<T> {
  const busy = (cause: unknown) => new CodedError('GPU_INSTALL_RUNNING', undefined, { cause });
  return withFolderLock(folder, busy, act);
}

function requireRoom(folder: string, wheels: Wheel[], from: string | null): void {
  const missing = from === null ? wheels.filter(({ file }) => !existsSync(join(folder, 'wheels', file))) : [];
  const needed = unpackedBytes(wheels) + missing.reduce((sum, { bytes }) => sum + bytes, 0) + ROOM_BYTES;
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize >= needed) return;
  const [need, free] = [needed, bavail * bsize].map((bytes) => (bytes / 1e9).toFixed(1));
  throw new CodedError('DISK_FULL', `${folder}: the libraries take ${need} GB, and ${free} GB are free`);
}

function unpackedBytes(wheels: Wheel[]): number {
  return wheels.flatMap(({ members }) => Object.values(members)).reduce((sum, bytes) => sum + bytes, 0);
}

/** pip goes on with what it has, and compares the checksums itself. It shows its progress. */
async function download(wheels: Wheel[], folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const missing = wheels.filter(({ file }) => !existsSync(join(folder, file)));
  if (missing.length === 0) return;
  const list = join(folder, 'requirements.txt');
  const lines = missing.map(({ name, version, sha256 }) => `${name}==${version} --hash=sha256:${sha256}`);
  await replaceFile(list, Buffer.from(`${lines.join('\n')}\n`));
  const platforms = PLATFORM.flatMap((name) => ['--platform', `${name}_x86_64`]);
  const options = ['--no-deps', '--only-binary=:all:', '--python-version', '3.12', ...platforms, '--require-hashes'];
  const command = ['-m', 'pip', 'download', ...options, '--dest', folder, '--requirement', list];
  const { failed, exitCode, code } = await execa('python3', command, {
    stdin: 'ignore',
    stdout: process.stderr,
    stderr: 'inherit',
    reject: false,
  });
  if (!failed) return;
  const what = code === 'ENOENT' ? 'there is no python3 that could download them' : `pip ended with code ${exitCode}`;
  throw new CodedError('WHEEL_MISSING', `${missing.map(({ file }) => file).join(', ')}: ${what}`);
}

/** @throws CodedError WHEEL_MISSING, WHEEL_INVALID */
async function checkWheel(folder: string, { file, sha256 }: Wheel): Promise<void> {
  const path = join(folder, file);
  const stats = await stat(path).catch((cause: unknown) => {
    throw new CodedError('WHEEL_MISSING', `${path}: is not there`, { cause });
  });
  if (!stats.isFile()) throw new CodedError('WHEEL_INVALID', `${path}: is no file`);
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  const found = hash.digest('hex');
  if (found !== sha256)
    throw new CodedError('WHEEL_INVALID', `${path}: has the SHA-256 ${found}, and should have ${sha256}`);
}

/** @throws CodedError WHEEL_INVALID, DISK_FULL */
async function unpack(path: string, { members }: Wheel, folder: string): Promise<void> {
  const wanted = new Set(Object.keys(members));
  try {
    const zip = await yauzl.openPromise(path);
    for await (const entry of zip.eachEntry()) {
      if (!wanted.delete(entry.fileName)) continue;
      const target = join(folder, basename(entry.fileName));
      await pipeline(await zip.openReadStreamPromise(entry), createWriteStream(target, { mode: 0o755 }));
      await syncFile(target);
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOSPC') throw new CodedError('DISK_FULL', `${folder}: ${message}`, { cause });
    // Without a code it is yauzl's, with one of zlib's the file's own fault.
    if (code !== undefined && !code.startsWith('Z_')) throw cause;
    throw new CodedError('WHEEL_INVALID', `${path}: ${message}`, { cause });
  }
  if (wanted.size > 0) throw new CodedError('WHEEL_INVALID', `${path}: has no ${[...wanted].join(', ')}`);
}

async function sizesIn(folder: string): Promise<Record<string, number>> {
  const names = await readdir(folder);
  const sizes = await Promise.all(names.map(async (name) => [name, (await stat(join(folder, name))).size] as const));
  return Object.fromEntries(sizes);
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  await file.sync();
  await file.close();
}

function onnxRuntimeFolder(): string {
  const main = createRequire(import.meta.url).resolve('onnxruntime-node');
  return join(dirname(dirname(main)), 'bin', 'napi-v6', 'linux', 'x64');
}
