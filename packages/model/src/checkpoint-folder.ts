/**
 * Where a checkpoint lies. People name its folder, the folder that the Hugging Face tools keep it in, or the model
 * itself. Reference: huggingface_hub, "Manage the huggingface_hub cache-system".
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { readRegular } from '@qwen-supervisor/files/read-regular';
import { CodedError } from '@qwen-supervisor/protocol/errors';
import { HEAD_BYTES, refuseForeign } from './foreign-files.js';
import { openForReading, readAt } from './safetensors.js';

/** Bytes of a file that holds a commit. */
const REF_MAX = 1024;

/** The folder with model_index.json. @throws CodedError MODEL_NOT_FOUND, MODEL_UNSUPPORTED, MODEL_NOT_DOWNLOADED */
export function checkpointFolder(path: string, env: NodeJS.ProcessEnv = process.env): string {
  const folder = resolve(path);
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found?.isDirectory())
    return existsSync(join(folder, 'model_index.json')) ? folder : (snapshotOf(folder) ?? folder);
  if (found) throw whatFile(folder);
  const name = `${basename(dirname(folder))}/${basename(folder)}`;
  const cached = join(cacheFolder(env), `models--${name.replace('/', '--')}`);
  const snapshot = statSync(cached, { throwIfNoEntry: false })?.isDirectory() ? snapshotOf(cached) : null;
  if (snapshot) return snapshot;
  throw new CodedError('MODEL_NOT_FOUND', `${folder}: there is no such folder, and no ${name} in ${cacheFolder(env)}`);
}

function cacheFolder({ HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME }: NodeJS.ProcessEnv): string {
  return HF_HUB_CACHE || join(HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'), 'hub');
}

/** The snapshot that `refs/main` names, or the only one; null where the folder is none of that cache. */
function snapshotOf(folder: string): string | null {
  const snapshots = join(folder, 'snapshots');
  if (!statSync(snapshots, { throwIfNoEntry: false })?.isDirectory()) return null;
  const ref = join(folder, 'refs', 'main');
  const known = readdirSync(snapshots);
  const commit = existsSync(ref) ? readRegular(ref, REF_MAX).bytes.toString('utf8').trim() : undefined;
  const name = commit !== undefined && known.includes(commit) ? commit : known.length === 1 ? known[0] : undefined;
  if (name !== undefined) return join(snapshots, name);
  const those = known.length === 0 ? 'none is there' : `there are ${known.join(', ')}`;
  throw new CodedError('MODEL_NOT_FOUND', `${snapshots}: which snapshot is meant is not known; ${those}`);
}

/** A file in place of a folder, by what it is. */
function whatFile(file: string): CodedError {
  const { fd, size } = openForReading(file);
  refuseForeign(file, readAt(fd, file, 0, Math.min(size, HEAD_BYTES)));
  if (!file.endsWith('.safetensors')) return new CodedError('MODEL_NOT_FOUND', `${file} is not a folder`);
  return new CodedError('MODEL_UNSUPPORTED', `${file}: is a single file, as ComfyUI takes them, and not a folder`);
}
