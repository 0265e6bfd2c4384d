import { Button } from '../../parts/Button';
import { pictures } from '../../words';
import { type Filter, useFacets, useGallery } from './gallery-data';

export function Filters({ count }: { count: number | null }) {
  const filter = useGallery(({ filter }) => filter);
  const facets = useFacets().data;
  const change = (changes: Partial<Filter>) =>
    useGallery.setState({ filter: { ...filter, ...changes }, selected: new Set(), scrollTop: 0 });
  return (
    <search className="filters">
      <label className="grow">
        <span className="visually-hidden">Search in the prompts</span>
        <input
          id="search"
          type="search"
          placeholder="Search in the prompts"
          value={filter.search}
          onChange={({ target }) => change({ search: target.value })}
        />
      </label>
      <Button
        icon="star"
        iconOnly
        pressed={filter.starred}
        filled={filter.starred}
        onClick={() => change({ starred: !filter.starred })}
      >
        Only starred
      </Button>
      <Button icon="trash" iconOnly pressed={filter.trashed} onClick={() => change({ trashed: !filter.trashed })}>
        Trash
      </Button>
      <label>
        <span className="visually-hidden">Size</span>
        <select value={filter.size ?? ''} onChange={({ target }) => change({ size: target.value || null })}>
          <option value="">Every size</option>
          {facets?.sizes.map(({ width, height, count }) => (
            <option key={`${width}x${height}`} value={`${width}x${height}`}>
              {width}×{height} ({count})
            </option>
          ))}
        </select>
      </label>
      <label>
        <span className="visually-hidden">Model</span>
        <select value={filter.model ?? ''} onChange={({ target }) => change({ model: target.value || null })}>
          <option value="">Every model</option>
          {facets?.models.map(({ model, count }) => (
            <option key={model} value={model}>
              {model} ({count})
            </option>
          ))}
        </select>
      </label>
      <span className="muted small" role="status">
        {count === null ? '' : pictures(count)}
      </span>
    </search>
  );
}
