"""Serves a golden model as a hub on loopback, and lets this package and Python's huggingface_hub fetch it into one cache.

    python scripts/check/check_hub_cache.py      (needs huggingface_hub and Node)

What this package fetched, huggingface_hub must find offline; what huggingface_hub fetched, this package must find offline;
and either must leave the other's copy alone.
"""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import tempfile
import threading

ROOT = pathlib.Path(__file__).parents[2]
COMMIT = 'c' * 40
FILES = {file.name: file.read_bytes() for file in (ROOT / 'test/fixtures/goldens/formats/sharded').iterdir()}


def checksum(data):
    return hashlib.sha256(data).hexdigest() if len(data) > 5000 else hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


def entry(name, data):
    out = {'type': 'file', 'path': name, 'size': len(data), 'oid': checksum(data)[:40]}
    return out | ({'lfs': {'oid': checksum(data), 'size': len(data), 'pointerSize': 130}} if len(data) > 5000 else {})


class Hub(http.server.BaseHTTPRequestHandler):
    downloads = 0

    def answer(self, body):
        path = self.path.split('?')[0]
        if path.startswith('/api/models/org/model/tree/'):
            data = json.dumps([entry(*item) for item in FILES.items()]).encode()
        elif path.startswith('/api/models/org/model'):
            siblings = [{'rfilename': name} for name in FILES]
            data = json.dumps({'_id': '1', 'id': 'org/model', 'sha': COMMIT, 'lastModified': '2026-01-01T00:00:00.000Z', 'siblings': siblings}).encode()
        else:
            data = FILES[path.rsplit('/', 1)[1]]
            Hub.downloads += body
        self.send_response(200)
        self.send_header('ETag', f'"{checksum(data)}"')
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ['HF_ENDPOINT'] = f'http://127.0.0.1:{server.server_port}'
os.environ['HF_HUB_DISABLE_XET'] = '1'
os.environ.pop('HF_TOKEN', None)
from huggingface_hub import snapshot_download  # noqa: E402  (reads HF_ENDPOINT)

CODE = "const { resolveModel } = await import('./src/checkpoints/index.ts'); process.stdout.write(await resolveModel('org/model'))"


def ours(home, **environment):
    env = os.environ | {'HF_HOME': home} | environment
    return subprocess.run(['node', '--import', 'tsx', '--input-type=module', '-e', CODE], cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout


def theirs(home, **options):
    return snapshot_download('org/model', cache_dir=f'{home}/hub', **options)


for first, second in [(ours, lambda home: theirs(home, local_files_only=True)), (theirs, lambda home: ours(home, HF_HUB_OFFLINE='1'))]:
    with tempfile.TemporaryDirectory() as home:
        Hub.downloads = 0
        fetched = first(home)
        assert Hub.downloads >= len(FILES) - 1, Hub.downloads
        assert second(home) == fetched, (second(home), fetched)
        for name, data in FILES.items():
            assert (pathlib.Path(fetched) / name).read_bytes() == data, name
        before = Hub.downloads
        ours(home)
        theirs(home)
        assert Hub.downloads == before, 'a file was fetched twice'
print('2 passed, 0 failed')
