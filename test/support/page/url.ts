/** node:url for tests that run in a page, whose files are addresses. */
export const fileURLToPath = (url: URL): string => url.pathname;
