import type { Rule } from 'eslint';

/** room -> rooms that it may import */
export const ROOMS: Readonly<Record<string, readonly string[]>>;
export const importDirection: Rule.RuleModule;
