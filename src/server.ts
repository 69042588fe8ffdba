/** `tfjs-mamba2/server`: serves a model over HTTP. */
export {
  createServer,
  type LogLevel,
  type Mamba2Server,
  type ServerOptions,
  type StateCacheOptions,
} from './server/index.js';
