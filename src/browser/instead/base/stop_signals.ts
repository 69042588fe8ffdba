/** A page gets no signals. */
export const STOP_SIGNALS = [] as const;
export const exitCodeOf = (): number => 1;
export const onStopSignal = (): (() => void) => () => undefined;
export const atEnd = (): (() => void) => () => undefined;
export const unfinishedUntil = (): (() => void) => () => undefined;
