// Keeps the page's own files, and gives them where there is no network. The model's files are kept by the package.
const CACHE = 'tiny-books-page';
const FILES = [
  './',
  './main.js',
  './worker_script.js',
  ...['', '-simd', '-threaded-simd'].map((kind) => `./tfjs-backend-wasm${kind}.wasm`),
];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
  skipWaiting();
});
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
  if (event.request.method !== 'GET' || event.request.headers.has('range')) return;
  event.respondWith(fetch(event.request).catch(async () => (await caches.match(event.request)) ?? Response.error()));
});
