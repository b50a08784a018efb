"""Times a training step of the networks of bench/train with Keras on TensorFlow or JAX, or with PyTorch, a line of JSON
each.

Usage: peers.py tensorflow|jax|torch [NAME...]. A step is one of `fit` in Keras, with its default settings; in PyTorch the usual
loop over slices of tensors in memory: forward, loss, backward, Adam."""
import json
import os
import sys
import time

WHO = sys.argv[1]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = WHO
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import numpy as np

NETWORKS = {"article": (32, 1000), "dense": (128, 60), "cnn": (64, 40), "gpt": (8, 6), "lstm": (32, 30)}


def values(*shape):
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    return ((i * 7919 + i // 97) % 1009 / 1009).astype(np.float32).reshape(shape)


def classes(count, *shape):
    return (values(*shape) * count * 0.999).astype(np.int64)


def data(name):
    batch, steps = NETWORKS[name]
    n = batch * steps
    if name == "gpt":
        tokens = classes(256, n, 128)
        return [tokens, np.tile(np.arange(128), (n, 1))], tokens
    shape = {"article": (100,), "dense": (784,), "cnn": (28, 28, 1), "lstm": (64, 64)}[name]
    return [values(n, *shape)], classes(10, n)


def keras_network(name):
    import keras
    from keras import layers as L
    if name in ("article", "dense"):
        size, hidden = {"article": (100, 128), "dense": (784, 1024)}[name]
        i = keras.Input((size,))
        return keras.Model(i, L.Dense(10, activation="softmax")(L.Dense(hidden, activation="relu")(i)))
    if name == "cnn":
        i = keras.Input((28, 28, 1))
        h = L.MaxPooling2D()(L.Conv2D(32, 3, activation="relu")(i))
        h = L.MaxPooling2D()(L.Conv2D(64, 3, activation="relu")(h))
        return keras.Model(i, L.Dense(10, activation="softmax")(L.Flatten()(h)))
    if name == "lstm":
        i = keras.Input((64, 64))
        return keras.Model(i, L.Dense(10, activation="softmax")(L.LSTM(128)(i)))
    i, p = keras.Input((128,)), keras.Input((128,))
    x = L.Add()([L.Embedding(256, 256)(i), L.Embedding(128, 256)(p)])
    for _ in range(4):
        h = L.LayerNormalization()(x)
        x = L.Add()([x, L.MultiHeadAttention(8, 32)(h, h, use_causal_mask=True)])
        h = L.LayerNormalization()(x)
        x = L.Add()([x, L.Dense(256)(L.Dense(1024, activation="gelu")(h))])
    return keras.Model([i, p], L.Dense(256, activation="softmax")(L.LayerNormalization()(x)))


def time_keras(name):
    import keras
    batch, steps = NETWORKS[name]
    x, y = data(name)
    x = x if len(x) > 1 else x[0]
    model = keras_network(name)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=batch, verbose=0)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        model.fit(x, y, batch_size=batch, verbose=0)
        times.append((time.perf_counter() - started) * 1e6 / steps)
    return times


def torch_network(name):
    import torch
    from torch import nn
    if name in ("article", "dense"):
        size, hidden = {"article": (100, 128), "dense": (784, 1024)}[name]
        return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    if name == "cnn":
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
                             nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1600, 10))

    class Lstm(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x):
            return self.out(self.lstm(x)[0][:, -1])

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.LayerNorm(256), nn.LayerNorm(256)
            self.qkv, self.mix = nn.Linear(256, 768), nn.Linear(256, 256)
            self.mlp = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(self.a(x)).view(b, t, 3, 8, 32).permute(2, 0, 3, 1, 4)
            h = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.mix(h.transpose(1, 2).reshape(b, t, 256))
            return x + self.mlp(self.b(x))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(256, 256), nn.Embedding(128, 256)
            self.blocks = nn.Sequential(*[Block() for _ in range(4)])
            self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 256)

        def forward(self, x, p):
            return self.head(self.norm(self.blocks(self.tokens(x) + self.positions(p)))).flatten(0, 1)

    return {"lstm": Lstm, "gpt": Gpt}[name]()


def time_torch(name):
    import torch
    batch, steps = NETWORKS[name]
    x, y = data(name)
    x, y = [torch.from_numpy(x) for x in x], torch.from_numpy(y)
    if name == "cnn":
        x = [x[0].permute(0, 3, 1, 2).contiguous()]
    model = torch_network(name)
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = torch.nn.CrossEntropyLoss()

    def epoch():
        for at in range(0, len(y), batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(*[x[at:at + batch] for x in x]), y[at:at + batch].flatten())
            loss.backward()
            optimizer.step()

    epoch()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        epoch()
        times.append((time.perf_counter() - started) * 1e6 / steps)
    return times


for name in NETWORKS:
    if len(sys.argv) < 3 or name in sys.argv[2:]:
        times = sorted((time_torch if WHO == "torch" else time_keras)(name))
        print(json.dumps({"who": WHO, "network": name, "step_us": round(times[len(times) // 2], 1),
                          "best_us": round(times[0], 1)}), flush=True)
