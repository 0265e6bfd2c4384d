import { useRef } from 'react';
import { Button } from '../../parts/Button';
import { edit, useForm } from './form-store';
import { takePicture } from './take-picture';

/** A picture to draw over: by drop, paste or file. */
export function InputImage() {
  const { source, strength } = useForm(({ form }) => form);
  const problem = useForm(({ problem }) => problem);
  const file = useRef<HTMLInputElement>(null);
  return (
    <fieldset className="input-image stack">
      <legend>Draw over a picture</legend>
      {source ? (
        <div className="row">
          <img src={source.shown} alt="The one that is drawn over" />
          <label className="field grow">
            <span>How much is drawn anew: {Math.round(strength * 100)} %</span>
            <input
              type="range"
              min={0.05}
              max={1}
              step={0.05}
              value={strength}
              onChange={({ target }) => edit({ strength: Number(target.value) })}
            />
          </label>
          <Button icon="close" iconOnly onClick={() => edit({ source: null })}>
            Without this picture
          </Button>
        </div>
      ) : (
        <div className="row">
          <Button icon="image" onClick={() => file.current?.click()}>
            Choose a file
          </Button>
          <span className="muted small">or drop or paste one; a PNG with settings restores them</span>
        </div>
      )}
      <input
        ref={file}
        type="file"
        accept="image/*"
        className="visually-hidden"
        tabIndex={-1}
        aria-label="Picture to draw over"
        onChange={({ target }) => {
          const [picture] = target.files ?? [];
          if (picture) void takePicture(picture, 'input');
          target.value = '';
        }}
      />
      {problem !== null && (
        <p className="bad small" role="alert">
          {problem}
        </p>
      )}
    </fieldset>
  );
}
