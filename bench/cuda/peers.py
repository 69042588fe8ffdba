"""Speed of transformers' Mamba-2 on torch CUDA with random weights, as JSON lines beside those of run.ts.

python3 bench/cuda/peers.py --model 130m --prompt 2048 --tokens 64 --batches 1
"""
import argparse
import json
import time

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM

SIZES = {
    '130m': (768, 24, 1, 50288, True),
    '2.7b': (2560, 64, 1, 50288, True),
    '7b': (4096, 64, 8, 32768, False),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--model', default='130m')
    parser.add_argument('--prompt', type=int, default=2048)
    parser.add_argument('--tokens', type=int, default=64)
    parser.add_argument('--batches', default='1')
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    hidden, layers, groups, vocab, tied = SIZES[args.model]
    config = Mamba2Config(hidden_size=hidden, num_hidden_layers=layers, n_groups=groups, vocab_size=vocab, tie_word_embeddings=tied,
                          head_dim=64, num_heads=2 * hidden // 64, state_size=128, initializer_range=0.02)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device('cuda'):
        model = Mamba2ForCausalLM(config).eval()
    name = {'model': args.model, 'dtype': 'bfloat16', 'engine': 'transformers on ' + torch.cuda.get_device_name()}
    for batch in map(int, args.batches.split(',')):
        ids = torch.arange(batch * args.prompt, device='cuda').reshape(batch, -1) * 37 % vocab
        with torch.inference_mode():
            prefill, decode = [], []
            for _ in range(args.rounds + 1):
                torch.cuda.synchronize()
                start = time.perf_counter()
                out = model(ids, use_cache=True, logits_to_keep=1)
                torch.cuda.synchronize()
                prefill.append(time.perf_counter() - start)
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                key = 'past_key_values' if getattr(out, 'past_key_values', None) is not None else 'cache_params'
                cache = getattr(out, key)
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(args.tokens):
                    step = model(token, use_cache=True, **{key: cache})
                    token = step.logits[:, -1].argmax(-1, keepdim=True)
                torch.cuda.synchronize()
                decode.append((time.perf_counter() - start) / args.tokens)
        middle = sorted(prefill[1:])[args.rounds // 2]
        print(json.dumps({**name, 'batch': batch, 'what': 'prefill', 'tokens': args.prompt, 'tok_s': batch * args.prompt / middle}), flush=True)
        middle = sorted(decode[1:])[args.rounds // 2]
        print(json.dumps({**name, 'batch': batch, 'what': 'decode', 'ms_token': middle * 1000, 'tok_s': batch / middle}), flush=True)


main()
