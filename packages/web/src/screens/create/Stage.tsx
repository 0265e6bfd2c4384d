import type { Job } from '@qwen-supervisor/protocol/job';
import { Link } from 'wouter';
import { cancel, cancelAndSendAgain, finishNow } from '../../actions/jobs';
import { ROOT } from '../../api/http';
import { useNow } from '../../live/now';
import { runningSentence } from '../../live/sentence';
import type { Running } from '../../live/state';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { Sharpening } from '../../parts/Sharpening';
import { placeOf, resumedSentence } from '../../words';

/** The same each time, so that nothing is drawn anew for it. */
const NONE: readonly Running[] = [];

/** The picture: the one that was begun first of those that are drawn, else the last one. */
export function Stage() {
  const [running = null, ...others] = useLive(({ state }) => state?.running ?? NONE);
  const last = useLive(({ state }) => state?.ended.find(({ images, trashedAt }) => images.length > 0 && !trashedAt));
  const waiting = useLive(({ state }) => state?.queue[0]);
  const shown = running?.job ?? last;
  return (
    <section className="stage" aria-label="Picture">
      <Easel running={running} last={last} />
      {running && <Getting running={running} />}
      {!running && waiting && waiting.step > 0 && (
        <p className="small">
          Step {waiting.step} of {waiting.steps} is kept.
        </p>
      )}
      {shown && <Caption job={shown} />}
      {others.length > 0 && <Others running={others} />}
    </section>
  );
}

/** One place for preview and picture: the one before stays until the next can be seen. */
function Easel({ running, last }: { running: Running | null; last: Job | undefined }) {
  const preview = running?.preview ?? null;
  const isVeiled = running !== null && preview === null;
  const job = preview === null ? last : running?.job;
  if (!job) {
    return (
      <div className="easel">
        <p className="muted">
          {running ? 'The first preview comes with the first step.' : 'No pictures yet. Describe one, and press Send.'}
        </p>
      </div>
    );
  }
  const src = preview === null ? `${ROOT}api/v1/images/${job.images[0]?.id}` : `data:image/png;base64,${preview}`;
  return (
    <div className="easel" data-testid={running ? 'preview' : undefined} data-veiled={isVeiled || undefined}>
      <Link href={`/${running ? 'jobs' : 'gallery'}/${job.id}`} className={running ? 'drawn' : 'drawn finished'}>
        <Sharpening
          isPreview={preview !== null}
          src={src}
          alt={preview === null ? job.prompt : `Preview: ${job.prompt}`}
          width={job.width}
          height={job.height}
        />
      </Link>
    </div>
  );
}

function Getting({ running }: { running: Running }) {
  const { job } = running;
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  return (
    <>
      <div className="row live">
        <span className="grow" data-testid="running">
          {runningSentence(running, nowMs + ahead)}
        </span>
        <Button
          kind="quiet"
          onClick={() => void finishNow(job.id)}
          title="Ends it with the picture that it has reached"
        >
          Finish now
        </Button>
        <Button kind="quiet" onClick={() => cancelAndSendAgain(job)} title="The same with another seed, at once">
          Cancel, send again
        </Button>
        <Button kind="danger" icon="close" onClick={() => void cancel(job.id)} title="Shift+X">
          Cancel
        </Button>
      </div>
      <progress value={job.progress} max={1} aria-label="Progress of the picture" />
    </>
  );
}

/** What further workers draw. */
function Others({ running }: { running: readonly Running[] }) {
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  return (
    <ul className="others stack" aria-label="Also drawn now">
      {running.map((run) => (
        <li key={run.job.id} className="row small live">
          <div className="thumb">{run.preview && <img src={`data:image/png;base64,${run.preview}`} alt="" />}</div>
          <Link href={`/jobs/${run.job.id}`} className="grow prompt-line">
            {run.job.prompt}
          </Link>
          <span className="muted">
            {runningSentence(run, nowMs + ahead)}
            {placeOf(run.job) !== null && ` · on ${placeOf(run.job)}`}
          </span>
        </li>
      ))}
    </ul>
  );
}

function Caption({ job }: { job: Job }) {
  const resumed = resumedSentence(job);
  return (
    <div className="caption small muted">
      <p className="prompt">{job.prompt}</p>
      <p>
        {job.width}×{job.height} · {job.numInferenceSteps} steps · seed {job.seed}
      </p>
      {resumed && <p data-testid="resumed">{resumed}</p>}
    </div>
  );
}
