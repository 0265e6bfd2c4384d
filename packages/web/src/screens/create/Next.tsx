import { Link } from 'wouter';
import { timeLeft } from '../../live/eta';
import { useLive } from '../../live/store';
import { pictures } from '../../words';

const SHOWN = 12;
const NONE: never[] = [];

/** What waits, beside the picture where there is room. */
export function Next() {
  const queue = useLive(({ state }) => state?.queue ?? NONE);
  const queued = useLive(({ state }) => state?.status.queue.queued ?? 0);
  if (queued === 0) return null;
  return (
    <aside className="next stack" aria-label="Next">
      <h2>{pictures(queued)} queued</h2>
      <ol className="stack">
        {queue.slice(0, SHOWN).map((job) => (
          <li key={job.id} className="panel">
            <p className="prompt-line">{job.prompt}</p>
            <p className="small muted">{job.eta ? `there in ${timeLeft(job.eta, 0)}` : 'queued'}</p>
          </li>
        ))}
      </ol>
      <Link href="/queue">All of the queue</Link>
    </aside>
  );
}
