"""Runs one command of bench.sh with a time limit of its own and passes on its JSON lines, with the stage, the card and its driver in each.

python3 scripts/cuda/stage.py NAME SECONDS COMMAND...
BENCH_OUT: folder of lines.jsonl and log.txt; BENCH_PART: goes into each line; BENCH_END: when everything ends, in seconds since 1970.
Always exits with 0: a stage that fails leaves a line that says so, and the others run.
"""
import json
import os
import subprocess
import sys
import threading
import time

name, limit, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
out = os.environ['BENCH_OUT']
limit = min(limit, float(os.environ.get('BENCH_END', 'inf')) - time.time())


def card():
    try:
        asked = subprocess.run(['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader'], capture_output=True, text=True, timeout=20)
        found, driver = asked.stdout.splitlines()[0].split(', ')
        return {'card': found, 'driver': driver}
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return {'card': None, 'driver': None}


head = {'part': os.environ.get('BENCH_PART'), 'stage': name, **card()}
with open(os.path.join(out, 'lines.jsonl'), 'a', encoding='utf8') as lines, open(os.path.join(out, 'log.txt'), 'ab') as log:
    def say(record):
        line = json.dumps({**head, **record})
        print(line, flush=True)
        lines.write(line + '\n')
        lines.flush()

    def note(text):
        log.write(text)
        log.flush()

    start = time.time()
    if limit < 10:
        say({'what': 'stage', 'failed': 'no time left'})
        sys.exit()
    note(f'== {name}: {" ".join(command)}\n'.encode())
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    except OSError as error:
        say({'what': 'stage', 'failed': str(error)})
        sys.exit()

    def end():
        over.set()
        os.killpg(process.pid, 9)

    over = threading.Event()
    timer = threading.Timer(limit, end)
    timer.start()
    for line in process.stdout:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            say(record)
        else:
            note(line)
    code = process.wait()
    timer.cancel()
    took = {'what': 'stage', 'seconds': round(time.time() - start, 1)}
    say({**took, 'failed': f'stopped after {limit:.0f} s'} if over.is_set() else {**took, 'failed': f'exit code {code}'} if code else took)
