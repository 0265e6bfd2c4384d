/** How an attempt at a job may end without an outcome. */

/**
 * How a worker died with a job in its hands: of its own making, killed from outside before or after a completed step,
 * or not at all (a planned stop).
 */
export type Death = 'own' | 'outside' | 'outside-after-progress' | 'none';
