"""JAX with optax: an epoch is one compiled scan; the first one holds the compilation. A short last batch is left out.
The order of an epoch is drawn before the clock starts, as for PyTorch; the images of a batch are gathered inside it.
--mode=laid_out copies the images into the order of the epoch before the scan, which else gathers each batch."""
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data import answer, flags, load

f = flags()
x, y, x_test, y_test = (jnp.asarray(array) for array in load(f.data_dir))
keys = iter(jax.random.split(jax.random.PRNGKey(f.seed), 100))
widths = [784, *f.hidden, 10]
parameters = []
for fan_in, fan_out in zip(widths, widths[1:]):
    limit = (6 / (fan_in + fan_out)) ** 0.5
    weights = jax.random.uniform(next(keys), (fan_in, fan_out), minval=-limit, maxval=limit)
    parameters.append((weights, jnp.zeros(fan_out)))
optimizer = optax.adam(1e-3, eps=1e-7)
state = optimizer.init(parameters)


def logits(parameters, x, key=None):
    for weights, biases in parameters[:-1]:
        x = jax.nn.relu(x @ weights + biases)
        if key is not None:
            key, now = jax.random.split(key)
            x = x * jax.random.bernoulli(now, 0.8, x.shape) / 0.8
    weights, biases = parameters[-1]
    return x @ weights + biases


def loss(parameters, x, y, key):
    return optax.softmax_cross_entropy_with_integer_labels(logits(parameters, x, key), y).mean()


@jax.jit
def epoch(parameters, state, key, order):
    def step(carry, batch_and_key):
        parameters, state = carry
        (images, labels), key = batch_and_key if f.mode == "laid_out" else gathered(*batch_and_key)
        updates, state = optimizer.update(jax.grad(loss)(parameters, images, labels, key), state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    def gathered(batch, key):
        return (x[batch], y[batch]), key

    batches = (x[order], y[order]) if f.mode == "laid_out" else order
    return jax.lax.scan(step, (parameters, state), (batches, jax.random.split(key, len(order))))[0]


seconds = []
for _ in range(f.epochs):
    key = next(keys)
    order = jax.random.permutation(key, len(x))[:len(x) // f.batch * f.batch].reshape(-1, f.batch)
    jax.block_until_ready(order)
    begin = time.perf_counter()
    parameters, state = jax.block_until_ready(epoch(parameters, state, key, order))
    seconds.append(time.perf_counter() - begin)
accuracy = np.mean(np.asarray(logits(parameters, x_test)).argmax(1) == np.asarray(y_test))
answer(seconds, accuracy, "JAX " + jax.__version__)
