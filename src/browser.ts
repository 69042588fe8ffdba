/** What a page has beside the package's other entries: settings, chosen files, and what the browser keeps. Not for Node.js. */
export { browserSettings, type BrowserSettings, configureBrowser } from './browser/settings.js';
export { folderOfFiles } from './browser/files/picked.js';
export { clearDownloads } from './browser/files/stored.js';
export type { DownloadProgress } from './checkpoints/hub_options.js';
