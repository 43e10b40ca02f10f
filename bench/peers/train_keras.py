"""Keras on TensorFlow, as `mnist.py` of the MLCube example uses it."""
import os
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow as tf

from data import answer, flags, load

f = flags()
tf.keras.utils.set_random_seed(f.seed)
x, y, x_test, y_test = load(f.data_dir)
layers = [tf.keras.layers.Input((784,))]
for hidden in f.hidden:
    layers += [tf.keras.layers.Dense(hidden, activation="relu"), tf.keras.layers.Dropout(0.2)]
model = tf.keras.Sequential([*layers, tf.keras.layers.Dense(10, activation="softmax")])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

seconds = []
for _ in range(f.epochs):
    begin = time.perf_counter()
    model.fit(x, y, batch_size=f.batch, epochs=1, verbose=0)
    seconds.append(time.perf_counter() - begin)
answer(seconds, model.evaluate(x_test, y_test, verbose=0)[1], "Keras on TensorFlow " + tf.__version__)
