"""The images of a run: the config's `data` as frozen values, and their comparison with packed arrays."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from openset_jax.data.pools import ROLES
from openset_jax.errors import UserError, normalisation_note


@dataclasses.dataclass(frozen=True)
class ImagesSpec:
    """One `images(...)` of configs/default.py: classes of one source in one role."""

    source: str
    classes: tuple[str, ...]
    limit: int
    group: str
    train: str
    validation: str
    test: str


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The images of each role, and the rest of the config's `data` except the sizes and the normalisation of images.

    Attributes:
      packed: folder of packed arrays, from which the images of all roles are read; "" if images are not packed.
      tfds_data_dir: where TFDS data sets are prepared; "" for TFDS's default.
      validation_fraction, test_fraction: shares split off where the source has no such split.
      max_bad_fraction: share of unreadable images above which the run ends.
      max_pixels: images of more pixels are unreadable.
      negative_groups: the number of groups of negatives to keep, chosen by the seed; None for all.
    """

    known: tuple[ImagesSpec, ...]
    negatives: tuple[ImagesSpec, ...]
    held_out_negatives: tuple[ImagesSpec, ...]
    unknown: tuple[ImagesSpec, ...]
    packed: str
    tfds_data_dir: str
    validation_fraction: float
    test_fraction: float
    max_bad_fraction: float
    max_pixels: int
    negative_groups: int | None

    def chosen_images(self) -> dict[str, Any]:
        """Returns {role: its `images(...)` without `source`, "validation_fraction", "test_fraction"}, as JSON values.

        Sources are left out, because images may be packed on one machine and used on another.
        """
        whole = json.loads(json.dumps(dataclasses.asdict(self)))
        for role in ROLES:
            for images in whole[role]:
                del images["source"]
        return {name: whole[name] for name in (*ROLES, "validation_fraction", "test_fraction")}


def check_prepared(data: DataSpec, prepared_as: Mapping[str, Any]) -> None:
    """Raises UserError, naming the field, if the config selects other images than those in its packed arrays.

    A role that is empty in the config is not compared; it gets the packed images of that role. `prepared_as` is
    `DataSpec.chosen_images` of the config that the images were packed with.
    """
    for name, now in data.chosen_images().items():
        before = prepared_as.get(name)
        if now == before or now == []:
            continue
        field = f"data.{name}"
        if isinstance(now, list) and before and len(now) == len(before) == 1:
            part = next((part for part, value in now[0].items() if value != before[0].get(part)), None)
            field, before, now = (f"{field}.{part}", before[0].get(part), now[0][part]) if part else (field, before, now)
        raise UserError(
            f"{field}: this config has {_short(now)}, but the images in data.packed={data.packed} were prepared with "
            f"{_short(before)}{normalisation_note(_names(before), _names(now))}. Restore the field, or run "
            "openset_jax.prepare with this config"
        )


def _names(value):
    return [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]


def _short(value, most=80):
    text = "nothing" if value in ([], None) else repr(value)
    return text if len(text) <= most else text[:most] + "..."
