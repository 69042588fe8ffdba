"""Speed of transformers' Mamba-2 on torch CUDA with random weights, as JSON lines beside those of run.ts.

python3 bench/cuda/peers.py --models 130m,2.7b --prompt 2048 --tokens 64 --batches 1
"""
import argparse
import gc
import json
import time

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM

SIZES = {
    '130m': (768, 24, 1, 50288, True),
    '2.7b': (2560, 64, 1, 50288, True),
    '7b': (4096, 64, 8, 32768, False),
}


def seconds(work):
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return time.perf_counter() - start, result


def measure(model, name, vocab, batch, args):
    def say(**fields):
        print(json.dumps({**name, 'batch': batch, **fields}), flush=True)

    ids = torch.arange(batch * args.prompt, device='cuda').reshape(batch, -1) * 37 % vocab
    prefill, decode = [], []
    for _ in range(args.rounds + 1):
        took, out = seconds(lambda: model(ids, use_cache=True, logits_to_keep=1))
        prefill.append(took)
        key = 'past_key_values' if getattr(out, 'past_key_values', None) is not None else 'cache_params'
        cache = getattr(out, key)
        token = out.logits[:, -1].argmax(-1, keepdim=True)

        def tokens():
            last = token
            for _ in range(args.tokens):
                last = model(last, use_cache=True, **{key: cache}).logits[:, -1].argmax(-1, keepdim=True)

        decode.append(seconds(tokens)[0] / args.tokens)
    middle = sorted(prefill[1:])[args.rounds // 2]
    say(what='prefill', tokens=args.prompt, tok_s=batch * args.prompt / middle)
    middle = sorted(decode[1:])[args.rounds // 2]
    say(what='decode', ms_token=middle * 1000, tok_s=batch / middle)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--models', default='130m')
    parser.add_argument('--prompt', type=int, default=2048)
    parser.add_argument('--tokens', type=int, default=64)
    parser.add_argument('--batches', default='1')
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    torch.set_default_dtype(torch.bfloat16)
    for size in args.models.split(','):
        hidden, layers, groups, vocab, tied = SIZES[size]
        config = Mamba2Config(hidden_size=hidden, num_hidden_layers=layers, n_groups=groups, vocab_size=vocab, tie_word_embeddings=tied,
                              head_dim=64, num_heads=2 * hidden // 64, state_size=128, initializer_range=0.02)
        with torch.device('cuda'):
            model = Mamba2ForCausalLM(config).eval()
        name = {'model': size, 'dtype': 'bfloat16', 'engine': 'transformers on ' + torch.cuda.get_device_name()}
        for batch in map(int, args.batches.split(',')):
            try:
                with torch.inference_mode():
                    measure(model, name, vocab, batch, args)
            except torch.cuda.OutOfMemoryError as error:
                print(json.dumps({**name, 'batch': batch, 'failed': str(error)[:120]}), flush=True)
        del model
        gc.collect()
        torch.cuda.empty_cache()


main()
