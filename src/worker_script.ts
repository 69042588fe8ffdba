/** The worker's side: the whole package, for a page that asks. */
import * as browser from './browser.js';
import * as api from './index.js';
import { Channel, type Port } from './browser/worker/messages.js';

new Channel(globalThis as unknown as Port, { ...api, ...browser });
