"""Speed of transformers' Mamba-2 on torch CUDA with random weights, as JSON lines beside those of run.ts and train.ts.

python3 bench/cuda/peers.py --models 130m,2.7b --work prefill,decode --prompt 2048 --tokens 16 --batches 1,8,32,64,128
python3 bench/cuda/peers.py --models 130m --work train --batch 8 --length 2048

transformers calls the kernels of mamba_ssm and causal_conv1d where it finds them: --kernels FOLDER (scripts/cuda/pack_peers.sh) brings them, without it
they stay out. Decoding starts from states of zeros; they are float32, as transformers makes them.
"""
import torch

from peer_work import Device, Lines, arguments, size_of, time_decode, time_prefill, time_training

args = arguments([('--kernels', {'help': 'folder of mamba_ssm and causal_conv1d'})])
kernels = None
if args.kernels:
    from ssm_sources import load
    kernels = ', '.join(load(args.kernels, args.variants))
import transformers  # noqa: E402: looks for the kernels when it is imported
from transformers import Mamba2Config, Mamba2ForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.set_verbosity_error()


def build(size, dtype):
    hidden, layers, groups, vocab, tied = size_of(size, args)
    config = Mamba2Config(hidden_size=hidden, num_hidden_layers=layers, n_groups=groups, vocab_size=vocab, tie_word_embeddings=tied,
                          head_dim=64, num_heads=2 * hidden // 64, state_size=128, initializer_range=0.02,
                          bos_token_id=0, eos_token_id=0, pad_token_id=0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(args.device):
            return Mamba2ForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)


def zero_states(model, batch):
    """Arguments of `model` that hold states of zeros for `batch` rows, made from those of one short row."""
    out = model(torch.zeros(1, 4, dtype=torch.long, device=args.device), use_cache=True, logits_to_keep=1)
    key = 'past_key_values' if getattr(out, 'past_key_values', None) is not None else 'cache_params'
    cache = getattr(out, key)
    for layer in cache.layers:
        for states in (layer.conv_states, layer.recurrent_states):
            states[0] = torch.zeros(batch, *states[0].shape[1:], dtype=states[0].dtype, device=args.device)
    return {key: cache}, str(cache.layers[0].recurrent_states[0].dtype).removeprefix('torch.')


def prefill(lines, device, model, vocab):
    """A prompt of the wanted length, or the half, a quarter … of it if the memory does not suffice."""
    length = args.prompt
    while length >= 256 or length == args.prompt:
        ids = torch.arange(length, device=args.device)[None] * 37 % vocab
        work = lambda: model(ids, use_cache=True, logits_to_keep=1)  # noqa: E731
        if lines.attempt(device, lambda: time_prefill(lines, device, args, work, length), what='prefill', batch=1, tokens=length):
            return
        length //= 2


def decode(lines, device, model, batch):
    states, dtype = zero_states(model, batch)
    last = [torch.zeros(batch, 1, dtype=torch.long, device=args.device)]

    def steps(count):
        for _ in range(count):
            last[0] = model(last[0], use_cache=True, **states).logits[:, -1].argmax(-1, keepdim=True)
    time_decode(lines, device, args, steps, batch, state=dtype)


def main():
    device = Device(args)
    work = args.work.split(',')
    versions = {'transformers': transformers.__version__, 'torch': torch.__version__, 'kernels': kernels}
    engine = 'transformers + kernels' if kernels else 'transformers'
    for size in args.models.split(','):
        lines = Lines(engine=engine, model=size, dtype='bfloat16', gpu=device.name, versions=versions, **({'layers': args.layers} if args.layers else {}))
        vocab = size_of(size, args)[3]
        if 'prefill' in work or 'decode' in work:
            model = build(size, torch.bfloat16).eval()
            with torch.inference_mode():
                if 'prefill' in work:
                    prefill(lines, device, model, vocab)
                if 'decode' in work:
                    for batch in map(int, args.batches.split(',')):
                        lines.attempt(device, lambda: decode(lines, device, model, batch), what='decode', batch=batch)
            del model
        if 'train' in work:
            model = build(size, torch.float32).train()
            time_training(lines, device, args, model, lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss, vocab)
            del model
        device.forget()


main()
