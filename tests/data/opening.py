"""Opens sources in tests, and compares their records."""

import numpy as np
import pytest

from openset_jax.data import sources
from openset_jax.errors import UserError


def error(name, **options):
    """Returns the message of the UserError that opening this source raises."""
    with pytest.raises(UserError) as caught:
        sources.open_source(name, **options)
    return str(caught.value)


def everything(source):
    """Returns {id: (role or None, class, split)} of all records."""
    roles = source.roles or (None,) * len(source.classes)
    ids = source.ids(np.arange(len(source.label)))
    assert len(set(ids)) == len(ids)
    return {
        id_: (roles[label], source.classes[label], split)
        for id_, label, split in zip(ids, source.label.tolist(), source.split.tolist(), strict=True)
    }


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return f"folder:{root}"


def check_columns(source):
    assert source.label.dtype == np.int32
    assert source.split.dtype == np.uint8
    assert len(source.label) == len(source.split)
