/**
 * A line to a database on which things go wrong that pulling a plug does not bring about: what is sent arrives late, or
 * stops exactly where it hurts. A relay, since not every kernel has a queue that delays (netem).
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export class Line {
  readonly #to: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Milliseconds by which the next piece is late. */
  delay: () => number = () => 0;
  #holding: { transaction: string; tell: () => void } | null = null;

  /** `to`: the socket of the database, a file. */
  constructor(to: string) {
    this.#to = to;
    this.#server = createServer((client) => this.#relay(client));
  }

  /** Port on that address. */
  async listen(host: string): Promise<number> {
    this.#server.listen(0, host);
    await once(this.#server, 'listening');
    return (this.#server.address() as { port: number }).port;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /**
   * The commit of the next transaction with this text in it never arrives, nor does anything after it on its
   * connection; resolves when that is so.
   */
  holdCommitOf(transaction: string): Promise<void> {
    return new Promise((tell) => {
      this.#holding = { transaction, tell };
    });
  }

  #relay(client: Socket): void {
    const server = connect(this.#to);
    /** What was sent since the last transaction began. */
    let sent = '';
    let isHeld = false;
    const passes = (piece: Buffer) => {
      const text = piece.toString('latin1');
      sent = /\bBEGIN\b/.test(text) ? text : sent + text;
      if (this.#holding && text.includes('COMMIT') && sent.includes(this.#holding.transaction)) {
        isHeld = true;
        this.#holding.tell();
        this.#holding = null;
      }
      return !isHeld;
    };
    this.#pass(client, server, passes);
    this.#pass(server, client, () => true);
  }

  #pass(from: Socket, to: Socket, passes: (piece: Buffer) => boolean): void {
    this.#sockets.add(from);
    from.setNoDelay(true);
    let lastMs = 0;
    /** In their order, however late each is. */
    const later = (act: () => void) => {
      lastMs = Math.max(lastMs, performance.now() + this.delay());
      setTimeout(act, lastMs - performance.now());
    };
    from.on('data', (piece) => {
      if (passes(piece)) later(() => to.write(piece));
    });
    from.on('close', () => {
      this.#sockets.delete(from);
      later(() => to.destroy());
    });
    // The other side hears of it by the close that follows.
    from.on('error', () => from.destroy());
  }
}
