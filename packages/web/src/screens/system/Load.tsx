import { MODEL_COMPONENTS } from '@qwen-supervisor/protocol/status';
import { gigabytes } from '../../live/eta';
import { useNow } from '../../live/now';
import { sentenceOf } from '../../live/sentence';
import { useLive } from '../../live/store';
import { COMPONENTS } from '../../words';

/** The load, by its parts; nothing while none goes on. */
export function Load() {
  const state = useLive(({ state }) => state);
  const connection = useLive(({ connection }) => connection);
  const nowMs = useNow();
  if (state?.status.model.state !== 'loading') return null;
  const { component, bytesDone, bytesTotal } = state.status.model;
  const at = component === null ? -1 : MODEL_COMPONENTS.indexOf(component);
  return (
    <section className="panel stack live" aria-label="Load">
      <h2>Loading</h2>
      <p>{sentenceOf(state, connection, nowMs).text}</p>
      <progress value={bytesDone} max={bytesTotal} aria-label="Bytes of the model" />
      <p className="muted small">
        {gigabytes(bytesDone)} of {gigabytes(bytesTotal)}
      </p>
      <ol className="row small">
        {MODEL_COMPONENTS.map((name, i) => (
          <li
            key={name}
            aria-current={i === at ? 'step' : undefined}
            className={i < at ? 'ok' : i === at ? '' : 'muted'}
          >
            {COMPONENTS[name]}
            {i < at ? ' ✓' : i === at ? ' …' : ''}
          </li>
        ))}
      </ol>
    </section>
  );
}
