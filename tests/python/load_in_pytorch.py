"""Loads model.safetensors into PyTorch's nn.Linear and compares logits. Usage: load_in_pytorch.py MODEL CASES.json

CASES.json: {"images": [[784 bytes], ...], "logits": [[10 numbers], ...]}. Fails where a logit is off by more than 1e-4.
"""
import json
import sys

import torch
from safetensors.torch import load_file

tensors = load_file(sys.argv[1])
layers = []
for index in range(len(tensors) // 2):
    weight, bias = tensors[f"layers.{index}.weight"], tensors[f"layers.{index}.bias"]
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    layers += [linear, torch.nn.ReLU()]
network = torch.nn.Sequential(*layers[:-1])

with open(sys.argv[2]) as file:
    cases = json.load(file)
with torch.no_grad():
    logits = network(torch.tensor(cases["images"], dtype=torch.float32) / 255)
difference = (logits - torch.tensor(cases["logits"])).abs().max().item()
print(f"PyTorch {torch.__version__}: largest difference {difference:.2e} over {len(cases['images'])} images")
sys.exit(0 if difference <= 1e-4 else 1)
