import type { SystemStatus } from '@qwen-supervisor/protocol/status';
import { useQuery } from '@tanstack/react-query';
import { asked, cancelScope } from '../../actions/jobs';
import { call } from '../../api/http';
import { clock, duration, gigabytes } from '../../live/eta';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { childName } from '../../words';
import { Charts } from './Charts';
import { Load } from './Load';
import { Log } from './Log';
import { Machines } from './Machines';
import { Timeline } from './Timeline';
import { Tree } from './Tree';
import './system.css';

/** Numbers that no event tells, such as memory. */
const EVERY_MS = 2000;

export function System() {
  const live = useLive(({ state }) => state?.status);
  const connection = useLive(({ connection }) => connection);
  const asOfMs = useLive(({ asOfMs }) => asOfMs);
  const asked = useQuery({
    queryKey: ['status'],
    queryFn: () => call<SystemStatus>('GET', 'api/v1/status'),
    refetchInterval: EVERY_MS,
    staleTime: 0,
  });
  if (!live) return null;
  const status = merged(live, asked.data);
  return (
    <main className="screen system" id="main">
      <h1 className="visually-hidden">System</h1>
      {connection.kind === 'lost' && <p className="warn as-of">What follows is as of {clock(asOfMs)}.</p>}
      <Tree status={status} />
      <Machines machines={status.machines} />
      <Load />
      <Model status={status} />
      <Actions status={status} />
      <Charts />
      <Timeline />
      <Log />
    </main>
  );
}

/** States come as events, at once; what is measured comes by asking. */
function merged(live: SystemStatus, measured: SystemStatus | undefined): SystemStatus {
  if (!measured) return live;
  const children = live.children.map((child) => {
    const { rssBytes, deviceBytes, device, lastExit } =
      measured.children.find(({ name }) => name === child.name) ?? child;
    return { ...child, rssBytes, deviceBytes, device, lastExit };
  });
  const { supervisor, machine, device } = measured;
  return { ...live, supervisor, machine, device, children };
}

function Model({ status }: { status: SystemStatus }) {
  const model = useLive(({ state }) => state?.model);
  if (!model) return null;
  const { plan } = model;
  const { device } = status;
  const pixels = (count: number) => `${(count / 1e6).toFixed(2)} megapixels`;
  const facts: [string, string][] = [
    ['Model', `${model.id}, ${status.model.state}`],
    ['Loaded in', status.model.loadSeconds === null ? 'not yet' : duration(status.model.loadSeconds)],
    ...devicesOf(status),
    [
      status.children.length > 2 ? 'Memory that each needs' : 'Memory it needs',
      `${gigabytes(plan.neededBytes)} of ${gigabytes(plan.availableBytes)} that were free`,
    ],
    ...(plan.cardBytes === null || status.children.length > 2
      ? []
      : [['On the card', `${gigabytes(plan.cardBytes)} of ${gigabytes(device.memoryBytes ?? 0)}`] as [string, string]]),
    ['Largest picture', pixels(model.limits.maxPixels)],
    [
      'All parts stay in memory',
      plan.residentPixels === 0 ? 'no: one after the other' : `up to ${pixels(plan.residentPixels)}`,
    ],
  ];
  return (
    <section className="panel stack" aria-label="Model and plan">
      <h2>Model and plan</h2>
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt className="muted small">{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** Of several workers each is named. */
function devicesOf({ children, device }: SystemStatus): [string, string][] {
  const workers = children.filter(({ name }) => name !== 'api');
  if (workers.length === 1)
    return [
      ['Computes on', `${device.device}: ${device.name}`],
      ['Because', device.reason],
    ];
  return workers.map((worker) => [
    `The ${childName(worker.name)} computes on`,
    `${worker.device?.device}: ${worker.device?.name}; ${worker.device?.reason}`,
  ]);
}

function Actions({ status }: { status: SystemStatus }) {
  const role = useLive(({ state }) => state?.role);
  const isRunning = useLive(({ state }) => state !== null && state.running.length > 0);
  const { model, queue, children } = status;
  const noAdmin =
    role === 'admin' ? null : "This needs an admin key. On the server: 'qwen-supervisor restart inference'.";
  const path = `api/v1/models/${encodeURIComponent(model.id)}`;
  return (
    <section className="panel stack" aria-label="Actions">
      <h2>Actions</h2>
      <div className="row">
        {children.map((child) => (
          <Button
            key={child.name}
            reason={noAdmin}
            onClick={() => void asked('POST', 'api/v1/supervisor/restart', { child: child.name })}
          >
            {`Restart ${child.name === 'api' ? 'API' : childName(child.name)}`}
          </Button>
        ))}
        {model.state === 'unloaded' ? (
          <Button onClick={() => void asked('POST', `${path}/load`)}>Load the model</Button>
        ) : (
          <Button
            reason={isRunning || queue.queued > 0 ? 'It is in use.' : null}
            onClick={() => void asked('POST', `${path}/unload`)}
          >
            Unload the model
          </Button>
        )}
        <Button
          reason={queue.queued === 0 ? 'Nothing is queued.' : null}
          onClick={() => void cancelScope({ scope: 'queued' })}
        >
          {`Cancel ${queue.queued} queued`}
        </Button>
      </div>
      {noAdmin !== null && <p className="muted small">{noAdmin}</p>}
    </section>
  );
}
