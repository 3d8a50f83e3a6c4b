import base64
import io

import numpy as np
import pytest
from PIL import Image

from openset_jax.openset.scored import Scored
from openset_jax.report import mistakes

KINDS = {"seen_negatives": ["n"], "unseen_unknowns": ["u"]}
ROWS = [  # label, group, score, known_class, decision, p(decision)
    (0, "a", 0.1, 0, 0, 0.9),  # right
    (0, "a", 0.9, 0, 2, 0.8),  # rejected
    (1, "b", 0.95, 1, 2, 0.6),  # rejected, and looks more unknown
    (1, "b", 0.2, 0, 0, 0.7),  # the other class
    (0, "a", 0.3, 1, 1, 0.99),  # the same, and surer, at a higher score
    (-1, "n", 0.4, 0, 0, 0.5),  # accepted
    (-1, "n", 0.05, 1, 1, 0.6),  # accepted at a lower score
    (-1, "n", 0.8, 0, 2, 0.9),  # right
    (-2, "u", 0.3, 1, 1, 0.6),  # accepted
]


def case():
    label, group, score, known_class, decision, p = map(np.array, zip(*ROWS, strict=True))
    posterior = np.full((len(ROWS), 3), 0.0)
    posterior[np.arange(len(ROWS)), decision] = p
    return Scored(label, group.astype(object), score, known_class, None, decision), posterior


def chosen(found):
    return [rows.tolist() for rows in found.values()]


def test_the_worst_of_each_sort_come_first():
    scored, posterior = case()
    found = mistakes.worst(scored, posterior, KINDS)
    assert chosen(found) == [[2, 1], [6, 5], [8], [4, 3]]
    assert [name.split(",")[0] for name in found] == [
        'known images answered "none"',
        "seen negatives that were accepted",
        "unseen unknowns that were accepted",
        "known images classified as another known class",
    ]


def test_without_probabilities_the_lowest_score_is_the_surest():
    scored, _ = case()
    assert chosen(mistakes.worst(scored, None, KINDS)) == [[2, 1], [6, 5], [8], [3, 4]]


def test_at_most_so_many():
    assert chosen(mistakes.worst(*case(), KINDS, count=1)) == [[2], [6], [8], [4]]


def test_no_mistakes_and_no_images():
    scored, posterior = case()
    right = np.isin(np.arange(len(ROWS)), [0, 7])
    assert chosen(mistakes.worst(scored[right], posterior[right], KINDS)) == [[], [], [], []]
    nothing = np.zeros(len(ROWS), bool)
    assert chosen(mistakes.worst(scored[nothing], posterior[nothing], KINDS)) == [[], [], [], []]


@pytest.mark.parametrize(("size", "shown"), [(8, 8), (192, 192), (400, 192)])
def test_images_are_png_of_bounded_size(size, shown):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    head, _, body = mistakes.data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert read.shape == (shown, shown, 3)
    if size == shown:
        np.testing.assert_array_equal(read, image)


def test_one_known_class_cannot_be_confused():
    label, score = np.array([0, 0, -1]), np.array([0.1, 0.9, 0.2])
    group, decision = np.array(["a", "a", "n"], object), np.array([0, 1, 0])
    posterior = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    found = mistakes.worst(Scored(label, group, score, np.zeros(3, int), decision, decision), posterior, KINDS)
    assert chosen(found) == [[1], [2], []] and not any("another known class" in name for name in found)
