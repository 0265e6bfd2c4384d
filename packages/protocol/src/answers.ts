/** Shapes of HTTP answers that pages read. */
import type { Role } from './api-keys.js';
import type { Job } from './job.js';
import type { ModelDefaults } from './job-request.js';
import type { Crash, ModelStatus, SystemStatus } from './status.js';

/** A model as `GET /api/v1/models` describes it. */
export interface ModelAnswer {
  id: string;
  state: ModelStatus['state'];
  defaults: ModelDefaults;
  /** Width and height by ratio. */
  sizes: Record<string, [number, number]>;
  /** Steps and guidance: fast, balanced, high. */
  presets: Record<string, Pick<ModelDefaults, 'numInferenceSteps' | 'trueCfgScale'>>;
  /** The steps that a distilled model draws in, without guidance; null for any other. */
  distilled: { steps: number[] } | null;
  /** Prompts to begin with. */
  examples: string[];
  /** What somebody should know who describes pictures to it. */
  note: string | null;
  limits: { maxSteps: number; maxPixels: number; maxUploadBytes: number };
  plan: {
    /** Bytes of the machine's memory, for the largest picture. */
    neededBytes: number;
    /** The same of the graphics card's own. */
    cardBytes: number | null;
    /** Bytes of the machine's memory that there were when the plan was made. */
    availableBytes: number;
    /** Pictures of at most so many pixels are drawn with all parts in memory. */
    residentPixels: number;
    /** A picture of more pixels is decoded in tiles. */
    tileAbovePixels: number;
  };
}

/** `GET /api/v1/snapshot`. */
export interface SnapshotAnswer {
  version: string;
  /** ISO 8601. */
  serverTime: string;
  lastEventId: string;
  role: Role;
  status: SystemStatus;
  models: ModelAnswer[];
  /** Those in the hands of workers, the one first that was begun first. */
  running: Job[];
  /** Of running jobs, by their id: PNG, base64. */
  previews: Record<string, string>;
  /** In the order in which they will be drawn; the first fifty. */
  queue: Job[];
  /** The last that have ended, newest first. */
  ended: Job[];
  crashes: Crash[];
}
