import type { Job } from '@qwen-supervisor/protocol/job';
import { ROOT } from '../../api/http';
import { exact } from '../../live/eta';
import { resumedSentence } from '../../words';

export function Details({ job }: { job: Job }) {
  const small = Math.max(job.width, job.height) <= 512 ? ', shown larger than it is' : '';
  const facts: [string, string | null][] = [
    ['Not in it', job.negativePrompt.trim() || null],
    ['Size', `${job.width}×${job.height}${small}`],
    [
      'Steps',
      job.step < job.steps && job.status === 'done'
        ? `${job.step} of ${job.steps}, ended early`
        : String(job.numInferenceSteps),
    ],
    ['Guidance', String(job.trueCfgScale)],
    ['Seed', String(job.seed)],
    ['Drawn anew', job.strength === null ? null : `${Math.round(job.strength * 100)} %`],
    ['Model', job.model],
    ['Device', job.devices.join(', then ') || null],
    ['Machine', job.machine],
    ['Attempts', job.attempts > 1 ? String(job.attempts) : null],
    ['Asked for', exact(Date.parse(job.createdAt))],
    ['Done', job.finishedAt === null ? null : exact(Date.parse(job.finishedAt))],
    ['Id', job.id],
  ];
  const resumed = resumedSentence(job);
  return (
    <section className="details panel stack" aria-label="Details">
      <p className="prompt">{job.prompt}</p>
      {resumed && <p>{resumed}</p>}
      {job.error && (
        <p className="problem">
          <code>{job.error.code}</code> {job.error.message}. <span className="muted">{job.error.hint}</span>
        </p>
      )}
      <dl>
        {facts.map(([name, value]) =>
          value === null ? null : (
            <div key={name}>
              <dt className="muted small">{name}</dt>
              <dd>{value}</dd>
            </div>
          ),
        )}
      </dl>
      {job.initImage !== null && (
        <figure>
          <img src={`${ROOT}api/v1/inputs/${job.initImage}`} alt="The one that was drawn over" className="source" />
          <figcaption className="muted small">was drawn over</figcaption>
        </figure>
      )}
    </section>
  );
}
