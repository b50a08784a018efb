"""Writes summary.txt: the table that Keras prints for the article's network."""
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras

inputs = keras.Input((100,))
x = keras.layers.Dense(128, activation="relu")(inputs)
outputs = keras.layers.Dense(10, activation="softmax")(x)
lines = []
keras.Model(inputs, outputs, name="functional").summary(print_fn=lambda text, **_: lines.append(text), line_length=76)
with open(os.path.join(os.path.dirname(__file__), "summary.txt"), "w") as file:
    file.write("\n".join(lines))
