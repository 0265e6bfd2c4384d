import type { ChildStatus, SystemStatus } from '@qwen-supervisor/protocol/status';
import { ago, duration, exact, gigabytes } from '../../live/eta';
import { useNow } from '../../live/now';
import { useLive } from '../../live/store';
import { childName } from '../../words';

const TONES: Partial<Record<ChildStatus['state'], string>> = {
  ready: 'ok',
  busy: 'ok',
  failed: 'bad',
  'backing-off': 'warn',
  blocked: 'warn',
};

/** The processes: what each does, why, and since how many crashes. */
export function Tree({ status }: { status: SystemStatus }) {
  const { supervisor, machine, device, children } = status;
  const held = children.reduce((bytes, { rssBytes }) => bytes + (rssBytes ?? 0), 0);
  return (
    <section className="panel stack live" aria-label="Processes">
      <h2>Processes</h2>
      <ul className="tree">
        <li>
          <div className="row">
            <strong>supervisor</strong>
            <span className="ok">ready</span>
            <span className="muted small">
              process {supervisor.pid} · version {supervisor.version} · up {duration(supervisor.uptimeSeconds)}
            </span>
          </div>
          <ul>
            {children.map((child) => (
              <Child key={child.name} child={child} />
            ))}
          </ul>
        </li>
      </ul>
      <label className="field small">
        <span>
          Memory of the machine: {gigabytes(machine.memoryBytes - machine.availableBytes)} of{' '}
          {gigabytes(machine.memoryBytes)} in use, {gigabytes(held)} of that by these processes
          {device.memoryBytes !== null && `; the card has ${gigabytes(device.memoryBytes)}`}
        </span>
        <meter min={0} max={machine.memoryBytes} value={machine.memoryBytes - machine.availableBytes} />
      </label>
    </section>
  );
}

function Child({ child }: { child: ChildStatus }) {
  const nowMs = useNow();
  const ahead = useLive(({ state }) => state?.clockAheadMs ?? 0);
  const { name, state, pid, rssBytes, device, deviceBytes, load, restarts, reason, lastExit } = child;
  return (
    <li data-child={name}>
      <div className="row">
        <strong>{childName(name)}</strong>
        <span className={TONES[state] ?? 'muted'}>{state}</span>
        <span className="muted small">
          {device !== null && `${device.device} · `}
          {pid === null ? 'no process' : `process ${pid}`}
          {rssBytes === null ? '' : ` · ${gigabytes(rssBytes)}`}
          {deviceBytes > 0 && ` · ${gigabytes(deviceBytes)} of the card`}
        </span>
      </div>
      <p className="small">
        {reason}
        {load !== null && `, ${gigabytes(load.bytesDone)} of ${gigabytes(load.bytesTotal)}`}
      </p>
      {restarts > 0 && (
        <p className="small warn">
          {restarts === 1 ? 'One unplanned restart' : `${restarts} unplanned restarts`} since the supervisor was started
          {lastExit?.cause && (
            <>
              , the last{' '}
              <span title={exact(Date.parse(lastExit.at))}>{ago(Date.parse(lastExit.at), nowMs + ahead)}</span>:{' '}
              {lastExit.cause}
            </>
          )}
          .
        </p>
      )}
    </li>
  );
}
