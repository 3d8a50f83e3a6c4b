"""Benchmarks of this machine: `python -m benchmarks.{suite,variants,step,pipeline,...} --help`.

Contenders run in alternating rounds inside one process (or beside a process that waits), because a machine's speed
drifts by more than most differences. Every table has the median and the range; `--json=FILE` writes all rounds.
"""
