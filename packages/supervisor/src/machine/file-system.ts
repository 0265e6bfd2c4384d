/** What kind of file system a folder is on. */
import { statfsSync } from 'node:fs';

/** Those that are known to be slow to lock, or never to. Reference: statfs(2). */
const LOCK_BADLY: Record<number, string> = {
  26985: 'NFS',
  20859: 'SMB',
  4283649346: 'CIFS',
  4266872130: 'SMB2',
  16914839: '9p',
  1702057286: 'FUSE',
  19780: 'FAT',
  538032816: 'exFAT',
};

export function fileSystemOf(folder: string): { name: string; locksBadly: boolean } {
  const { type } = statfsSync(folder);
  const name = LOCK_BADLY[type >>> 0];
  return { name: name ?? `type 0x${(type >>> 0).toString(16)}`, locksBadly: name !== undefined };
}
