"""Loads in transformers the models that this package saved, and compares logits with those it computed.

    npx tsx scripts/check/write_for_transformers.ts /tmp/check
    python scripts/check/check_transformers.py /tmp/check

Needs torch and transformers 5 (pip install torch transformers). Ends with status 1 when a folder does not load, a weight
is missing or unexpected, or logits differ by more than 1e-4 of their largest value. Up to 5.22 transformers norms over all channels, since
5.23 per group: models of several groups are written with either norm, and those with the other one must differ.
"""

import inspect
import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

NORM = "per_group" if "group_size" in inspect.signature(MambaRMSNormGated.__init__).parameters else "full"


def check(folder: pathlib.Path) -> bool:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: sorted(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]}
    case = json.loads((folder / "check.json").read_text())
    with torch.no_grad():
        got = model.eval()(input_ids=torch.tensor(case["input_ids"])).logits
    want = torch.tensor(case["logits"])
    difference = (got - want).abs().max().item()
    scale = max(1.0, want.abs().max().item())
    same = case["groups"] in (None, NORM)
    close = difference <= 1e-4 * scale if same else difference > 1e-2 * scale
    ok = not problems and got.shape == want.shape and close
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{'ok  ' if ok else 'FAIL'} {folder.name}: largest difference {difference:.2g} of {scale:.2g}"
          f"{'' if same else ' (another norm than here)'}, "
          f"{len(list(folder.glob('*.safetensors')))} files, {size} bytes {problems or ''}")
    return ok


folders = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/check.json"))
results = [check(folder) for folder in folders]
print(f"{sum(results)} of {len(results)} folders are as they should be in transformers {transformers.__version__}")
sys.exit(0 if results and all(results) else 1)
