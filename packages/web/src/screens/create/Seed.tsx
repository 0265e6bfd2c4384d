import { useState } from 'react';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { Chip } from '../../parts/Chip';
import { newSeed } from '../../platform/ids';
import { PRESETS } from '../../words';
import { COUNT_MAX, presetOf } from './form';
import { edit, useForm } from './form-store';

/** How good, how many, and with which noise. */
export function Seed() {
  const form = useForm(({ form }) => form);
  const model = useLive(({ state }) => state?.model);
  if (!model) return null;
  const preset = presetOf(form, model);
  const isLocked = form.isSeedLocked;
  return (
    <>
      <fieldset>
        <legend>Quality</legend>
        <div className="chips">
          {Object.entries(model.presets).map(([name, { numInferenceSteps, trueCfgScale }]) => (
            <Chip
              key={name}
              group="preset"
              words={PRESETS[name] ?? name}
              title={`${numInferenceSteps} steps`}
              checked={preset === name}
              onChoose={() => edit({ steps: numInferenceSteps, scale: trueCfgScale })}
            />
          ))}
        </div>
      </fieldset>
      <div className="row seed">
        <label className="field grow">
          <span>Seed</span>
          <input
            inputMode="numeric"
            value={String(form.seed)}
            onChange={({ target }) => {
              const seed = Number(target.value.replace(/\D/g, ''));
              if (Number.isSafeInteger(seed)) edit({ seed, isSeedLocked: true });
            }}
          />
        </label>
        <Button icon="shuffle" iconOnly onClick={() => edit({ seed: newSeed() })}>
          Another seed
        </Button>
        <Button
          icon={isLocked ? 'lock' : 'unlock'}
          iconOnly
          pressed={isLocked}
          onClick={() => edit({ isSeedLocked: !isLocked })}
        >
          Keep this seed
        </Button>
        <Count />
      </div>
    </>
  );
}

/** What is typed stands until it is left: an empty field on the way to another number is no 1. */
function Count() {
  const count = useForm(({ form }) => form.count);
  const [text, setText] = useState<string | null>(null);
  return (
    <label className="field count">
      <span>Pictures</span>
      <input
        type="number"
        min={1}
        max={COUNT_MAX}
        value={text ?? count}
        onChange={({ target }) => {
          setText(target.value);
          const typed = Math.round(Number(target.value));
          if (typed >= 1) edit({ count: Math.min(COUNT_MAX, typed) });
        }}
        onBlur={() => setText(null)}
      />
    </label>
  );
}
