"""Throughput, measured where you run it: `python -m benchmarks.{pipeline,sampler,step,end_to_end} --help`.

What is compared runs in alternating rounds inside one process (or beside one that waits), because a machine's speed drifts
by more than most differences are worth. Every table gives the median and the spread; `--json=FILE` keeps all rounds.
"""
