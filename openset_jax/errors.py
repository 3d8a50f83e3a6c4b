"""The one exception that means "the person must change something"."""


class UserError(Exception):
    """Bad configuration, data or workdir: the message says what is wrong, where, and what to do.

    Commands print the message alone, without a traceback, and exit with code 2.
    """


class Stopped(Exception):
    """The run was stopped by a signal after everything was saved: exit code 3."""
