/** The socket by which children and commands reach the supervisor. One that is taken away is made anew. */
import type { Handlers } from '@qwen-supervisor/ipc/link';
import { type IpcServer, listenIpc } from '@qwen-supervisor/ipc/listen';
import { foreignness } from '@qwen-supervisor/ipc/own-socket';
import type { SupervisorMethods, WorkerReports } from '@qwen-supervisor/protocol/messages';
import type { Logger } from 'pino';
import { prepareSocket, writePresence } from '../machine/data-folder.js';
import type { PeerLink } from './peer-methods.js';

/** From one look whether the socket is still there to the next: a logout removes it, and commands find nobody. */
const LOOK_MS = 10_000;

type Answer = (link: PeerLink) => Handlers<SupervisorMethods & WorkerReports>;

export class ControlSocket {
  path: string;
  readonly #parts: { dataDir: string; url: string; log: Logger };
  readonly #answer: Answer;
  /** The last one is the one that is found; an earlier one keeps its connections. */
  readonly #servers: IpcServer[] = [];
  #opening: Promise<void> | null = null;
  #looking: NodeJS.Timeout | undefined;

  constructor(path: string, parts: { dataDir: string; url: string; log: Logger }, answer: Answer) {
    this.path = path;
    this.#parts = parts;
    this.#answer = answer;
  }

  async open(): Promise<void> {
    this.#looking ??= setInterval(() => {
      if (!this.isThere()) void this.openAnew().catch((error: Error) => this.#parts.log.error(error.message));
    }, LOOK_MS).unref();
    const { dataDir, url, log } = this.#parts;
    this.#servers.push(await listenIpc(this.path, this.#answer));
    try {
      writePresence(dataDir, { pid: process.pid, socket: this.path, url });
    } catch (error) {
      // A full disk: commands do not find us, everybody else does.
      log.error(`where this supervisor is reached could not be written: ${(error as Error).message}`);
    }
  }

  /**
   * Whether it can be reached now. A folder for sockets that a logout has removed would keep every child out for
   * ever.
   */
  isThere(): boolean {
    return foreignness(this.path) === null;
  }

  async openAnew(): Promise<void> {
    this.#opening ??= this.#openAnew().finally(() => {
      this.#opening = null;
    });
    return this.#opening;
  }

  async #openAnew(): Promise<void> {
    this.#parts.log.warn('the control socket is gone, listening anew');
    // Its folder may be gone, too, and with it the place that was chosen.
    this.path = prepareSocket(this.#parts.dataDir, process.env);
    await this.open();
  }

  close(): void {
    clearInterval(this.#looking);
    for (const server of this.#servers) server.close();
  }
}
