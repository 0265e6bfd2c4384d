import { useLive } from '../../live/store';
import { Chip } from '../../parts/Chip';
import { SIDE, sizeOf } from './form';
import { edit, useForm } from './form-store';

/** The model's shapes, and any other. */
export function Size() {
  const form = useForm(({ form }) => form);
  const model = useLive(({ state }) => state?.model);
  if (!model) return null;
  const { width, height } = sizeOf(form, model);
  const known = Object.entries(model.sizes);
  const ratio = known.find(([, [w, h]]) => w === width && h === height)?.[0] ?? 'free';
  const side = (text: string) => Math.round(Number(text));
  return (
    <fieldset>
      <legend>Shape</legend>
      <div className="chips">
        {known.map(([name, [w, h]]) => (
          <Chip
            key={name}
            group="ratio"
            words={name}
            title={`${w}×${h}`}
            checked={ratio === name}
            onChoose={() => edit({ size: { width: w, height: h } })}
          />
        ))}
        <Chip
          group="ratio"
          words="Free"
          checked={ratio === 'free'}
          onChoose={() => edit({ size: { width: width + SIDE.step, height } })}
        />
      </div>
      <div className="row sides">
        <label className="field">
          <span>Width</span>
          <input
            type="number"
            {...SIDE}
            value={width}
            onChange={({ target }) => edit({ size: { width: side(target.value), height } })}
          />
        </label>
        <label className="field">
          <span>Height</span>
          <input
            type="number"
            {...SIDE}
            value={height}
            onChange={({ target }) => edit({ size: { width, height: side(target.value) } })}
          />
        </label>
      </div>
    </fieldset>
  );
}
