import { useLive } from '../../live/store';
import { edit, useForm } from './form-store';

/** What is seldom changed. */
export function More() {
  const form = useForm(({ form }) => form);
  const model = useLive(({ state }) => state?.model);
  if (!model) return null;
  const { defaults, distilled, limits } = model;
  const steps = form.steps ?? defaults.numInferenceSteps;
  const scale = form.scale ?? defaults.trueCfgScale;
  return (
    <details>
      <summary>More: steps, guidance, what not to draw</summary>
      <div className="stack">
        <label className="field">
          <span>Not in the picture (negative prompt)</span>
          <textarea
            rows={2}
            maxLength={20_000}
            value={form.negativePrompt ?? defaults.negativePrompt.trim()}
            onChange={({ target }) => edit({ negativePrompt: target.value })}
          />
        </label>
        <div className="row sides">
          <label className="field">
            <span>Steps</span>
            <input
              type="number"
              min={1}
              max={limits.maxSteps}
              value={steps}
              onChange={({ target }) => edit({ steps: Math.round(Number(target.value)) })}
            />
          </label>
          <label className="field">
            <span>Guidance (CFG)</span>
            <input
              type="number"
              min={0}
              max={100}
              step={0.5}
              value={scale}
              disabled={distilled !== null}
              onChange={({ target }) => edit({ scale: Number(target.value) })}
            />
          </label>
        </div>
        {distilled && (
          <p className="muted small">
            This model is distilled: it draws in {distilled.steps.join(' or ')} steps, and without guidance.
          </p>
        )}
      </div>
    </details>
  );
}
