"""Kernels are summed by name over the streams of devices; other events of a profile are not counted."""

from types import SimpleNamespace as Named

from benchmarks import kernels


def event(name, ns, op=""):
    return Named(name=name, duration_ns=ns, stats=[("hlo_op", op)] if op else [])


def test_launches_are_those_on_streams_of_devices():
    stream = Named(
        name="Stream #1(Compute)", events=[event("gemm", 5.0, "dot.1"), event("gemm", 7.0, "dot.1"), event("copy", 1.0)]
    )
    host = Named(name="/host:CPU", lines=[Named(name="Stream #1", events=[event("other", 9.0)])])
    device = Named(name="/device:GPU:0", lines=[stream, Named(name="XLA Modules", events=[event("whole step", 13.0)])])
    profiles = [Named(planes=[host, device]), Named(planes=[])]
    assert kernels.launches(profiles) == {"dot.1: gemm": [5.0, 7.0], "copy": [1.0]}


def test_there_are_none_on_a_cpu():
    assert kernels.slowest(lambda: None) == []
