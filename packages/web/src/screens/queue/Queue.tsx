import type { Job } from '@qwen-supervisor/protocol/job';
import { type DragEvent, type KeyboardEvent, useState } from 'react';
import { cancel, cancelScope, moveTo } from '../../actions/jobs';
import { useUi } from '../../actions/ui';
import type { Running } from '../../live/state';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { go } from '../../platform/place';
import { pictures } from '../../words';
import { groupsOf } from './groups';
import { EndedRow, QueuedRow, RunningRow } from './JobRow';
import './queue.css';

const ENDED_SHOWN = 50;
/** The same each time, so that nothing is drawn anew for it. */
const NONE: readonly Running[] = [];

export function Queue() {
  const running = useLive(({ state }) => state?.running ?? NONE);
  const queue = useLive(({ state }) => state?.queue ?? []);
  const ended = useLive(({ state }) => state?.ended ?? []);
  const queued = useLive(({ state }) => state?.status.queue.queued ?? 0);
  const failed = ended.filter(({ status }) => status === 'failed');
  const others = ended.filter(({ status }) => status !== 'failed').slice(0, ENDED_SHOWN);
  return (
    <main className="screen queue stack" id="main">
      <h1 className="visually-hidden">Queue</h1>
      <div className="row">
        <h2 className="grow">{queued === 0 ? 'Nothing is queued' : `${pictures(queued)} queued`}</h2>
        {running.length > 0 && (
          <Button onClick={() => void cancelScope({ scope: 'running' })}>
            {running.length === 1 ? 'Cancel running' : `Cancel ${running.length} running`}
          </Button>
        )}
        {queued > 0 && (
          <Button onClick={() => void cancelScope({ scope: 'queued' })}>{`Cancel ${queued} queued`}</Button>
        )}
      </div>
      {running.map((run) => (
        <RunningRow key={run.job.id} running={run} isOneOfSeveral={running.length > 1} />
      ))}
      <Waiting queue={queue} />
      {queued > queue.length && <p className="muted">and {pictures(queued - queue.length)} more after these</p>}
      {failed.length > 0 && (
        <section aria-label="Failed" className="stack">
          <h2>Failed</h2>
          <ul className="stack">
            {failed.map((job) => (
              <EndedRow key={job.id} job={job} />
            ))}
          </ul>
        </section>
      )}
      {others.length > 0 && (
        <section aria-label="Ended" className="stack">
          <h2>Ended</h2>
          <ul className="stack">
            {others.map((job) => (
              <EndedRow key={job.id} job={job} />
            ))}
          </ul>
        </section>
      )}
    </main>
  );
}

/** Those that wait: moved by buttons, keys, or by hand. */
function Waiting({ queue }: { queue: readonly Job[] }) {
  const [dragged, setDragged] = useState<string | null>(null);
  const [over, setOver] = useState<string | null>(null);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    const job = queue.find(({ id }) => id === dragged);
    const others = queue.filter(({ id }) => id !== dragged);
    const from = queue.findIndex(({ id }) => id === dragged);
    const at = queue.findIndex(({ id }) => id === over);
    // Downwards it takes the place after the one that it is dropped on: that one moves up.
    if (job && over !== null && over !== dragged)
      void moveTo(job, others, from < at ? at : others.findIndex(({ id }) => id === over));
    setDragged(null);
    setOver(null);
  };
  const walk = (event: KeyboardEvent) => {
    const { queueFocus } = useUi.getState();
    // Of a row; its buttons do what they say.
    if (event.key === 'Enter' && event.target instanceof HTMLLIElement && queueFocus) return go(`/jobs/${queueFocus}`);
    const by = event.altKey ? undefined : { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = queue.findIndex(({ id }) => id === queueFocus);
    const next = by === undefined ? undefined : queue[at + by];
    if (!next) return;
    event.preventDefault();
    document.getElementById(`queued-${next.id}`)?.focus();
  };
  return (
    <ul
      className="stack waiting"
      aria-label="Queued pictures"
      onKeyDown={walk}
      onDrop={drop}
      onDragOver={(event) => event.preventDefault()}
    >
      {groupsOf(queue).map(({ group, jobs }) => (
        <li key={group ?? jobs[0]?.id} className={group === null ? undefined : 'group stack'}>
          {group !== null && (
            <div className="row">
              <h3 className="grow">{`“${jobs[0]?.prompt.slice(0, 60)}”, ${pictures(jobs.length)} together`}</h3>
              <Button kind="quiet" onClick={() => void Promise.all(jobs.map(({ id }) => cancel(id)))}>
                {`Cancel these ${jobs.length}`}
              </Button>
            </div>
          )}
          <ul className="stack">
            {jobs.map((job) => (
              <QueuedRow
                key={job.id}
                job={job}
                place={queue.indexOf(job) + 1}
                last={queue.length}
                isOver={over === job.id && dragged !== job.id}
                onDragStart={() => setDragged(job.id)}
                onDragOver={() => setOver(job.id)}
              />
            ))}
          </ul>
        </li>
      ))}
    </ul>
  );
}
