"""scikit-learn's MLPClassifier: a library for small networks on the processor. It has no dropout, and its epsilon is 1e-8 as
its default."""
import time

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from data import answer, flags, load

f = flags()
x, y, x_test, y_test = load(f.data_dir)
model = MLPClassifier(f.hidden, batch_size=f.batch, learning_rate_init=1e-3, alpha=0.0, random_state=f.seed)
seconds = []
for _ in range(f.epochs):
    begin = time.perf_counter()
    model.partial_fit(x, y, classes=np.arange(10))
    seconds.append(time.perf_counter() - begin)
answer(seconds, np.mean(model.predict(x_test) == y_test), "scikit-learn " + sklearn.__version__)
