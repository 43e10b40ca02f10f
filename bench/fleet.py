#!/usr/bin/env python3
"""Compares recipes of `mnist train` on a GPU with PyTorch: trains many networks at once, to choose parameters in minutes.

    python3 bench/fleet.py --data_dir=workspace/data --fleets=fleets.json --out=fleets.jsonl

`fleets.json` is a list of fleets. A fleet has `hidden_layers`, `train_epochs`, `batch_size`, `networks` (of each recipe and
fold) and `recipes`: objects with parameters of `mnist train`, which may differ from network to network (see RECIPE). Its
networks train side by side as one batched product. Optimizer: SGD with Nesterov's momentum and decoupled weight decay;
schedule: cosine. The test set is not read: of the 60,000 training images each of six folds keeps 10,000 back, and a network
is judged by those of its fold. Each recipe's answer is one line: errors of 60,000 images, of one network (the mean) and of
the mean probabilities of 1, 2, 3, … networks.

Matrix products have TF32's 11 bits and images are not rounded to bytes, so figures are near those of `mnist train`, not
the same.
"""
import argparse
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
from torch.nn.functional import grid_sample, log_softmax

sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))
from data import load
from distortion import affine_places, amplitude, basis

FOLDS = 6
# Parameters that each network may have for itself, and what they are where a recipe leaves them out.
RECIPE = {"learning_rate": 0.2, "momentum": 0.9, "weight_decay": 5e-4, "label_smoothing": 0.05, "dropout": 0.0, "rotation": 12.0,
          "scale": 0.15, "shear": 0.15, "shift": 0.5, "elastic_sigma": 5.0, "elastic_alpha": 38.0}
WARMUP = 0.05


def update(weights, velocity, gradient, rate, decay, momentum):
    velocity.mul_(momentum).sub_(rate * gradient)
    weights.mul_(1 - decay * rate).add_(momentum * velocity - rate * gradient)


class Fleet:
    def __init__(self, fleet, images, labels, device, seed):
        recipes = [{**RECIPE, **recipe} for recipe in fleet["recipes"]]
        self.networks, self.batch, self.epochs = fleet["networks"], fleet["batch_size"], fleet["train_epochs"]
        self.images, self.labels, self.device = images, labels, device
        self.size = len(recipes) * FOLDS * self.networks
        each = [recipe for recipe in recipes for _ in range(FOLDS * self.networks)]
        column = lambda key: torch.tensor([recipe[key] for recipe in each], device=device)
        self.p = {key: column(key) for key in RECIPE}
        rows = max(len(basis(recipe["elastic_sigma"])) for recipe in recipes)
        self.basis = torch.stack([basis(recipe["elastic_sigma"], rows) for recipe in each]).to(device)
        self.amplitude = amplitude(self.p["elastic_sigma"], self.p["elastic_alpha"])
        generator = torch.Generator().manual_seed(seed)
        # The same folds for every recipe.
        self.folds = torch.randperm(60000, generator=generator).view(FOLDS, 10000)
        keep = [torch.cat([self.folds[other] for other in range(FOLDS) if other != fold]) for fold in range(FOLDS)]
        self.known = torch.stack([keep[(n // self.networks) % FOLDS] for n in range(self.size)]).to(device)
        widths = [784, *fleet["hidden_layers"], 10]
        self.parameters = []
        for fan_in, fan_out in zip(widths, widths[1:]):
            limit = math.sqrt(6 / (fan_in + fan_out))
            weights = (2 * torch.rand(self.size, fan_in, fan_out, device=device) - 1) * limit
            self.parameters += [weights, torch.zeros(self.size, 1, fan_out, device=device)]
        for parameter in self.parameters:
            parameter.requires_grad_()
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.chosen = torch.zeros(self.size, self.batch, dtype=torch.long, device=device)
        self.share = torch.zeros((), device=device)
        self.mean_loss = torch.zeros((), device=device)
        self.drops = any(recipe["dropout"] for recipe in recipes)

    def distorted(self, images):
        """New copies of `images` (networks, batch, 784)."""
        n = self.size * self.batch
        within = lambda key: (self.p[key][:, None] * (2 * torch.rand(self.size, self.batch, device=self.device) - 1)).view(n)
        places = affine_places(n, within)
        rows = self.basis.shape[1]
        grid = torch.randn(self.size, self.batch * 2 * rows, rows, device=self.device) * self.amplitude[:, None, None]
        half = torch.bmm(grid, self.basis).view(self.size, self.batch * 2, rows, 28).transpose(2, 3)
        field = torch.bmm(half.reshape(self.size, -1, rows), self.basis).view(n, 2, 28, 28)
        places = places + field.permute(0, 3, 2, 1) / 14
        return grid_sample(images.view(n, 1, 28, 28), places, align_corners=False).view(self.size, self.batch, 784)

    def logits(self, x, train):
        layers = list(zip(self.parameters[::2], self.parameters[1::2]))
        for weights, biases in layers[:-1]:
            x = torch.baddbmm(biases, x, weights).relu()
            if train and self.drops:
                keep = 1 - self.p["dropout"][:, None, None]
                x = x * (torch.rand_like(x) < keep) / keep
        return torch.baddbmm(layers[-1][1], x, layers[-1][0])

    def step(self):
        with torch.no_grad():
            x = self.distorted(self.images[self.chosen])
        y = self.labels[self.chosen]
        logs = log_softmax(self.logits(x, True), 2)
        smooth = self.p["label_smoothing"][:, None]
        right = logs.gather(2, y[:, :, None])[:, :, 0]
        loss = -((1 - smooth) * right + smooth * logs.mean(2)).mean(1)
        gradients = torch.autograd.grad(loss.sum(), self.parameters)
        with torch.no_grad():
            self.mean_loss.copy_(loss.mean())
            wide = lambda key: self.p[key][:, None, None]
            rate = wide("learning_rate") * self.share
            for n, gradient in enumerate(gradients):
                self.update(self.parameters[n].detach(), self.velocities[n], gradient, rate, wide("weight_decay"), wide("momentum"))

    def train(self):
        """Returns seconds a step, the median over the epochs after the first."""
        per_epoch = self.known.shape[1] // self.batch
        steps, done = self.epochs * per_epoch, 0
        warmup = round(steps * WARMUP)
        self.update = update
        replay = self.step
        if self.device == "cuda":
            torch._dynamo.reset()
            self.update = torch.compile(update, dynamic=False)
            # The warm-up and the capture train with a rate of zero: nothing changes.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
            replay = graph.replay
        seconds = []
        for epoch in range(self.epochs):
            begin = time.perf_counter()
            order = torch.rand(self.known.shape, device=self.device).argsort(1)
            order = self.known.gather(1, order)
            for s in range(per_epoch):
                self.chosen.copy_(order[:, s * self.batch:(s + 1) * self.batch])
                share = (done + 1) / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (steps - warmup)))
                self.share.fill_(share)
                replay()
                done += 1
            loss = self.mean_loss.item()
            seconds.append((time.perf_counter() - begin) / per_epoch)
            if not math.isfinite(loss):
                print("loss is not finite in epoch", epoch + 1, file=sys.stderr)
        return float(np.median(seconds[1:] or seconds))

    def judge(self):
        """For each recipe: errors of 60,000 images of one network (the mean), and of 2, 3, … networks together."""
        probabilities = torch.zeros(self.size, 10000, 10, device=self.device)
        held = torch.stack([self.folds[(n // self.networks) % FOLDS] for n in range(self.size)]).to(self.device)
        with torch.no_grad():
            for part in range(0, 10000, 1000):
                x = self.images[held[:, part:part + 1000]]
                probabilities[:, part:part + 1000] = self.logits(x, False).softmax(2)
        labels = self.labels[held].view(-1, FOLDS, self.networks, 10000)[:, :, 0]
        sums = probabilities.view(-1, FOLDS, self.networks, 10000, 10)
        single = (sums.argmax(4) != labels[:, :, None]).sum((1, 3)).float().mean(1)
        together = torch.stack([(sums[:, :, :k].sum(2).argmax(3) != labels).sum((1, 2)) for k in range(1, self.networks + 1)], 1)
        return single.tolist(), together.tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data_dir", "fleets", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, default=1)
    f = parser.parse_args()
    torch.manual_seed(f.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = (torch.from_numpy(array).to(device) for array in load(f.data_dir)[:2])
    with open(f.out, "a") as out:
        for fleet in json.load(open(f.fleets)):
            begin = time.perf_counter()
            ships = Fleet(fleet, images, labels, device, f.seed)
            step = ships.train()
            answers = zip(fleet["recipes"], *ships.judge())
            seconds = time.perf_counter() - begin
            for recipe, single, together in answers:
                line = {**{key: fleet[key] for key in ("hidden_layers", "train_epochs", "batch_size", "networks")}, "recipe": recipe,
                        "errors": single, "together": together, "step_ms": round(step * 1e3, 3), "seconds": round(seconds, 1)}
                print(json.dumps(line), flush=True)
                out.write(json.dumps(line) + "\n")
                out.flush()
            del ships
            if device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
