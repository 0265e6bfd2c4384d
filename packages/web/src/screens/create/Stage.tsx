import type { Job } from '@qwen-supervisor/protocol/job';
import { Link } from 'wouter';
import { cancel, finishNow } from '../../actions/jobs';
import { ROOT } from '../../api/http';
import { useNow } from '../../live/now';
import { runningSentence } from '../../live/sentence';
import type { Running } from '../../live/state';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { Sharpening } from '../../parts/Sharpening';
import { resumedSentence } from '../../words';

/** The picture: the one that is drawn, else the last one. */
export function Stage() {
  const running = useLive(({ state }) => state?.running ?? null);
  const last = useLive(({ state }) => state?.ended.find(({ images, trashedAt }) => images.length > 0 && !trashedAt));
  const waiting = useLive(({ state }) => state?.queue[0]);
  const shown = running?.job ?? last;
  return (
    <section className="stage" aria-label="Picture">
      {running ? (
        <Drawing running={running} before={last} />
      ) : (
        <>
          <div className="easel">
            {last ? <Finished job={last} /> : <p className="muted">No pictures yet. Describe one, and press Send.</p>}
          </div>
          {waiting && waiting.step > 0 && (
            <p className="small">
              Step {waiting.step} of {waiting.steps} is kept.
            </p>
          )}
        </>
      )}
      {shown && <Caption job={shown} />}
    </section>
  );
}

function Drawing({ running, before }: { running: Running; before: Job | undefined }) {
  const { job, preview } = running;
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  return (
    <>
      <div className="easel" data-testid="preview">
        {preview ? (
          <Sharpening
            isPreview
            src={`data:image/png;base64,${preview}`}
            alt={`Preview: ${job.prompt}`}
            width={job.width}
            height={job.height}
          />
        ) : before ? (
          <div className="veiled">
            <Finished job={before} />
          </div>
        ) : (
          <p className="muted">The first preview comes with the first step.</p>
        )}
      </div>
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
        <Button kind="danger" icon="close" onClick={() => void cancel(job.id)} title="Shift+X">
          Cancel
        </Button>
      </div>
      <progress value={job.progress} max={1} aria-label="Progress of the picture" />
    </>
  );
}

function Finished({ job }: { job: Job }) {
  return (
    <Link href={`/gallery/${job.id}`} className="finished">
      <Sharpening
        src={`${ROOT}api/v1/images/${job.images[0]?.id}`}
        alt={job.prompt}
        width={job.width}
        height={job.height}
      />
    </Link>
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
