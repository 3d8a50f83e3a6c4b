"""Lines on how far a pass over images is: every half minute, and none for a short pass."""

import time

from openset_jax.training.pace import Pace


def test_a_line_is_printed_every_half_minute(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace("scores of the test vectors:", 5_000)
    for now, done in ((110.0, 500), (132.0, 2_000), (150.0, 3_000), (162.0, 4_000), (200.0, 5_000)):  # noqa: B007
        pace.at(done)
    assert capsys.readouterr().out.splitlines() == [
        "scores of the test vectors: 2,000/5,000  62/s  48 seconds left",
        "scores of the test vectors: 4,000/5,000  65/s  16 seconds left",
    ]
