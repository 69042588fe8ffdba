/** In a page nothing is traced. */
export const GRAPH_BACKEND = 'graph';
export const isTracing = (): boolean => false;
export const isSymbolic = (): boolean => false;
export const compilesForGpu = (): boolean => false;
export const compilesWithXla = (): boolean => false;
