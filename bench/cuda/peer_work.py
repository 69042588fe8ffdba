"""What both peers (peers.py, peers_ssm.py) do alike: sizes, arguments, timing, JSON lines, a training step."""
import argparse
import gc
import json
import time

import torch

# hidden, layers, groups, vocabulary, tied head
SIZES = {
    'tiny': (64, 2, 1, 512, True),
    '130m': (768, 24, 1, 50288, True),
    '2.7b': (2560, 64, 1, 50288, True),
    '7b': (4096, 64, 8, 32768, False),
}


def arguments(extra=()):
    parser = argparse.ArgumentParser()
    parser.add_argument('--models', default='130m')
    parser.add_argument('--work', default='prefill,decode', help='of prefill, decode, train and, in peers_ssm.py, int4')
    parser.add_argument('--prompt', type=int, default=2048, help='tokens of prefill')
    parser.add_argument('--tokens', type=int, default=64, help='tokens of decoding that are timed together')
    parser.add_argument('--warm', type=int, default=4, help='tokens of decoding before')
    parser.add_argument('--batches', default='1', help='rows of decoding')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--batch', type=int, default=8, help='rows of a training step')
    parser.add_argument('--length', type=int, default=2048, help='tokens of such a row')
    parser.add_argument('--steps', type=int, default=4, help='training steps that are timed, after one')
    parser.add_argument('--layers', type=int, help='fewer layers than the size has')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--variants', type=int, default=0, help="how many of each Triton kernel's variants its autotuner tries; 0: all")
    for flags, options in extra:
        parser.add_argument(flags, **options)
    return parser.parse_args()


def size_of(name, args):
    hidden, layers, groups, vocab, tied = SIZES[name]
    return hidden, args.layers or layers, groups, vocab, tied


class Device:
    """Waits, measures memory and says how much is in use; on a CPU only for tests of these scripts."""

    def __init__(self, args):
        self.cuda = args.device == 'cuda'
        self.name = torch.cuda.get_device_name() if self.cuda else 'cpu'

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def forget(self):
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory_mb(self):
        """Memory of the card that is taken, all of it: nothing else runs there."""
        if not self.cuda:
            return None
        free, total = torch.cuda.mem_get_info()
        return round((total - free) / 1e6)

    def ms(self, work):
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return (time.perf_counter() - start) * 1000


def middle(values):
    return sorted(values)[len(values) // 2]


class Lines:
    """Prints JSON lines that begin with the same fields."""

    def __init__(self, **fields):
        self.fields = fields

    def say(self, **fields):
        print(json.dumps({**self.fields, **fields}), flush=True)

    def attempt(self, device, work, **fields):
        """Runs `work`; memory that does not suffice, or anything else, becomes a line. Returns whether it ran."""
        device.forget()
        try:
            work()
            return True
        except torch.cuda.OutOfMemoryError as error:
            self.say(**fields, failed='out of memory', why=str(error)[:160])
        except Exception as error:
            self.say(**fields, failed=type(error).__name__, why=str(error)[:300])
        return False


def time_prefill(lines, device, args, work, length, batch=1):
    """`work` reads a prompt of `length` tokens and computes the logits of its last position."""
    first = device.ms(work)
    ms = [device.ms(work) for _ in range(args.rounds)]
    lines.say(what='prefill', batch=batch, tokens=length, first_ms=first, ms=ms, tok_s=batch * length * 1000 / middle(ms),
              memory_mb=device.memory_mb())


def time_decode(lines, device, args, steps, batch, **fields):
    """`steps(n)` decodes n tokens of each row, greedily."""
    first = device.ms(lambda: steps(args.warm))
    ms = [device.ms(lambda: steps(args.tokens)) / args.tokens for _ in range(args.rounds)]
    lines.say(what='decode', batch=batch, tokens=args.tokens, first_ms=first, ms_token=ms, tok_s=batch * 1000 / middle(ms),
              memory_mb=device.memory_mb(), **fields)


def time_training(lines, device, args, model, loss_of, vocab):
    """Steps as in train.ts: matrices in bfloat16 by autocast, gradients, clipping, AdamW with decay of what has two or more axes.

    Where all rows at once do not fit into memory, the gradients of parts of them are added up before the same clipping and AdamW.
    """
    rows, length = args.batch, args.length
    # the numbers of train.ts
    i, j = torch.arange(rows, device=args.device)[:, None], torch.arange(length, device=args.device)[None]
    ids = (i * 7919 + j * 37 + (j % 11) * i) % vocab
    parameters = list(model.parameters())
    part = rows
    while part >= 1:
        fitted = lines.attempt(device, lambda: steps(lines, device, args, model, loss_of, parameters, ids, part), what='training step',
                               batch=rows, rows_at_once=part, length=length)
        if fitted:
            return
        model.zero_grad(set_to_none=True)
        part //= 2


def steps(lines, device, args, model, loss_of, parameters, ids, part):
    groups = [{'params': [p for p in parameters if (p.ndim >= 2) == decays], 'weight_decay': 0.01 if decays else 0.0} for decays in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=device.cuda)
    losses = []

    def step():
        total = 0.0
        for rows in ids.split(part):
            with torch.autocast(args.device, dtype=torch.bfloat16):
                loss = loss_of(rows) * (len(rows) / len(ids))
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total.item())

    first = device.ms(step)
    ms = [device.ms(step) for _ in range(args.steps)]
    rows, length = ids.shape
    lines.say(what='training step', batch=rows, rows_at_once=part, length=length, first_ms=first, ms=ms, tok_s=rows * length * 1000 / middle(ms),
              losses=losses, memory_mb=device.memory_mb())
