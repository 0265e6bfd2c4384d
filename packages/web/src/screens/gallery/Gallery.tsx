import { useDeferredValue, useState } from 'react';
import { downloadPicture } from '../../actions/jobs';
import { emptyTrash, restore, star, trash } from '../../actions/pictures';
import { Button } from '../../parts/Button';
import { Dialog } from '../../parts/Dialog';
import { go } from '../../platform/place';
import { pictures } from '../../words';
import { Filters } from './Filters';
import { Grid } from './Grid';
import { NO_FILTER, useGallery, usePictures } from './gallery-data';
import './gallery.css';

export function Gallery() {
  const filter = useGallery(({ filter }) => filter);
  const found = usePictures(useDeferredValue(filter));
  const entries = found.data;
  return (
    <main className="screen gallery" id="main">
      <h1 className="visually-hidden">Gallery</h1>
      <Filters count={entries?.length ?? null} />
      <Selected />
      {found.error && (
        <p className="problem" role="alert">
          {found.error.message} <Button onClick={() => void found.refetch()}>Try again</Button>
        </p>
      )}
      {entries && entries.length > 0 && <Grid entries={entries} />}
      {entries?.length === 0 && <Nothing />}
    </main>
  );
}

function Nothing() {
  const { search, starred, trashed, model, size } = useGallery(({ filter }) => filter);
  const clear = () => useGallery.setState({ filter: NO_FILTER });
  if (trashed) return <p className="muted">The trash is empty.</p>;
  if (search === '' && !starred && model === null && size === null)
    return (
      <div className="stack">
        <p className="muted">No pictures yet. They appear here by themselves.</p>
        <div>
          <Button onClick={() => go('/')}>Write a prompt</Button>
        </div>
      </div>
    );
  return (
    <div className="stack">
      <p className="muted">{search === '' ? 'No picture is like that.' : `Nothing for “${search}”.`}</p>
      <div>
        <Button onClick={clear}>Clear the search</Button>
      </div>
    </div>
  );
}

/** The one act that cannot be undone: it is asked for twice. */
function EmptyTrash() {
  const [isAsking, setIsAsking] = useState(false);
  const count = usePictures(useGallery(({ filter }) => filter)).data?.length ?? 0;
  if (count === 0) return null;
  return (
    <>
      <Button kind="danger" onClick={() => setIsAsking(true)}>
        Empty the trash
      </Button>
      {isAsking && (
        <Dialog title="Empty the trash?" onClose={() => setIsAsking(false)}>
          <p>{pictures(count)} and their files are gone for ever then.</p>
          <div className="row">
            <Button onClick={() => setIsAsking(false)}>Keep them</Button>
            <Button
              kind="danger"
              onClick={() => {
                setIsAsking(false);
                void emptyTrash();
              }}
            >
              {`Remove ${pictures(count)}`}
            </Button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** What can be done with all that are selected, and with the trash. */
function Selected() {
  const selected = useGallery(({ selected }) => selected);
  const trashed = useGallery(({ filter }) => filter.trashed);
  const ids = [...selected];
  const done = () => useGallery.setState({ selected: new Set() });
  const then = (act: Promise<unknown>) => void act.then(done);
  if (ids.length === 0) {
    if (!trashed) return null;
    return (
      <div className="row">
        <p className="muted grow">Pictures in the trash are removed after the days that keep-trash-days says.</p>
        <EmptyTrash />
      </div>
    );
  }
  return (
    <div className="row selected" role="toolbar" aria-label="Selected pictures">
      <span className="grow">{pictures(ids.length)} selected</span>
      {trashed ? (
        <Button icon="again" onClick={() => then(restore(ids))}>
          Take back
        </Button>
      ) : (
        <>
          <Button icon="star" onClick={() => then(star(ids, true))}>
            Star
          </Button>
          <Button icon="download" onClick={() => ids.forEach(downloadPicture)}>
            Download
          </Button>
          <Button icon="trash" onClick={() => then(trash(ids))}>
            Into the trash
          </Button>
        </>
      )}
      <Button kind="quiet" onClick={done}>
        Clear selection
      </Button>
    </div>
  );
}
