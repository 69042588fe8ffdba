"""Adapters of this package in PEFT, and PEFT's in this package: equal logits both ways.

    pip install torch transformers peft
    python scripts/check/check_peft.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Mamba2ForCausalLM

root = Path(__file__).resolve().parents[2]


def ours(mode: str, folder: Path) -> None:
    subprocess.run(["node", "--import", "tsx", "scripts/check/adapters_for_peft.ts", mode, str(folder)], cwd=root, check=True)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ours("write", folder)
    case = json.loads((folder / "ours.json").read_text())
    ids = torch.tensor(case["input_ids"])

    base = Mamba2ForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(base, folder / "ours").eval()
    with torch.no_grad():
        got = model(ids, use_cache=False).logits.flatten()
    worst = (got - torch.tensor(case["logits"])).abs().max().item()
    print(f"this package's adapter in PEFT: largest difference of logits {worst:.1e}")
    if not worst < 1e-4:
        sys.exit(1)

    torch.manual_seed(0)
    base = Mamba2ForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["in_proj", "embeddings"], modules_to_save=["lm_head"], init_lora_weights=False
    )
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.05)
        logits = model(ids, use_cache=False).logits
    model.save_pretrained(folder / "theirs")
    (folder / "theirs.json").write_text(json.dumps({"logits": logits.flatten().tolist()}))
    ours("read", folder)
