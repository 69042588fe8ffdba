/**
 * From prompts to new tokens: options (GenerationConfig), logits processors and warpers, stopping criteria, streamers,
 * and the generate loop over a GenerationEngine.
 */
export type { EngineSampling, EngineState, GenerationEngine, PrefillReading, StateArrays } from './engine.js';
export { GenerationConfig } from './config.js';
export type { ResolvedOptions } from './config.js';
export type { GenerationOptions } from './options.js';
export { generate } from './generate.js';
export type { GenerateInputs, GenerateOutput, RowsAlone, WholeOutput } from './inputs.js';
export type { IdRow } from './ids.js';
export { ChatSession } from './chat_session.js';
export type { ChatSnapshot, Turn, TurnOptions } from './chat_session.js';
export * from './processors.js';
export * from './warpers.js';
export * from './stopping.js';
export { TextIteratorStreamer, TextStreamer } from './streamers.js';
export type { Streamer, TextIteratorStreamerOptions, TextStreamerOptions } from './streamers.js';
export { RandomStream } from './random.js';
