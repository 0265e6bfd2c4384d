/** NVIDIA's own tool, which comes with its driver. */
import { execa } from 'execa';

/** Answers slower than this are no answers. */
const ANSWER_LIMIT_MS = 5000;

/** Lines of an answer without units; null where there is no such program, or it fails. */
export async function askNvidia(query: string): Promise<string[] | null> {
  const { stdout, failed } = await execa('nvidia-smi', [query, '--format=csv,noheader,nounits'], {
    reject: false,
    timeout: ANSWER_LIMIT_MS,
    stdin: 'ignore',
  });
  if (failed) return null;
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
