import { type ReactNode, useEffect, useRef } from 'react';
import { Button } from './Button';

/** The browser's own: it keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children }: { title: string; onClose(): void; children: ReactNode }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={ref} className="dialog" aria-label={title} onClose={onClose}>
      <header className="row">
        <h2 className="grow">{title}</h2>
        <Button icon="close" iconOnly kind="quiet" onClick={onClose}>
          Close
        </Button>
      </header>
      {children}
    </dialog>
  );
}
