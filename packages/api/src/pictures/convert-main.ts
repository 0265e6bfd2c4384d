/** Entry of `generate -o x.jpg`: one picture of ours in another format, in a process of its own. */
import { readFile, writeFile } from 'node:fs/promises';
import { encodeAs, type Format, QUALITY_DEFAULT } from './pictures.js';

const [from = '', to = '', format = 'png'] = process.argv.slice(2);
try {
  await writeFile(to, await encodeAs(await readFile(from), { format: format as Format, quality: QUALITY_DEFAULT }));
} catch (error) {
  process.stderr.write((error as Error).message);
  process.exitCode = 1;
}
