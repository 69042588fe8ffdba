"""Converts every golden checkpoint with `mamba2 convert` and asks transformers, torch and safetensors whether they agree.

    python scripts/check/check_conversions.py      (needs torch, transformers, safetensors and Node)

For each format: the converted folder loads in transformers without a missing or unexpected tensor; every parameter is,
bit for bit, what torch.load or safetensors reads from the original; logits are the golden ones (for one group: with
several, transformers normalises over all channels, which is not this model). The way over a TensorFlow.js model and
back gives the same file.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).parents[2]
FORMATS = ROOT / 'test/fixtures/goldens/formats'
EXPECTED = load_file(FORMATS / 'expected.safetensors')
INPUTS = json.loads((FORMATS / 'inputs.json').read_text())
LOGITS = {'single': 'fp32', 'sharded': 'fp32', 'bf16': 'bf16', 'mixed-dtype': 'mixed-dtype', 'state-spaces': 'state-spaces'}


def convert(src, dst, *options):
    subprocess.run(['node', ROOT / 'bin/mamba2.js', 'convert', src, dst, *options], check=True, capture_output=True)


def original(name):
    """The tensors of a golden folder, read by torch or safetensors, under Hugging Face's names."""
    folder = FORMATS / name
    if name == 'state-spaces':
        tensors = torch.load(folder / 'pytorch_model.bin', weights_only=True)
    else:
        tensors = {}
        for file in folder.glob('*.safetensors'):
            tensors |= load_file(file)
    names = {key: key.removeprefix('model.').replace('backbone.embedding.', 'backbone.embeddings.') for key in tensors}
    return {names[key]: tensor for key, tensor in tensors.items()}


def check(name, work):
    convert(FORMATS / name, work / name, '--max-shard-size', '40kB')
    model, info = AutoModelForCausalLM.from_pretrained(work / name, dtype=torch.float32, output_loading_info=True)
    assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys'], info
    state = model.state_dict()
    want = original(name)
    for key, tensor in want.items():
        assert torch.equal(state[key], tensor.float()), f'{name}: {key} differs'
    stored = {}
    for file in (work / name).glob('*.safetensors'):
        stored |= load_file(file)
    for key, tensor in stored.items():
        assert tensor.dtype == want[key].dtype and torch.equal(tensor, want[key]), f'{name}: stored {key} differs'
    worst = None
    if name in LOGITS:
        with torch.no_grad():
            logits = model(torch.tensor(INPUTS['input_ids'])).logits
        worst = (logits - EXPECTED[f'{LOGITS[name]}.logits']).abs().max().item()
        assert worst < 1e-4, f'{name}: logits off by {worst}'
    convert(work / name, work / f'{name}-tfjs', '--format', 'tfjs')
    convert(work / f'{name}-tfjs', work / f'{name}-back', '--max-shard-size', '40kB')
    for file in (work / name).iterdir():
        assert file.read_bytes() == (work / f'{name}-back' / file.name).read_bytes(), f'{name}: {file.name} changed'
    told = '' if worst is None else f', logits within {worst:.1e}'
    print(f'{name}: {len(want)} tensors equal{told}, same over TensorFlow.js and back')


with tempfile.TemporaryDirectory() as work:
    for name in [*LOGITS, 'codestral-native']:
        check(name, pathlib.Path(work))
print(f'{len(LOGITS) + 1} passed, 0 failed', file=sys.stderr)
