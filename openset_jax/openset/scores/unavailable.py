"""The exception of a score that has no value for a network."""


class ScoreUnavailable(ValueError):
    """The score cannot be computed for this network and its training images; the message says why.

    It is not raised for arguments of a wrong shape or range, which are mistakes of the caller.
    """
