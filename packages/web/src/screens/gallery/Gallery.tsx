import { useDeferredValue } from 'react';
import { downloadPicture } from '../../actions/jobs';
import { emptyTrash, restore, star, trash } from '../../actions/pictures';
import { Button } from '../../parts/Button';
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

/** What can be done with all that are selected, and with the trash. */
function Selected() {
  const selected = useGallery(({ selected }) => selected);
  const trashed = useGallery(({ filter }) => filter.trashed);
  const ids = [...selected];
  const done = () => useGallery.setState({ selected: new Set() });
  const then = (act: Promise<void>) => void act.then(done);
  if (ids.length === 0) {
    if (!trashed) return null;
    return (
      <div className="row">
        <p className="muted grow">Pictures in the trash are removed after the days that keep-trash-days says.</p>
        <Button kind="danger" onClick={() => void emptyTrash()}>
          Empty the trash: gone for ever
        </Button>
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
