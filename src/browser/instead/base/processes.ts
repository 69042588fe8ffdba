/** A page is told of no processes: none has ended. */
export const thisProcess = (): { pid: number; host: string; begin: string } => ({
  pid: 0,
  host: 'browser',
  begin: '-',
});
export const hasEnded = (): boolean => false;
