"""A parameters file of `mnist train` in PyTorch: the same network, optimizer, schedule and augmentation, as PyTorch's users
would write them. Knows what the recipes in bench/ use."""
import argparse
import json
import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy, grid_sample

import recipe
from data import load
from distortion import affine_places, amplitude, basis

parser = argparse.ArgumentParser()
for name in ("data_dir", "recipe"):
    parser.add_argument(f"--{name}", required=True)
for name in ("seed", "threads"):
    parser.add_argument(f"--{name}", type=int, required=True)
f = parser.parse_args()
torch.set_num_threads(f.threads)
torch.set_flush_denormal(True)
torch.manual_seed(f.seed)

p = recipe.read(f.recipe)
if unknown := recipe.unknown(f.recipe):
    raise SystemExit(f"{f.recipe}: expected keys that this peer knows, found {', '.join(unknown)}")
# What a file leaves out has the defaults of `mnist train`.
number = lambda key, default=0.0: float(p.get(key, default))
epochs, batch, rate = int(p["train_epochs"]), int(p.get("batch_size", 32)), number("learning_rate", 0.001)
hidden = [int(width) for width in p.get("hidden_layers", "[128]").strip("[]").split(",") if width.strip()]
augment = p.get("augment", "none")

x, y, x_test, y_test = (torch.from_numpy(array) for array in load(f.data_dir))


# What distorts as far as `mnist train` does where a file says nothing.
MOST = {"rotation": 7, "scale": 0.08, "shear": 0.05, "shift": 0.3}


def distorted(images):
    """New copies of `images` (N,784)."""
    n = len(images)
    places = affine_places(n, lambda key: number(key, MOST[key]) * (2 * torch.rand(n) - 1))
    if augment in ("elastic", "both"):
        sigma, alpha = number("elastic_sigma", 7), number("elastic_alpha", 56)
        weights = basis(sigma)
        grid = torch.randn(n, 2, len(weights), len(weights)) * amplitude(sigma, alpha)
        field = torch.einsum("ncij,iy,jx->nyxc", grid, weights, weights)
        places = places + field / 14
    return grid_sample(images.view(n, 1, 28, 28), places, align_corners=False).view(n, 784)


def train():
    """One network."""
    layers, width = [], 784
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()] + ([nn.Dropout(number("dropout", 0.2))] if number("dropout", 0.2) else [])
        width = units
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    decay = number("weight_decay")
    if p["optimizer"] == "sgd":
        # A decay of its own, times the rate, is not in SGD's arguments: `step` below does it.
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=number("momentum"),
                                    nesterov=p.get("nesterov") == "true", fused=True)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, eps=1e-7, weight_decay=decay, fused=True)
    per_epoch = math.ceil(len(x) / batch)
    steps = epochs * per_epoch
    warmup = round(steps * number("warmup") if number("warmup") < 1 else per_epoch * number("warmup"))

    def share(step):
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}.get(p.get("schedule"), 1)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    for _ in range(epochs):
        images = x if augment == "none" else torch.cat([distorted(part) for part in x.split(5000)])
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(model(images[chosen]), y[chosen]).backward()
            if p["optimizer"] == "sgd" and decay:
                with torch.no_grad():
                    torch._foreach_mul_(list(model.parameters()), 1 - decay * optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return model(x_test).softmax(1)


answer = sum(train() for _ in range(int(p.get("ensemble", 1))))
accuracy = (answer.argmax(1) == y_test).float().mean().item()
print(json.dumps({"accuracy": accuracy, "version": "PyTorch " + torch.__version__}))
