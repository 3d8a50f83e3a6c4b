"""The forecast: once, from a few training calls, without compilation and pauses."""

import pytest
from small_run import small_spec

from openset_jax.training import forecast

PROGRAM = small_spec(steps=1_000).program


class Clock:
    """A clock that stands still until it is set forward."""

    now = 100.0

    def __call__(self):
        return self.now


def told(seconds, *, program=PROGRAM, start=0, pauses=(), compiled=40.0):
    """{number of calls: text} of a run whose first call takes `compiled` seconds, and later ones `seconds` each.

    After each call of `pauses` there is a pause of an hour.
    """
    clock, found = Clock(), {}
    made = forecast.Forecast(program, start, clock)
    made.begin(compiles=True)
    for call in range(1, (program.steps - start) // program.steps_per_call + 1):
        clock.now += compiled if call == 1 else seconds
        if text := made.end(start + call * program.steps_per_call):
            found[call] = text
        if call in pauses:
            clock.now += 3600
            made.begin(compiles=False)
    return found


def test_it_is_told_once_after_twenty_calls_or_ten_seconds_without_the_call_that_compiles():
    line = "About {} for the 1,000 steps, measured on {} of them; evaluation is not included."
    assert told(0.25) == {21: line.format("4.2 minutes", 20)}
    assert told(2.0) == {6: line.format("33 minutes", 5)}
    assert told(60.0) == {2: line.format("17 hours", 1)}


def test_pauses_do_not_count_and_calls_between_two_pauses_do():
    assert told(2.0, pauses=range(100)) == told(2.0, pauses=(1, 3)) == told(2.0)


def test_a_call_that_compiles_again_does_not_count():
    clock = Clock()
    made = forecast.Forecast(PROGRAM, 0, clock)
    for step in range(1, 12):
        made.begin(compiles=step in (1, 5))
        clock.now += 100.0 if step in (1, 5) else 1.0
        assert not made.end(step)
    made.begin(compiles=False)
    clock.now += 1.0
    assert "17 minutes" in made.end(12)


def test_a_resumed_run_and_calls_of_several_steps():
    program = small_spec(**{"steps": 1_000, "steps_per_call": 2, "checkpoint.every": 4}).program
    remaining = "About 27 minutes for the remaining 800 steps, measured on 10 of them; evaluation is not included."
    assert told(4.0, program=program, start=200) == {4: remaining.replace("10 of", "6 of")}
    assert told(2.0, start=200) == {6: remaining.replace("10 of", "5 of")}


@pytest.mark.parametrize("steps", [5, 21])
def test_a_run_that_ends_before_says_nothing(steps):
    assert told(0.1, program=small_spec(steps=steps).program) == {}


def test_more_than_a_day_is_a_warning_with_remedies():
    assert "\n" not in forecast.text(24 * 3600, 50_000, 12)
    line, warning = forecast.text(65.3 * 3600, 50_000, 12).split("\n")
    assert line == "About 65 hours for the 50,000 steps, measured on 12 of them; evaluation is not included."
    assert warning.startswith(
        "Warning: more than 24 hours; train fewer epochs (--config.epochs=30, for example), start from"
    )
    assert "accelerator" in warning
