"""tinygrad: TinyJit captures a step once and replays it as kernels that clang compiled; the first epoch holds that. Each epoch's
images are laid out in its order first, outside the clock. A short last batch is left out."""
import importlib.metadata
import time

import numpy as np
from tinygrad import Tensor, TinyJit, Variable, nn
from tinygrad.helpers import Context

from data import answer, flags, load

f = flags()
x, y, x_test, y_test = load(f.data_dir)
Tensor.manual_seed(f.seed)
shuffle = np.random.default_rng(f.seed)
widths = [784, *f.hidden, 10]
layers = []
for fan_in, fan_out in zip(widths, widths[1:]):
    layer = nn.Linear(fan_in, fan_out)
    layers.append(layer)
    layer.weight = Tensor.glorot_uniform(fan_out, fan_in)
    layer.bias = Tensor.zeros(fan_out).contiguous()


def logits(x):
    for layer in layers[:-1]:
        x = layer(x).relu().dropout(0.2)
    return layers[-1](x)


optimizer = nn.optim.Adam(nn.state.get_parameters(layers), lr=1e-3, eps=1e-7)
steps = len(x) // f.batch


@TinyJit
@Context(TRAINING=1)
def step(images, labels, number):
    optimizer.zero_grad()
    loss = logits(images[number]).sparse_categorical_crossentropy(labels[number])
    loss.backward()
    return loss.realize(*optimizer.schedule_step())


seconds = []
for _ in range(f.epochs):
    order = shuffle.permutation(len(x))[:steps * f.batch].reshape(steps, f.batch)
    images, labels = Tensor(x[order]).realize(), Tensor(y[order].astype(np.int32)).realize()
    begin = time.perf_counter()
    for number in range(steps):
        loss = step(images, labels, Variable("number", 0, steps - 1).bind(number))
    loss.item()
    seconds.append(time.perf_counter() - begin)
predicted = np.concatenate([logits(Tensor(x_test[i:i + 1000])).argmax(1).numpy() for i in range(0, len(x_test), 1000)])
answer(seconds, (predicted == y_test).mean(), "tinygrad " + importlib.metadata.version("tinygrad"))
