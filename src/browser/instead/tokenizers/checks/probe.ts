/** What native code would be tried with in a process of its own. */
export const holds = async (): Promise<boolean> => false;
