import type { Crash } from '@qwen-supervisor/protocol/status';
import { Link } from 'wouter';
import { ago, duration, exact } from '../../live/eta';
import { useNow } from '../../live/now';
import { useLive } from '../../live/store';
import { childName } from '../../words';

const SPAN_MS = 7 * 86_400_000;

/** Unplanned ends of the last days, each with its cause and its last lines. Those that were asked for do not count. */
export function Timeline() {
  const crashes = useLive(({ state }) => state?.crashes ?? []);
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  const nowMs = useNow() + ahead;
  const recent = crashes.filter(({ at }) => nowMs - Date.parse(at) < SPAN_MS);
  return (
    <section className="panel stack" aria-label="Restart history">
      <h2>
        {recent.length === 0
          ? 'No unplanned restart in 7 days'
          : `${recent.length} unplanned ${recent.length === 1 ? 'restart' : 'restarts'} in 7 days`}
      </h2>
      {recent.length > 0 && (
        <div className="timeline" aria-hidden="true">
          {recent.map(({ at, child }) => (
            <span
              key={`${at}-${child}`}
              style={{ left: `${Math.max(0, 100 - ((nowMs - Date.parse(at)) / SPAN_MS) * 100)}%` }}
            >
              ✕
            </span>
          ))}
        </div>
      )}
      <ul className="stack">
        {crashes.map((crash) => (
          <Incident key={`${crash.at}-${crash.child}`} crash={crash} nowMs={nowMs} />
        ))}
      </ul>
    </section>
  );
}

function Incident({ crash, nowMs }: { crash: Crash; nowMs: number }) {
  const { at, child, cause, reason, during, uptimeSeconds, job, code, signal, tail, threads } = crash;
  const how = signal ?? (code === null ? '' : `exit code ${code}`);
  return (
    <li>
      <details>
        <summary>
          <span>
            <span title={exact(Date.parse(at))}>{ago(Date.parse(at), nowMs)}</span>: {childName(child)}, {cause}
            {how && ` (${how})`}
          </span>
        </summary>
        <p>{reason}</p>
        <p className="muted small">
          While {during}, after {duration(uptimeSeconds)}
          {job && (
            <>
              , at step {job.step} of <Link href={`/jobs/${job.id}`}>a picture</Link>
            </>
          )}
          .
        </p>
        {[...threads, ...tail].length > 0 && <pre className="lines">{[...threads, ...tail].join('\n')}</pre>}
      </details>
    </li>
  );
}
