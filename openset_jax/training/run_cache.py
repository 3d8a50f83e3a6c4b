"""Caches pools, networks and compiled steps across the runs of one process.

A single run makes everything once anyway. An experiment makes many runs, most of which see the same images and compile to
the same programs: here they find what the run before has left.
"""

import collections
import functools
import json
from typing import Any

from openset_jax import auto, build, programs
from openset_jax import config as configs
from openset_jax.data.unreadable import Skipped

# What programs do not depend on: arguments of theirs, or of no concern to them. A field that is not here keeps them apart.
_NOT_IN_TRAINING = (
    "seed", "log_every", "init_from", "data.known", "data.negatives", "data.held_out_negatives", "data.unknown",
    "data.packed", "data.root", "data.tfds_data_dir", "data.validation_fraction", "data.test_fraction",
    "data.max_bad_fraction", "data.negative_groups", "sampling.", "objective.class_weights",
    "objective.effective_number_beta",
    "objective.logit_adjustment", "decision.", "eval.", "checkpoint.", "early_stopping.",
)  # fmt: skip
_NOT_IN_EVALUATION = (
    *_NOT_IN_TRAINING, "steps", "batch_size", "steps_per_call", "optimizer.", "trainable", "augment.", "objective.magnitude",
    "objective.ring_weight", "objective.margins", "objective.negative_weight",
)  # fmt: skip
_MOST = {
    "pool": 4,
    "network": 8,
    "step": 8,
    "inference": 8,
}  # so many are kept, the newest; of feeds, which hold images, one


class Workshop:
    """The pieces of runs.

    The last few pools are kept, the last one's way to the devices, and the last few programs that read from it.
    """

    def __init__(self):
        self._made = collections.defaultdict(collections.OrderedDict)

    def pool(self, config: Any) -> Any:
        """See `build.open_pool`."""
        chosen_by = config.seed if config.data.get("negative_groups") else None
        return self._once("pool", (chosen_by, _key(config, only=("data.",))), build.open_pool, config)

    def input(self, config: Any, pool: Any) -> auto.Input:
        """See `auto.choose_input`. Chosen once for a pool: once its images are on the devices, less memory is free."""

        def choose():
            if config.input == auto.AUTO:
                self._let_go_of_images()
            return auto.choose_input(config, pool)

        return self._once("input", (pool, _key(config, only=("input", "shard_resident"))), choose)

    def feed(self, config: Any, pool: Any) -> tuple[Any, Skipped]:
        """(see `build.make_feed`, the images of the pool that cannot be read)."""
        chosen = config.copy_and_resolve_references()
        chosen.input = self.input(config, pool).name

        def make():
            self._let_go_of_images()
            skipped = Skipped(pool, config.data.max_bad_fraction)
            return build.make_feed(chosen, pool, skipped), skipped

        return self._once("feed", (pool, _key(chosen, only=("input", "shard_resident", "data.max_bad_fraction"))), make)

    def _let_go_of_images(self):
        for kind in ("feed", "step", "inference"):  # they hold the images of another pool
            self._made[kind].clear()

    def network(self, config: Any, num_classes: int) -> tuple[Any, Any, Any]:
        """(see `build.make_model`, and the two of `build.make_optimizer`)."""
        make = lambda: (build.make_model(config, num_classes), *build.make_optimizer(config))
        return self._once("network", (num_classes, _key(config, without=_NOT_IN_TRAINING)), make)

    def train_step(self, config: Any, model: Any, optimizer: Any, feed: Any, weights: Any, margins: Any = None) -> Any:
        """See `programs.make_train_step`."""
        shared = (id(feed.store), len(weights.prior), weights.negative_weight, tuple(margins or ()))
        program = self._once(
            "step", (*shared, _key(config, without=_NOT_IN_TRAINING)), programs.make_train_program,
            config, model, optimizer, feed, weights, margins,
        )  # fmt: skip
        return functools.partial(program, programs.make_given(config, model, weights))

    def inference(self, config: Any, model: Any, pool: Any, feed: Any, skipped: Skipped) -> Any:
        """See `programs.make_inference`."""
        key = (pool, id(feed.store), model.num_outputs, _key(config, without=_NOT_IN_EVALUATION), config.eval.batch_size)
        return self._once("inference", key, programs.make_inference, config, model, pool, feed, skipped)

    def _once(self, kind, key, make, *arguments):
        made = self._made[kind]
        if key not in made:
            made[key] = make(*arguments)
        made.move_to_end(key)
        while len(made) > _MOST.get(kind, 1):
            made.popitem(last=False)
        return made[key]


def _key(config, only=("",), without=()):
    """The fields of a config that begin with one of `only`, and with none of `without`."""
    chosen = configs.fields(configs.to_json(config))
    return json.dumps([(n, v) for n, v in chosen if n.startswith(tuple(only)) and not n.startswith(tuple(without))])
