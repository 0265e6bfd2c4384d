/** How an attempt at a job begins and how it may end without an outcome. */

/** Where an attempt began. */
export interface AttemptStart {
  /** Completed steps that it found; 0 where it began at the beginning. */
  step: number;
  /** Why it did not go on where the attempt before had stopped. */
  startedOverReason: string | null;
  /** What computes it. */
  device: string;
  /** Id of the model that computes it. */
  model: string;
}

/**
 * How a worker died with a job in its hands: of its own making, killed from outside before or after a completed step,
 * or not at all (a planned stop).
 */
export type Death = 'own' | 'outside' | 'outside-after-progress' | 'none';
