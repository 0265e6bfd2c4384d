/** NVIDIA's own tool, which comes with its driver. */
import { execa } from 'execa';

/** Answers slower than this are no answers. */
const ANSWER_LIMIT_MS = 5000;

/**
 * Lines of an answer without units, about all cards or the one of this number; null where there is no such program, or
 * it fails.
 */
export async function askNvidia(query: string, card?: number): Promise<string[] | null> {
  const which = card === undefined ? [] : [`--id=${card}`];
  const { stdout, failed } = await execa('nvidia-smi', [query, ...which, '--format=csv,noheader,nounits'], {
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
