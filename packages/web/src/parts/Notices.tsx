import { dismiss, useUi } from '../actions/ui';
import { Button } from './Button';

/** What is told for a moment; errors stay until they are put away. Read aloud. */
export function Notices() {
  const notices = useUi(({ notices }) => notices);
  return (
    <div className="notices" role="status">
      {notices.map(({ id, text, tone, undo }) => (
        <div key={id} className={`notice ${tone}`}>
          <span className="grow">{text}</span>
          {undo && (
            <Button
              kind="quiet"
              onClick={() => {
                undo();
                dismiss(id);
              }}
            >
              Undo
            </Button>
          )}
          <Button icon="close" iconOnly kind="quiet" onClick={() => dismiss(id)}>
            Dismiss
          </Button>
        </div>
      ))}
    </div>
  );
}
