"""Speed of the authors' mamba_ssm with random weights, as JSON lines beside those of run.ts: CUDA graphs in decoding, as its own benchmark has them.

PYTHONPATH=mamba_ssm-2.3.2.post1 python3 bench/cuda/peers_ssm.py --model 130m --prompt 2048 --tokens 128
Runs from the unbuilt sources: Mamba-2 needs their Triton kernels alone. selective_scan_cuda (Mamba-1) is stubbed out, and without causal_conv1d the
convolution of a step is a few PyTorch kernels where it would be one of their own.
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--model', default='130m')
    parser.add_argument('--prompt', type=int, default=2048)
    parser.add_argument('--tokens', type=int, default=128)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    MambaConfig, MambaLMHeadModel = load()
    hidden, layers, groups, vocab, tied = SIZES[args.model]
    config = MambaConfig(d_model=hidden, n_layer=layers, vocab_size=vocab, tie_embeddings=tied, pad_vocab_size_multiple=1,
                         ssm_cfg={'layer': 'Mamba2', 'ngroups': groups})
    model = MambaLMHeadModel(config, device='cuda', dtype=torch.bfloat16).eval()
    ids = torch.randint(0, vocab, (args.batch, args.prompt), device='cuda')

    def generate(count):
        model.generate(input_ids=ids, max_length=args.prompt + count, cg=True, top_k=1)

    name = {'model': args.model, 'dtype': 'bfloat16', 'batch': args.batch, 'engine': 'mamba_ssm 2.3.2 on ' + torch.cuda.get_device_name()}
    with torch.inference_mode():
        generate(2)
        prefill = sorted(seconds(lambda: generate(1)) for _ in range(args.rounds))[args.rounds // 2]
        whole = sorted(seconds(lambda: generate(1 + args.tokens)) for _ in range(args.rounds))[args.rounds // 2]
    token = (whole - prefill) / args.tokens
    print(json.dumps({**name, 'what': 'prefill', 'tokens': args.prompt, 'tok_s': args.batch * args.prompt / prefill}), flush=True)
    print(json.dumps({**name, 'what': 'decode', 'ms_token': token * 1000, 'tok_s': args.batch / token}), flush=True)


main()
