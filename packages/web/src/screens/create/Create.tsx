import { type ClipboardEvent, type DragEvent, useState } from 'react';
import { sendForm } from '../../actions/jobs';
import { discard, sendAgain, useOutbox } from '../../live/outbox';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { pictures } from '../../words';
import { whyNot } from './form';
import { startOver, useForm } from './form-store';
import { InputImage } from './InputImage';
import { More } from './More';
import { Next } from './Next';
import { Prompt } from './Prompt';
import { Recent } from './Recent';
import { Seed } from './Seed';
import { Size } from './Size';
import { Stage } from './Stage';
import { takePicture } from './take-picture';
import './create.css';

export function Create() {
  const [isOver, setIsOver] = useState(false);
  const onDrop = (event: DragEvent) => {
    setIsOver(false);
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    void takePicture(file, 'settings');
  };
  const onPaste = (event: ClipboardEvent) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    void takePicture(file, 'input');
  };
  return (
    <main
      className="screen create"
      id="main"
      data-over={isOver || undefined}
      onDragOver={(event) => {
        if (!event.dataTransfer.types.includes('Files')) return;
        event.preventDefault();
        setIsOver(true);
      }}
      onDragLeave={() => setIsOver(false)}
      onDrop={onDrop}
      onPaste={onPaste}
    >
      <h1 className="visually-hidden">Create</h1>
      <form className="create-form stack" onSubmit={(event) => event.preventDefault()}>
        <Prompt />
        <Size />
        <Seed />
        <More />
        <InputImage />
        <Send />
        <Unsent />
      </form>
      <Stage />
      <Recent />
      <Next />
    </main>
  );
}

function Send() {
  const form = useForm(({ form }) => form);
  const model = useLive(({ state }) => state?.model);
  const reason = model ? whyNot(form, model) : 'The server has not answered yet.';
  return (
    <div className="send row">
      <div className="grow">
        <Button kind="primary" reason={reason} onClick={() => sendForm()} title="Ctrl+Enter">
          {form.count === 1 ? 'Send' : `Send ${pictures(form.count)}`}
        </Button>
      </div>
      <Button kind="quiet" onClick={startOver}>
        Start over
      </Button>
      {reason !== null && form.prompt !== '' && <p className="bad small">{reason}</p>}
    </div>
  );
}

/** What the server has not taken: kept, and said why. */
function Unsent() {
  const letters = useOutbox(({ letters }) => letters);
  const late = letters.filter(({ error }) => error !== null);
  return (
    <ul className="stack" aria-label="Not sent yet">
      {late.map(({ key, jobs, error, state }) => (
        <li key={key} className="problem stack" role="alert">
          <p>
            <strong>Not sent yet:</strong> “{jobs[0]?.prompt.slice(0, 80)}”. {error?.message}{' '}
            <span className="muted">
              {error?.hint}
              {error?.retryAfterSeconds ? ` Room in about ${error.retryAfterSeconds} s.` : ''}
            </span>
          </p>
          <div className="row">
            {state === 'waiting' ? (
              <span className="muted">It is sent as soon as the server answers.</span>
            ) : (
              <Button onClick={() => sendAgain(key)}>Try again</Button>
            )}
            <Button kind="quiet" onClick={() => discard(key)}>
              Discard
            </Button>
          </div>
        </li>
      ))}
    </ul>
  );
}
