"""A small real training that keeps checkpoints: logistic regression by stochastic gradient descent with momentum.

Usage: ``resumable_training.py PACE``. Every step is saved whole (weights, velocity, generator) by a rename, so that a
kill at any moment leaves the step before. It prints how far it is and, at the end, in how many lives, and its
weights bit for bit.
"""

# ruff: noqa: T201 - what it prints is its log

import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np

STEPS = 60
folder = Path(os.environ["MLOPS_CHECKPOINT_DIR"])
folder.mkdir(parents=True, exist_ok=True)
kept = folder / "state"

data = np.random.default_rng(1)
features = data.normal(size=(400, 8))
labels = (features @ data.normal(size=8) + data.normal(size=400) > 0).astype(float)

if kept.exists():
    step, weights, velocity, draws, lives = pickle.loads(kept.read_bytes())
else:
    step, weights, velocity, draws, lives = 0, np.zeros(8), np.zeros(8), np.random.default_rng(2), 0
lives += 1

while step < STEPS:
    batch = draws.integers(0, len(labels), 32)
    errors = 1 / (1 + np.exp(-features[batch] @ weights)) - labels[batch]
    velocity = 0.9 * velocity - 0.05 * features[batch].T @ errors
    weights = weights + velocity
    step += 1
    fresh = folder / f"state.{os.getpid()}"
    fresh.write_bytes(pickle.dumps((step, weights, velocity, draws, lives)))
    fresh.rename(kept)
    print(f"mlops progress {step / STEPS:.3f}", flush=True)
    time.sleep(float(sys.argv[1]))

print(f"lives {lives} weights {weights.tobytes().hex()}", flush=True)
