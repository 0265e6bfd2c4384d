/** The part of node-ipc 14.0.0 that is used here; the package has no types of its own. */
declare module 'node-ipc' {
  import type { Server, Socket } from 'node:net';

  interface Events {
    on(event: 'connect' | 'close', handler: (socket: Socket) => void): this;
    on(event: 'data', handler: (chunk: Buffer, socket: Socket) => void): this;
    on(event: 'error', handler: (error: Error) => void): this;
    on(event: 'start' | 'disconnect', handler: () => void): this;
    off(event: string, handler: string): this;
  }

  export class IPC {
    config: {
      rawBuffer: boolean;
      silent: boolean;
      stopRetrying: boolean;
      maxRetries: number;
      maxConnections: number;
      socketRoot: string;
    };
    server: Events & { start(): void; stop(): void; server: Server };
    of: Record<string, Events & { socket: Socket }>;
    serve(path: string, onStart: () => void): void;
    connectTo(id: string, path: string, onStart?: () => void): void;
    disconnect(id: string): void;
  }

  const defaultExport: { IPC: typeof IPC };
  export default defaultExport;
}
