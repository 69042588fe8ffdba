"""Worker: decoding, prefill and training by transformers' Mamba2ForCausalLM on torch CPU. Speaks JSON lines on stdin and stdout."""
import json
import subprocess
import sys
import time

import torch
import transformers
from transformers import Mamba2ForCausalLM

CONTEXT = 16
FIRST_TOKEN = '--first-token'


def prompt(length):
    return torch.tensor([[1 + (i * 37) % 5000 for i in range(length)]])


def forward(model, ids, cache):
    # the name of the cache argument differs between versions
    extra = {} if cache is None else {cache[0]: cache[1]}
    out = model(ids, use_cache=True, logits_to_keep=1, **extra)
    key = 'past_key_values' if getattr(out, 'past_key_values', None) is not None else 'cache_params'
    return out.logits[:, -1], (key, getattr(out, key))


def training(work):
    """One step is forward, backward, clipping and AdamW with decay of what has two or more axes, as in ours."""
    model = Mamba2ForCausalLM.from_pretrained(work['checkpoint'], dtype=torch.float32).train()
    ids = prompt(work['tokens'])
    parameters = list(model.parameters())
    groups = [{'params': [p for p in parameters if (p.ndim >= 2) == decays], 'weight_decay': 0.01 if decays else 0.0}
              for decays in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)

    def once():
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return work['tokens'] / (time.perf_counter() - start)

    def warm():
        once()
        return once()
    return warm


def prepare(work):
    torch.set_num_threads(work['threads'])
    dtype = getattr(torch, work['dtype'])
    tokens = work['tokens']
    if work['task'] == 'load':
        # a process of its own, as ours has: importing torch and transformers is part of a start
        command = [sys.executable, __file__, FIRST_TOKEN, work['checkpoint'], work['dtype'], str(tokens), str(work['threads'])]

        def once():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            return time.perf_counter() - start
        once()
        return once
    if work['task'] == 'train':
        return training(work)
    model = Mamba2ForCausalLM.from_pretrained(work['checkpoint'], dtype=dtype).eval()
    if work['task'] == 'prefill':
        ids = prompt(tokens)

        def once():
            start = time.perf_counter()
            forward(model, ids, None)
            return tokens / (time.perf_counter() - start)

        def warm():
            once()
            return once()
        return warm
    logits, cache = forward(model, prompt(CONTEXT), None)
    state = [logits.argmax(-1, keepdim=True), cache]

    def run(count):
        for _ in range(count):
            logits, state[1] = forward(model, state[0], state[1])
            state[0] = logits.argmax(-1, keepdim=True)
            state[0].item()

    def once():
        run(4)  # warms up, as llama-bench does
        start = time.perf_counter()
        run(tokens)
        return tokens / (time.perf_counter() - start)
    return once


if sys.argv[1:2] == [FIRST_TOKEN]:
    checkpoint, dtype, tokens, threads = sys.argv[2:]
    torch.set_num_threads(int(threads))
    with torch.inference_mode():
        model = Mamba2ForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()
        forward(model, prompt(int(tokens)), None)[0].argmax(-1).item()
    sys.exit()

once = None
inference = True
for line in sys.stdin:
    try:
        request = json.loads(line)
        if 'start' in request:
            inference = request['start']['task'] != 'train'
        with torch.inference_mode(inference):
            if 'start' in request:
                once = prepare(request['start'])
                reply = {'version': f'transformers {transformers.__version__}, torch {torch.__version__}'}
            else:
                reply = {'value': once()}
    except Exception as error:  # told to whoever asked
        reply = {'error': repr(error)}
    print(json.dumps(reply), flush=True)
