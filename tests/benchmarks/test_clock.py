"""The division of a suite's time."""

import pytest

from benchmarks import clock, job_rows, jobs


class Now:
    """A clock that advances only when the test sets it."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def job(share, least=0.0):
    return jobs.Job("job", [], job_rows.no_rows, share=share, least=least)


def test_each_job_has_its_share_and_what_it_leaves_goes_to_the_later_ones():
    now = Now()
    time = clock.Clock((60 + clock.END_SECONDS) / 60, now)
    assert time.limit(job(20), later=40) == pytest.approx(20)
    now.time += 6  # of 20
    assert time.limit(job(10), later=30) == pytest.approx(54 * 10 / 40)
    now.time += 50
    assert time.limit(job(30), later=0) == pytest.approx(4)


def test_a_job_gets_what_it_needs_at_least_or_is_not_begun():
    now = Now()
    time = clock.Clock((60 + clock.END_SECONDS) / 60, now)
    assert time.limit(job(1, least=25), later=299) == 25
    assert time.limit(job(0, least=25), later=0) == pytest.approx(60)
    now.time += 36
    assert time.limit(job(1, least=25), later=299) == 0
    now.time += 100
    assert time.left() == 0
    assert time.limit(job(1), later=0) == 0


def test_without_minutes_only_a_single_job_has_a_limit():
    time = clock.Clock(0)
    assert time.left() == float("inf")
    assert time.limit(job(1, least=25), later=10) == clock.JOB_SECONDS
