"""Speed of the authors' mamba_ssm with random weights, as JSON lines beside those of run.ts and train.ts: decoding in CUDA graphs, as its own generation has it.

python3 bench/cuda/peers_ssm.py .gpu/ssm --models 130m,2.7b --work prefill,decode --prompt 2048 --tokens 128 --batches 1,8
python3 bench/cuda/peers_ssm.py .gpu/ssm --models 7b --work int4
python3 bench/cuda/peers_ssm.py .gpu/ssm --models 130m --work train --batch 8 --length 2048

The folder is made by scripts/cuda/pack_peers.sh. Decoding starts from states of zeros, in bfloat16 as its states are; a token is one replay and an argmax.
int4: PyTorch's own product of int4 weights in groups of 128 (scale and zero in bfloat16) stands in for both projections and the head.
"""
import torch
import torch.nn.functional as F

from peer_work import Device, Lines, arguments, size_of, time_decode, time_prefill, time_training
from ssm_sources import load

GROUP = 128


class Int4Linear(torch.nn.Module):
    """Random codes in place of a layer's weight [out, inner]."""

    def __init__(self, linear):
        super().__init__()
        (out, inner), device = linear.weight.shape, linear.weight.device
        codes = torch.randint(0, 256, (out, inner // 2), dtype=torch.uint8, device=device)
        self.register_buffer('weight', torch.ops.aten._convert_weight_to_int4pack(codes, 8))
        self.register_buffer('scale_zero', torch.full((inner // GROUP, out, 2), 0.004, dtype=torch.bfloat16, device=device))
        self.out = out

    def forward(self, x):
        y = torch.ops.aten._weight_int4pack_mm(x.reshape(-1, x.shape[-1]), self.weight, GROUP, self.scale_zero)
        return y.reshape(*x.shape[:-1], self.out)


def to_int4(model):
    for layer in model.backbone.layers:
        layer.mixer.in_proj = Int4Linear(layer.mixer.in_proj)
        layer.mixer.out_proj = Int4Linear(layer.mixer.out_proj)
    model.lm_head = Int4Linear(model.lm_head)


def decode(lines, device, args, model, batch):
    from mamba_ssm.utils.generation import update_graph_cache
    longest = args.warm + args.tokens * args.rounds + 2
    cache = update_graph_cache(model, None, batch, 1, longest)
    ids = torch.zeros(batch, 1, dtype=torch.long, device=args.device)
    last, position = [ids], torch.ones_like(ids)

    def steps(count):
        for _ in range(count):
            last[0] = cache.run(last[0], position, 1).squeeze(1).argmax(-1, keepdim=True)
    time_decode(lines, device, args, steps, batch, state='bfloat16')


def prefill(lines, device, args, model, vocab):
    from mamba_ssm.utils.generation import InferenceParams
    ids = torch.arange(args.prompt, device=args.device)[None] * 37 % vocab

    def work():
        model(ids, inference_params=InferenceParams(max_seqlen=args.prompt + 1, max_batch_size=1), num_last_tokens=1)
    time_prefill(lines, device, args, work, args.prompt)


def loss_of(model, ids):
    logits = model(ids).logits
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())


def main():
    args = arguments([('folder', {'help': "what scripts/cuda/pack_peers.sh made"})])
    version, convolution = load(args.folder, args.variants)
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    device = Device(args)
    work = args.work.split(',')
    batches = [int(b) for b in args.batches.split(',')]
    for size in args.models.split(','):
        hidden, layers, groups, vocab, tied = size_of(size, args)
        versions = {'mamba_ssm': version.split()[1], 'convolution': convolution, 'torch': torch.__version__}
        lines = Lines(engine='mamba_ssm', model=size, dtype='bfloat16', gpu=device.name, versions=versions, **({'layers': args.layers} if args.layers else {}))
        config = MambaConfig(d_model=hidden, n_layer=layers, vocab_size=vocab, tie_embeddings=tied, pad_vocab_size_multiple=1,
                             ssm_cfg={'layer': 'Mamba2', 'ngroups': groups, 'use_mem_eff_path': convolution.startswith('causal')})
        if {'prefill', 'decode', 'int4'} & set(work):
            model = MambaLMHeadModel(config, device=args.device, dtype=torch.bfloat16).eval()
            with torch.inference_mode():
                if 'prefill' in work:
                    lines.attempt(device, lambda: prefill(lines, device, args, model, vocab), what='prefill', batch=1, tokens=args.prompt)
                if 'decode' in work:
                    for batch in batches:
                        lines.attempt(device, lambda: decode(lines, device, args, model, batch), what='decode', batch=batch)
                if 'int4' in work:
                    lines.fields['int4'] = True
                    if lines.attempt(device, lambda: to_int4(model), what='decode', batch=1):
                        for batch in batches:
                            lines.attempt(device, lambda: decode(lines, device, args, model, batch), what='decode', batch=batch)
                    del lines.fields['int4']
            del model
        if 'train' in work:
            model = MambaLMHeadModel(config, device=args.device, dtype=torch.float32).train()
            time_training(lines, device, args, model, lambda ids: loss_of(model, ids), vocab)
            del model
        device.forget()


main()
