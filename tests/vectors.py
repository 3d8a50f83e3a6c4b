"""Vectors of a few classes, in the layout that `features:PATH` reads."""

import csv

import numpy as np

ROLES = {"a": "known", "b": "known", "car": "negatives", "bus": "held_out_negatives", "tree": "unknown"}
SIZE = 12  # features


def vectors(count=40, seed=0):
    """(vectors float16 [n, SIZE], rows of the index): `count` of each class, around a centre of its own."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (len(ROLES), SIZE))
    found = np.concatenate([centre + rng.normal(0, 1, (count, SIZE)) for centre in centres]).astype(np.float16)
    rows = [{"id": f"{name}/{i}.jpg", "class": name, "role": role} for name, role in ROLES.items() for i in range(count)]
    return found, rows


def write(root, array, rows):
    """Writes features.npy and index.csv."""
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "features.npy", array)
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def config(root, **changes):
    """configs/features.py for a short run on `root`."""
    from configs import features

    short = {
        "data.root": str(root), "epochs": None, "steps": 20, "steps_per_call": 1, "batch_size": 16, "eval.every": 10,
        "eval.batch_size": 64, "eval.resamples": 50, "checkpoint.every": 10, "log_every": 10,
    }  # fmt: skip
    made = features.get_config()
    made.update_from_flattened_dict(short | changes)
    return made
