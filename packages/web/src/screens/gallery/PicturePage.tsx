import type { Job } from '@qwen-supervisor/protocol/job';
import { useEffect, useState } from 'react';
import { copyPrompt, downloadPicture, sameAgain, useAsInput, useSettings } from '../../actions/jobs';
import { restore, star, trash } from '../../actions/pictures';
import { shown } from '../../actions/table';
import { useUi } from '../../actions/ui';
import { ROOT } from '../../api/http';
import { useLive } from '../../live/store';
import { Button } from '../../parts/Button';
import { Sharpening } from '../../parts/Sharpening';
import { go } from '../../platform/place';
import { Details } from './Details';
import { useGallery, useJob, usePictures } from './gallery-data';
import './picture.css';

/** A picture, large: a place of its own, so that Back works. One that is being drawn is live. */
export function PicturePage({ id }: { id: string }) {
  const known = useLive(({ state }) => state?.ended.find((job) => job.id === id));
  const running = useLive(({ state }) => state?.running.find(({ job }) => job.id === id) ?? null);
  const asked = useJob(id);
  const job = running?.job ?? asked.data ?? known;
  const [isLarge, setIsLarge] = useState(false);
  const [hasDetails, setHasDetails] = useState(true);
  const filter = useGallery(({ filter }) => filter);
  const entries = usePictures(filter).data ?? [];
  const at = entries.findIndex(([one]) => one === id);
  const step = (by: number) => {
    const next = at < 0 ? undefined : entries[at + by];
    if (next) go(`/gallery/${next[0]}`, true);
  };
  const close = () => {
    useGallery.setState({ focus: id });
    go('/gallery');
  };
  const throwAway = () => {
    const next = at < 0 ? undefined : (entries[at + 1] ?? entries[at - 1]);
    void trash([id]).then((gone) => {
      if (gone.length === 0) return;
      if (next) go(`/gallery/${next[0]}`, true);
      else close();
    });
  };
  useEffect(() => {
    shown.job = job ?? null;
    return () => {
      shown.job = null;
    };
  }, [job]);
  useEffect(() => {
    const acts: Record<string, () => void> = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      Escape: close,
      z: () => setIsLarge((is) => !is),
      i: () => setHasDetails((has) => !has),
      Delete: throwAway,
    };
    const onKey = (event: KeyboardEvent) => {
      const { open, singleKeys } = useUi.getState();
      const typing = event.target instanceof HTMLElement && event.target.matches('input, textarea, select');
      const isSingle = event.key.length === 1 && !singleKeys;
      if (
        open !== null ||
        typing ||
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        event.isComposing ||
        event.repeat ||
        isSingle
      )
        return;
      acts[event.key]?.();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  });
  const image = job?.images[0];
  const preview = running?.preview ? `data:image/png;base64,${running.preview}` : null;
  const src = image ? `${ROOT}api/v1/images/${image.id}` : preview;
  return (
    <main className="screen picture" id="main">
      <h1 className="visually-hidden">Picture</h1>
      <div className="row bar">
        <Button icon="back" kind="quiet" onClick={close}>
          Gallery
        </Button>
        <span className="grow" />
        <Button
          icon="back"
          iconOnly
          kind="quiet"
          reason={at <= 0 ? 'There is none before it.' : null}
          onClick={() => step(-1)}
        >
          Previous
        </Button>
        <Button
          icon="next"
          iconOnly
          kind="quiet"
          reason={at < 0 || at >= entries.length - 1 ? 'There is none after it.' : null}
          onClick={() => step(1)}
        >
          Next
        </Button>
        <Button icon="info" iconOnly kind="quiet" pressed={hasDetails} onClick={() => setHasDetails(!hasDetails)}>
          Details
        </Button>
      </div>
      {job ? (
        <Shown id={id} job={job} src={src} isLarge={isLarge} hasDetails={hasDetails} throwAway={throwAway} />
      ) : (
        <p className={asked.error ? 'problem' : 'muted'}>{asked.error ? asked.error.message : 'Looking for it.'}</p>
      )}
    </main>
  );
}

interface ShownProps {
  id: string;
  job: Job;
  src: string | null;
  isLarge: boolean;
  hasDetails: boolean;
  throwAway(): void;
}

function Shown({ id, job, src, isLarge, hasDetails, throwAway }: ShownProps) {
  const [image] = job.images;
  return (
    <>
      <div className="large" data-large={isLarge || undefined}>
        {src ? (
          <Sharpening key={id} src={src} alt={job.prompt} width={job.width} height={job.height} />
        ) : (
          <p className="muted">{job.error ? job.error.message : 'There is no picture of it.'}</p>
        )}
      </div>
      <div className="row acts">
        {image && (
          <>
            <Button
              icon="star"
              filled={job.starred}
              pressed={job.starred}
              onClick={() => void star([id], !job.starred)}
            >
              Star
            </Button>
            <Button icon="download" onClick={() => downloadPicture(id)}>
              Download
            </Button>
            <Button icon="image" onClick={() => useAsInput(job)}>
              Draw over it
            </Button>
          </>
        )}
        <Button icon="copy" onClick={() => void copyPrompt(job)}>
          Copy prompt
        </Button>
        <Button icon="sliders" onClick={() => useSettings(job, false)}>
          Use settings
        </Button>
        <Button icon="lock" onClick={() => useSettings(job, true)}>
          Use settings and seed
        </Button>
        <Button icon="again" onClick={() => sameAgain(job)}>
          Same again
        </Button>
        <span className="grow" />
        {image &&
          (job.trashedAt ? (
            <Button icon="again" onClick={() => void restore([id])}>
              Take back out of the trash
            </Button>
          ) : (
            <Button icon="trash" onClick={throwAway}>
              Into the trash
            </Button>
          ))}
      </div>
      {hasDetails && <Details job={job} />}
    </>
  );
}
