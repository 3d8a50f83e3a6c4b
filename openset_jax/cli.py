"""Shared by all commands: flags, --help, one-line error messages, and exit codes.

Exit codes: 0: done; 1: a bug in this program (with a traceback); 2: an error that the user can correct; 3: stopped by a
signal after everything was saved. Only absl and ml_collections are imported here, so that `--help` answers at once.
"""

import ast
import contextlib
import errno
import importlib
import os
import pathlib
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from openset_jax import config_json, unattended
from openset_jax.errors import Stopped, UserError
from openset_jax.text import printable, show

_REMEDIES = {
    errno.ENOSPC: "the disk is full ({}); free some space, and repeat the command",
    errno.EDQUOT: "the disk quota is used up ({}); free some space, and repeat the command",
    errno.EROFS: "the file system is read-only ({}); make it writable, or choose another folder, and repeat the command",
    errno.EACCES: "permission denied ({}); change the permissions, or choose another folder, and repeat the command",
    errno.EPERM: "operation not permitted ({}); change the attributes of the file, and repeat the command",
    errno.EISDIR: "a folder is in the place of a file ({}); move it away, and repeat the command",
    errno.ENOTDIR: "a file is in the place of a folder ({}); move it away, and repeat the command",
    errno.EIO: "the disk failed ({}); check it, and repeat the command",
}
_created: list[pathlib.Path] = []  # by `make_workdir`, parents before children
_CONFIG_HELP = "Config file; --config.a.b=value overrides its field a.b."


class TupleParser(tuple_parser.TupleParser):
    """Parses a config field that holds a tuple: "hat,shoes", "0,1" or Python's "('hat', 'shoes')".

    The parser of ml_collections takes "hat,shoes" as one name.
    """

    def parse(self, argument: Any) -> tuple[Any, ...]:
        """Returns the tuple; parts that are no literals are names. Raises ValueError if quotes or brackets do not match."""
        if not isinstance(argument, str) or set(argument) & set("'\"()[]{}="):
            return super().parse(argument)
        return tuple(map(_literal_or_name, argument.removesuffix(",").split(",")))


def _literal_or_name(text: str) -> Any:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
    return value if str(value) == text.strip() else text.strip()  # "1.10" may be the name of a class


def define_config(*, required: bool = True, default: str | None = None, help: str = _CONFIG_HELP) -> None:
    """Defines the flag --config=FILE. `default` is the path of a file."""
    config_flags.register_flag_parser_for_type(tuple, TupleParser())
    config_flags.DEFINE_config_file("config", default, help)
    if required:
        flags.mark_flag_as_required("config")


def run(main: Callable[..., None], define_flags: Callable[[], None], *, takes_arguments: bool = False) -> None:
    """Defines and parses the flags, calls the command, and exits with its code. Does not return.

    With `takes_arguments`, `main` is called with the list of the arguments that are not flags; otherwise these are an error.
    """
    unattended.outlive_output()  # their results are files
    define_flags()
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        show(_help(main))
        os._exit(0)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    # after a save that failed, Python warns of Orbax's coroutines when it collects them, here or at its end (`_exit`)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    with _one_line_errors(), unattended.interruptible():
        rest = _parse(sys.argv, takes_arguments)
        try:
            main(rest) if takes_arguments else main()
        finally:
            while _created:
                with contextlib.suppress(OSError):  # not empty
                    _created.pop().rmdir()
    sys.exit(0)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        _exit(2, f"error: {error}")
    except Stopped as stopped:
        _exit(3, str(stopped))
    except KeyboardInterrupt:
        _exit(3, "error: interrupted")
    except RuntimeError as error:  # JAX's own error; importing its class would delay --help by a second
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        remedies = "a smaller batch_size or eval.batch_size, model.dtype=bfloat16, more devices, or input=stream"
        _exit(2, f"error: the devices have too little memory ({str(error).splitlines()[0]}); use {remedies}")
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        _exit(2, f"error: {_REMEDIES[error.errno].format(error)}")


def _unraisable(error: Any) -> None:
    if isinstance(error.exc_value, KeyboardInterrupt):  # in a callback of JAX, where Python would only print it
        print("error: interrupted", file=sys.stderr, flush=True)
        os._exit(3)
    # after an error, which is raised elsewhere, TensorStore calls a loop of Orbax that is closed
    if str(error.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(error)


def _exit(code: int, message: str) -> None:
    warnings.simplefilter("ignore")
    print(printable(message), file=sys.stderr, flush=True)
    sys.stdout.flush()
    distributed = sys.modules.get("jax._src.distributed")
    if code == 2 and distributed and distributed.global_state.client:
        os._exit(code)  # JAX's shutdown would wait for the other processes, which may wait for this one
    if any(type(thread).__module__.startswith("orbax.") for thread in threading.enumerate()):
        os._exit(code)  # after a save that failed, Orbax's threads wait for each other, and Python for them
    sys.exit(code)


def _parse(argv: list[str], takes_arguments: bool) -> list[str]:
    sys.path.insert(0, os.getcwd())  # to import configs/ of the current folder, also from an installed command
    try:
        rest = flags.FLAGS(argv)[1:]
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            flags.FLAGS["config"].value.to_dict()  # reads the file now
            _prefer_given_steps(flags.FLAGS["config"])
    except flags.Error as error:
        raise UserError(_without_traceback(str(error))) from error
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        raise UserError(_config_error(error)) from error
    except (MemoryError, RecursionError) as error:  # of Python's parser
        raise UserError("the value of a flag --config.FIELD has too many nested brackets or signs") from error
    for name in flags.FLAGS:
        if not name.startswith("config.") and flags.FLAGS[name].default is None and flags.FLAGS[name].value == "":
            raise UserError(f"--{name}: is empty, perhaps because of an empty variable; name a file or folder")
    if rest and not takes_arguments:
        raise UserError(f"argument {rest[0]!r} is not understood; --help lists the flags")
    return rest


def _prefer_given_steps(flag: Any) -> None:
    """Sets `epochs` to None if `steps` is given on the command line. Raises UserError if both are given."""
    config, given = flag.value, config_flags.get_override_values(flag)
    for prefix in ("", "run."):  # "run.": of an experiment
        if f"{prefix}steps" in given:
            if f"{prefix}epochs" in given:
                raise UserError(f"--config.{prefix}steps and --config.{prefix}epochs: give one of them, not both")
            config.update_from_flattened_dict({f"{prefix}epochs": None})


def _config_error(error: Exception) -> str:
    file = next((a.partition("=")[2] for a in sys.argv[1:] if a.startswith("--config=")), "")
    if isinstance(error, OSError) and not os.path.exists(file):
        return f"--config: there is no file {file!r}"
    text = (f"KeyError: {error}" if isinstance(error, KeyError) else str(error)).strip()
    of_config_dict = (error.args and isinstance(error.args[0], KeyError)) or text.startswith('Key "')
    if of_config_dict and (absent := re.search(r"""["'](\w+)\\?["']""", text)):
        meant = re.search(r'Did you mean "(\w+)"', text)
        text = f"there is no field {absent[1]!r}{f' (did you mean {meant[1]!r}?)' if meant else ''}; --help lists the fields"
    return f"--config={file}: {' '.join(text.split()) or type(error).__name__}"


def _without_traceback(text: str) -> str:
    """Returns a message of ml_collections without its traceback: the text before it, and the lines of the exception."""
    head, mark, trace = text.partition("Traceback (most recent call last):")
    if not mark:
        return text
    wrong = [line for line in trace.splitlines() if line and not line.startswith(" ")]
    return " ".join([head.strip(), *wrong])


def _help(main: Callable[[], None]) -> str:
    lines = [(sys.modules[main.__module__].__doc__ or "").strip(), "", "Flags:"]
    for flag in flags.FLAGS.get_flags_for_module(main.__module__) + flags.FLAGS.get_flags_for_module(__name__):
        lines.append(f"  --{flag.name}: {flag.help}" + (f" (default {flag.default})" if flag.default else ""))
    if "config" in flags.FLAGS:
        # "--config.run" for an experiment, whose `run` has the fields of a run
        fields = getattr(sys.modules[main.__module__], "FIELDS", "--config")
        lines += ["", f"Fields of {fields} and their defaults (described in configs/default.py):"]
        with contextlib.suppress(ImportError):
            sys.path.insert(0, os.getcwd())
            values = importlib.import_module("configs.default").get_config().to_dict()
            lines += [f"  {name}={value!r}" for name, value in config_json.flatten(values, f"{fields}.")]
    return "\n".join(lines)


def make_workdir(path: str) -> pathlib.Path:
    """Creates a folder if necessary; returns its absolute path. `run` removes it if it is still empty at the end.

    Raises:
      UserError: the folder cannot be created, or is not writable.
    """
    folder = pathlib.Path(path).expanduser().resolve()
    try:
        _created.extend(parent for parent in (*reversed(folder.parents), folder) if not parent.exists())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {str(folder)!r} cannot be created: {error.strerror}; choose another one") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder {str(folder)!r} is not writable; choose another one")
    return folder
