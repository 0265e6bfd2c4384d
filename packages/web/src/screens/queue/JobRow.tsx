import type { Job } from '@qwen-supervisor/protocol/job';
import type { ReactNode } from 'react';
import { Link } from 'wouter';
import { cancel, copyReport, finishNow, move, retry, useSettings } from '../../actions/jobs';
import { useUi } from '../../actions/ui';
import { ROOT } from '../../api/http';
import { ago, exact, timeLeft } from '../../live/eta';
import { useNow } from '../../live/now';
import { runningSentence } from '../../live/sentence';
import type { Running } from '../../live/state';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { placeOf, resumedSentence, STATUS_WORDS } from '../../words';

/** What a job is, in a line. */
function About({ job, picture, children }: { job: Job; picture: string | null; children: ReactNode }) {
  return (
    <>
      <div className="thumb">{picture && <img src={picture} alt="" loading="lazy" draggable={false} />}</div>
      <div className="grow about">
        <p className="prompt-line">{job.prompt}</p>
        <p className="small muted">
          {job.width}×{job.height} · {job.numInferenceSteps} steps · seed {job.seed}
          {job.source === 'api' ? '' : ` · from ${job.source}`}
        </p>
        {children}
      </div>
    </>
  );
}

/** Nothing before it is told. */
function on(job: Job): string {
  const place = placeOf(job);
  return place === null ? '' : ` · on ${place}`;
}

export function RunningRow({ running, isOneOfSeveral }: { running: Running; isOneOfSeveral: boolean }) {
  const { job, preview } = running;
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  return (
    <section aria-label="Running" className="job panel live">
      <About job={job} picture={preview && `data:image/png;base64,${preview}`}>
        <p className="small">
          {runningSentence(running, nowMs + ahead)}
          {(isOneOfSeveral || job.machine !== null) && on(job)}
        </p>
        <Resumed job={job} />
        <progress value={job.progress} max={1} aria-label="Progress of the picture" />
      </About>
      <div className="row acts">
        <Link href={`/jobs/${job.id}`} className="button quiet">
          Details
        </Link>
        <Button kind="quiet" onClick={() => void finishNow(job.id)}>
          Finish now
        </Button>
        <Button icon="close" kind="quiet" onClick={() => void cancel(job.id)}>
          Cancel
        </Button>
      </div>
    </section>
  );
}

const MOVES = [
  { to: 'first', words: 'Move to the front', isForward: true },
  { to: 'up', words: 'Move up', isForward: true },
  { to: 'down', words: 'Move down', isForward: false },
  { to: 'last', words: 'Move to the end', isForward: false },
] as const;

interface QueuedProps {
  job: Job;
  /** From 1. */
  place: number;
  last: number;
  isOver: boolean;
  onDragStart(): void;
  onDragOver(): void;
}

export function QueuedRow({ job, place, last, isOver, onDragStart, onDragOver }: QueuedProps) {
  const starts = timeLeft(job.eta, 0);
  const { id } = job;
  return (
    <li
      id={`queued-${id}`}
      className="job panel"
      data-testid="queued"
      data-over={isOver || undefined}
      draggable
      // biome-ignore lint/a11y/noNoninteractiveTabindex: keys move the row that has the focus
      tabIndex={0}
      aria-label={`Place ${place}: ${job.prompt.slice(0, 80)}`}
      onFocus={() => useUi.setState({ queueFocus: id })}
      onBlur={() => useUi.setState({ queueFocus: null })}
      onDragStart={onDragStart}
      onDragOver={onDragOver}
    >
      <About job={job} picture={job.initImage === null ? null : `${ROOT}api/v1/inputs/${job.initImage}`}>
        <p className="small">
          {place}. {starts === null ? STATUS_WORDS.queued : `there in ${starts}`}
          {job.step > 0 && `, goes on at step ${job.step}`}
        </p>
      </About>
      <div className="row acts">
        {MOVES.map(({ to, words, isForward }) => (
          <Button
            key={to}
            icon={to}
            iconOnly
            kind="quiet"
            reason={
              isForward && place === 1 ? 'It is the first.' : !isForward && place === last ? 'It is the last.' : null
            }
            onClick={() => void move(id, to)}
          >
            {words}
          </Button>
        ))}
        <Button icon="close" iconOnly kind="quiet" onClick={() => void cancel(id)}>
          Cancel
        </Button>
      </div>
    </li>
  );
}

export function EndedRow({ job }: { job: Job }) {
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  const [image] = job.images;
  const endedMs = Date.parse(job.finishedAt ?? job.createdAt);
  const picture = image && !job.trashedAt ? `${ROOT}api/v1/images/${image.id}/thumbnail` : null;
  return (
    <li
      className="job panel"
      data-status={job.status}
      data-testid="ended"
      onFocus={() => useUi.setState({ queueFocus: job.id })}
      onBlur={() => useUi.setState({ queueFocus: null })}
    >
      <About job={job} picture={picture}>
        <p className="small">
          {STATUS_WORDS[job.status]} <span title={exact(endedMs)}>{ago(endedMs, nowMs + ahead)}</span>
        </p>
        <Resumed job={job} />
        {job.error && (
          <p className="problem small">
            <code>{job.error.code}</code> {job.error.message}. <span className="muted">{job.error.hint}</span>
          </p>
        )}
      </About>
      <div className="row acts">
        <Link href={picture ? `/gallery/${job.id}` : `/jobs/${job.id}`} className="button quiet">
          {picture ? 'Show' : 'Details'}
        </Link>
        {job.status !== 'done' && (
          <Button icon="again" kind="quiet" onClick={() => void retry(job.id)}>
            Retry
          </Button>
        )}
        <Button icon="sliders" kind="quiet" onClick={() => useSettings(job, true)}>
          {job.status === 'failed' ? 'Change settings' : 'Use settings'}
        </Button>
        {job.error && (
          <Button icon="copy" kind="quiet" onClick={() => void copyReport(job)}>
            Copy report
          </Button>
        )}
      </div>
    </li>
  );
}

function Resumed({ job }: { job: Job }) {
  const resumed = resumedSentence(job);
  return resumed && <p className="small">{resumed}</p>;
}
