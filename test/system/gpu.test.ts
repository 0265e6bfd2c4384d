/** CUDA's libraries: installed from small packages of the same shape, killed half-way, told apart where they fail. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { withFolderLock } from '@qwen-supervisor/files/folder-lock';
import { runtimeFolder } from '@qwen-supervisor/supervisor/devices/cuda-runtime';
import type { Wheel } from '@qwen-supervisor/supervisor/devices/cuda-wheels';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { REPOSITORY, temporaryFolder } from '../fixture-files.js';
import { cli } from './product.js';

/** A ZIP file whose members are not compressed. Reference: APPNOTE.TXT, 4.3. */
function zip(members: Record<string, Buffer>): Buffer {
  const [files, directory]: [Buffer[], Buffer[]] = [[], []];
  let offset = 0;
  for (const [name, bytes] of Object.entries(members)) {
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt32LE(crc32(bytes), 10);
    fields.writeUInt32LE(bytes.length, 14);
    fields.writeUInt32LE(bytes.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), fields, Buffer.from(name), bytes]);
    directory.push(Buffer.from('PK\x01\x02\x14\x00'), fields, place, Buffer.from(name));
    files.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06');
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...files, central, end]);
}

const LIBRARIES = {
  'nvidia/lib/libone.so.1': Buffer.alloc(300_000, 1),
  'nvidia/lib/libtwo.so.2': Buffer.alloc(500_000, 2),
};

/** A folder of packages, and the table that describes them. */
function packages(change: Partial<Wheel> = {}): { from: string; wheels: Wheel[] } {
  const from = temporaryFolder();
  const wheels = Object.entries(LIBRARIES).map(([member, content], i): Wheel => {
    const bytes = zip({ 'nvidia/METADATA': Buffer.from('Name: x'), [member]: content });
    const file = `package_${i}-1.0-py3-none-linux_x86_64.whl`;
    writeFileSync(join(from, file), bytes);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const wheel = { name: `package-${i}`, version: '1.0', file, sha256, bytes: bytes.length };
    return { ...wheel, members: { [member]: content.length }, ...(i === 1 ? change : {}) };
  });
  return { from, wheels };
}

const SCRIPT = join(REPOSITORY, 'test/fixtures/children/installs-cuda.mjs');
const installing = (dataDir: string, { from, wheels }: ReturnType<typeof packages>, env = {}) =>
  execa(process.execPath, [SCRIPT, dataDir, from, JSON.stringify(wheels)], { reject: false, env });
const install = async (dataDir: string, given = packages(), env = {}) => {
  const { stdout } = await installing(dataDir, given, env);
  return JSON.parse(stdout.split('\n').at(-1) ?? '') as { files?: object; code?: string; message?: string };
};
const installed = async (dataDir: string) =>
  JSON.parse((await cli(['gpu', 'status', '--json', '--data-dir', dataDir])).stdout).installed;

describe('gpu install', () => {
  test("unpacks the libraries and nothing else, beside ONNX Runtime's own, and can be removed", async () => {
    const dataDir = temporaryFolder();
    await install(dataDir);
    const lib = join(runtimeFolder(dataDir), 'lib');
    expect(readdirSync(lib).sort()).toEqual(['libone.so.1', 'libonnxruntime.so.1', 'libtwo.so.2']);
    for (const [member, content] of Object.entries(LIBRARIES))
      expect(readFileSync(join(lib, member.slice('nvidia/lib/'.length))).equals(content)).toBe(true);
    expect(await installed(dataDir)).toMatchObject({ packages: [{ name: 'package-0' }, { name: 'package-1' }] });
    rmSync(join(lib, 'libtwo.so.2'));
    expect(await installed(dataDir), 'a file is gone').toBeNull();
    await install(dataDir);
    expect(await installed(dataDir)).not.toBeNull();
    expect((await cli(['gpu', 'remove', '--data-dir', dataDir])).stdout).toBe('removed\n');
    expect(existsSync(runtimeFolder(dataDir))).toBe(false);
  });

  test.each<[string, Partial<Wheel>, string, RegExp]>([
    ['of another content', { sha256: '0'.repeat(64) }, 'WHEEL_INVALID', /has the SHA-256 [0-9a-f]{64}, and should/],
    [
      'that lacks a library',
      { members: { 'nvidia/lib/libthree.so': 9 } },
      'WHEEL_INVALID',
      /has no nvidia\/lib\/libthree/,
    ],
    ['that is not there', { file: 'package_9.whl' }, 'WHEEL_MISSING', /package_9\.whl: is not there/],
    ['that needs more room than there is', { members: { x: 1e15 } }, 'DISK_FULL', /take 1000000\.\d GB/],
  ])('with a package %s leaves nothing that could be taken for installed', async (_, change, code, message) => {
    const dataDir = temporaryFolder();
    expect(await install(dataDir, packages(change))).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(await installed(dataDir)).toBeNull();
    expect(await install(dataDir)).toHaveProperty('files');
  });

  test('that is killed half-way is done anew', async () => {
    const dataDir = temporaryFolder();
    for (const line of ['checking package_0', 'unpacking package-0', 'unpacking package-1']) {
      const child = installing(dataDir, packages(), { PAUSE_AT: line });
      child.stderr?.on('data', (text: Buffer) => text.toString().includes(line) && child.kill('SIGKILL'));
      expect(await child).toMatchObject({ signal: 'SIGKILL' });
      expect(await installed(dataDir)).toBeNull();
    }
    expect(await install(dataDir)).toHaveProperty('files');
    expect(readdirSync(runtimeFolder(dataDir)).sort()).toEqual(['installed.json', 'lib', 'lock.db']);
  });

  test('while another one runs says so', async () => {
    const dataDir = temporaryFolder();
    mkdirSync(runtimeFolder(dataDir), { recursive: true });
    const second = () => install(dataDir);
    const answer = await withFolderLock(runtimeFolder(dataDir), () => new Error('busy'), second);
    expect(answer).toMatchObject({ code: 'GPU_INSTALL_RUNNING' });
  });

  test('without a folder asks pip for exactly these files, and says what to do where there is none', async () => {
    const [dataDir, empty] = [temporaryFolder(), temporaryFolder()];
    const { stderr, code } = await cli(['gpu', 'install', '--data-dir', dataDir], { PATH: empty });
    expect([code, stderr]).toEqual([66, expect.stringContaining('there is no python3 that could download them')]);
    expect(stderr).toContain('gpu install --from DIR');
    const pip = join(empty, 'python3');
    writeFileSync(pip, '#!/bin/sh\nfor last; do :; done\necho "$@" > "$OUT"; /bin/cat "$last" >> "$OUT"; exit 1\n', {
      mode: 0o755,
    });
    const out = join(empty, 'out');
    await cli(['gpu', 'install', '--data-dir', dataDir], { PATH: empty, OUT: out });
    const asked = readFileSync(out, 'utf8');
    expect(asked).toContain('--require-hashes');
    expect(asked).toMatch(/^onnxruntime-gpu==1\.30\.0 --hash=sha256:[0-9a-f]{64}$/m);
  });
});

/** With the real packages, 1.3 GB: CUDA_WHEELS names their folder. */
test.skipIf(!process.env.CUDA_WHEELS)('the real libraries are loaded, up to the driver that is not there', async () => {
  const [dataDir, folder] = [temporaryFolder(), temporaryFolder()];
  const status = async (env = {}) => {
    const { stdout } = await cli(['gpu', 'status', '--json', '--data-dir', dataDir], env);
    return JSON.parse(stdout).problem as { code: string; message: string };
  };
  const from = process.env.CUDA_WHEELS as string;
  expect(await cli(['gpu', 'install', '--from', from, '--data-dir', dataDir])).toMatchObject({ code: 93 });
  expect(await status()).toMatchObject({ code: 'DEVICE_DRIVER_UNUSABLE', message: expect.stringContaining('libcuda') });
  // The only symbol of the driver that is linked to, rather than looked up.
  writeFileSync(join(folder, 'stub.c'), 'int cuTensorMapEncodeTiled(void){return 100;}');
  await execa('cc', ['-shared', '-o', join(folder, 'libcuda.so.1'), join(folder, 'stub.c')]);
  expect(await status({ LD_LIBRARY_PATH: folder })).toMatchObject({
    code: 'DEVICE_DRIVER_OLD',
    message: expect.stringContaining('CUDA failure 35'),
  });
});
