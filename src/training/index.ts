/** Training: the optimizer and what surrounds it. */
export * from './adamw.js';
