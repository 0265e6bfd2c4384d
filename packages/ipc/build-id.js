/**
 * Says of what sources the program was built: `dist/build-id`, the beginning of their SHA-256. Two builds of one clone
 * are of the same version, and an update under a running supervisor is to be noticed all the same. Of the sources, for
 * old files that lie beside what was built are not run.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const packages = join(import.meta.dirname, '..');
const hash = createHash('sha256');
for (const name of readdirSync(packages).sort()) {
  const root = join(packages, name, 'src');
  if (!existsSync(root)) continue;
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  for (const path of files.map((entry) => join(entry.parentPath, entry.name)).sort())
    hash.update(`\n${path.slice(packages.length)}\n`).update(readFileSync(path));
}
const folder = join(import.meta.dirname, 'dist');
mkdirSync(folder, { recursive: true });
// Under another name first: a child that is started now would read half of it.
writeFileSync(join(folder, 'build-id.tmp'), hash.digest('hex').slice(0, 12));
renameSync(join(folder, 'build-id.tmp'), join(folder, 'build-id'));
