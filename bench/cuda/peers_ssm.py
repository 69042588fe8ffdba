"""Speed of the authors' mamba_ssm with random weights, as JSON lines beside those of run.ts: CUDA graphs in decoding, as its own benchmark has them.

PYTHONPATH=mamba_ssm-2.3.2.post1 python3 bench/cuda/peers_ssm.py --models 130m,2.7b --prompt 2048 --tokens 128
Runs from the unbuilt sources: Mamba-2 needs their Triton kernels alone. selective_scan_cuda (Mamba-1) is stubbed out, and without causal_conv1d the
convolution of a step is a few PyTorch kernels where it would be one of their own. --configs N compiles the first N of the
variants that each kernel's autotuner would try (all of them take minutes).
"""
import argparse
import json
import os
import sys
import time
import types

import torch

SIZES = {
    '130m': (768, 24, 1, 50288, True),
    '2.7b': (2560, 64, 1, 50288, True),
    '7b': (4096, 64, 8, 32768, False),
}


def few_variants(count):
    """Autotuners get their first `count` variants."""
    import triton
    autotune = triton.autotune

    def fewer(configs, key, **options):
        return autotune(configs[:count], key, **options)

    triton.autotune = fewer


def load():
    folder = next(p for p in map(lambda p: os.path.join(p, 'mamba_ssm'), sys.path) if os.path.isdir(p))
    package = types.ModuleType('mamba_ssm')
    package.__path__ = [folder]  # without its __init__, which imports Mamba-1 and Mamba-3 as well
    sys.modules['mamba_ssm'] = package
    sys.modules['selective_scan_cuda'] = types.ModuleType('selective_scan_cuda')
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    return MambaConfig, MambaLMHeadModel


def seconds(work):
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(size, args, MambaConfig, MambaLMHeadModel):
    hidden, layers, groups, vocab, tied = SIZES[size]
    config = MambaConfig(d_model=hidden, n_layer=layers, vocab_size=vocab, tie_embeddings=tied, pad_vocab_size_multiple=1,
                         ssm_cfg={'layer': 'Mamba2', 'ngroups': groups})
    model = MambaLMHeadModel(config, device='cuda', dtype=torch.bfloat16).eval()
    ids = torch.randint(0, vocab, (args.batch, args.prompt), device='cuda')

    def generate(count):
        model.generate(input_ids=ids, max_length=args.prompt + count, cg=True, top_k=1)

    name = {'model': size, 'dtype': 'bfloat16', 'batch': args.batch, 'variants': args.configs,
            'engine': 'mamba_ssm 2.3.2 on ' + torch.cuda.get_device_name()}
    with torch.inference_mode():
        first = seconds(lambda: generate(1 + args.tokens))  # the longest first: its CUDA graph serves the shorter ones
        print(json.dumps({**name, 'what': 'first call', 'ms': first * 1000}), flush=True)
        short = sorted(seconds(lambda: generate(1)) for _ in range(args.rounds))[args.rounds // 2]
        print(json.dumps({**name, 'what': 'prefill', 'tokens': args.prompt, 'tok_s': args.batch * args.prompt / short}), flush=True)
        whole = sorted(seconds(lambda: generate(1 + args.tokens)) for _ in range(args.rounds))[args.rounds // 2]
    token = (whole - short) / args.tokens
    print(json.dumps({**name, 'what': 'decode', 'ms_token': token * 1000, 'tok_s': args.batch / token}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--models', default='130m')
    parser.add_argument('--prompt', type=int, default=2048)
    parser.add_argument('--tokens', type=int, default=128)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--configs', type=int, default=1000)
    args = parser.parse_args()
    few_variants(args.configs)
    classes = load()
    for size in args.models.split(','):
        measure(size, args, *classes)
        torch.cuda.empty_cache()


main()
