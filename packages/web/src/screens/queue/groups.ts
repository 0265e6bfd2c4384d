/** Neighbours that were sent together. Pure. */
import type { Job } from '@qwen-supervisor/protocol/job';

export function groupsOf(queue: readonly Job[]): { group: string | null; jobs: Job[] }[] {
  const groups: { group: string | null; jobs: Job[] }[] = [];
  for (const job of queue) {
    const last = groups.at(-1);
    if (last && job.group !== null && last.group === job.group) last.jobs.push(job);
    else groups.push({ group: job.group, jobs: [job] });
  }
  // One that is left of a group, or parted from it, is one.
  const seen = new Set<string>();
  return groups.map(({ group, jobs }) => {
    const isGroup = group !== null && jobs.length > 1 && !seen.has(group);
    if (isGroup) seen.add(group);
    return { group: isGroup ? group : null, jobs };
  });
}
