/** The variables of the process's environment, for tests that change them. */

/**
 * Makes them what they were. Another object in place of process.env would be JavaScript's alone: what is set there afterwards, libraries would not see.
 * @param saved a copy of process.env
 */
export function restoreEnvironment(saved: NodeJS.ProcessEnv): void {
  for (const key of Object.keys(process.env)) if (!(key in saved)) delete process.env[key];
  Object.assign(process.env, saved);
}
