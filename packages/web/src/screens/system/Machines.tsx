import type { MachineStatus } from '@qwen-supervisor/protocol/status';
import { asked } from '../../actions/jobs';
import { ago, exact } from '../../live/eta';
import { useNow } from '../../live/now';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { childName } from '../../words';

/** Those that draw from the same queue; nothing where it is this machine's own. */
export function Machines({ machines }: { machines: readonly MachineStatus[] }) {
  const isAdmin = useLive(({ state }) => state?.role === 'admin');
  if (machines.length === 0) return null;
  return (
    <section className="panel stack live" aria-label="Machines">
      <h2>Machines of this queue</h2>
      <ul className="stack">
        {machines.map((machine) => (
          <Machine key={machine.name} machine={machine} isAdmin={isAdmin} />
        ))}
      </ul>
    </section>
  );
}

function Machine({ machine, isAdmin }: { machine: MachineStatus; isAdmin: boolean }) {
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  const { name, state, isDrained, isHere, model, version, workers, seenAt } = machine;
  const verb = isDrained ? 'resume' : 'drain';
  const shown = state === 'up' && isDrained ? 'takes no more jobs' : state;
  const tone = state === 'silent' ? 'bad' : state === 'up' && !isDrained ? 'ok' : 'warn';
  return (
    <li data-machine={name}>
      <div className="row">
        <strong>{name}</strong>
        <span className={tone}>{shown}</span>
        <span className="muted small grow">
          {isHere && 'this one · '}
          {model} · version {version}
          {state !== 'up' && (
            <>
              {' · last heard of '}
              <span title={exact(Date.parse(seenAt))}>{ago(Date.parse(seenAt), nowMs + ahead)}</span>
            </>
          )}
        </span>
        <Button
          kind="quiet"
          reason={
            isAdmin ? null : `This needs an admin key. On the server: 'qwen-supervisor machines ${verb} ${name}'.`
          }
          onClick={() => void asked('POST', `api/v1/machines/${encodeURIComponent(name)}/${verb}`)}
        >
          {isDrained ? `Let ${name} take jobs again` : `Let ${name} take no more jobs`}
        </Button>
      </div>
      {state === 'up' && (
        <ul className="small muted">
          {workers.map((worker) => (
            <li key={worker.name}>
              {childName(worker.name)} on {worker.device}: {worker.job === null ? worker.reason : 'draws'}
            </li>
          ))}
        </ul>
      )}
    </li>
  );
}
