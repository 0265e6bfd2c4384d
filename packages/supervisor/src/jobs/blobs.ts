/** Files by name where all machines find them: in a folder that each of them has mounted, or in a bucket (S3). */
import { isBucketAddress } from '@qwen-supervisor/protocol/bucket-address';
import { FolderBlobs } from './folder-blobs.js';

/**
 * A key is `FOLDER/NAME`. Nothing rests on who is first: a name that could mean two things is not used. All of it
 * throws CodedError SHARED_FOLDER_UNREACHABLE.
 */
export interface Blobs {
  /** Makes what it needs of these folders, once. */
  make(folders: readonly string[]): Promise<void>;
  /** Whether they are there, and ours: a folder may not be mounted, a bucket be another's. */
  requireThere(folders: readonly string[]): Promise<void>;
  /** Whole or not at all, in place of what had this key. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  /** Null where there is none. */
  get(key: string): Promise<Buffer | null>;
  has(key: string): Promise<boolean>;
  /** Names in a folder, of those that begin so. */
  list(folder: string, beginning: string): Promise<string[]>;
  /** Milliseconds since each of these was written, by the clock of the store; without those that are gone. */
  ages(folder: string, names: readonly string[]): Promise<Map<string, number>>;
  /** Those that are not there are gone already. */
  remove(keys: readonly string[]): Promise<void>;
}

/** `where`: the setting `shared-folder`, not empty. @throws CodedError CONFIG_INVALID */
export async function openBlobs(where: string): Promise<Blobs> {
  if (!isBucketAddress(where)) return new FolderBlobs(where);
  // Most have none: its library is loaded where there is one.
  const { openBucket } = await import('./bucket-blobs.js');
  return openBucket(where, process.env);
}
