import { Link } from 'wouter';
import { ROOT } from '../../api/http';
import { useLive } from '../../live/store';

const SHOWN = 24;

export function Recent() {
  const ended = useLive(({ state }) => state?.ended);
  const pictures = (ended ?? []).filter(({ images, trashedAt }) => images.length > 0 && !trashedAt).slice(0, SHOWN);
  if (pictures.length === 0) return null;
  return (
    <section aria-label="Recent pictures" className="recent">
      <ul>
        {pictures.map((job) => (
          <li key={job.id}>
            <Link href={`/gallery/${job.id}`}>
              <img
                src={`${ROOT}api/v1/images/${job.images[0]?.id}/thumbnail`}
                alt={job.prompt.slice(0, 120)}
                width={job.width}
                height={job.height}
                loading="lazy"
              />
            </Link>
          </li>
        ))}
      </ul>
    </section>
  );
}
