"""The one family of exceptions that this package raises on purpose.

Each subclass stands for one thing that the person at the notebook can do next, and carries the
exit code that the command line ends with.
"""

import traceback


class Sam3dError(Exception):
    """Base of every error that the package raises on purpose; the message is one sentence."""

    exit_code = 1


class InputError(Sam3dError, ValueError):
    """Fix the input: a path, an image, a mask, a tensor or an option is not what is needed."""

    exit_code = 3


class OutputError(Sam3dError, OSError):
    """Choose another place: a result cannot be written, or would replace an existing file."""

    exit_code = 4


class WeightsError(Sam3dError):
    """Get the weights: a model's files are missing, incomplete or not what they should be."""

    exit_code = 5


class OutOfMemoryError(Sam3dError, MemoryError):
    """Free memory, or choose a smaller model, a smaller image or a staged memory plan."""

    exit_code = 6


class ReconstructionError(Sam3dError):
    """The model ran on valid input but gave nothing usable; try another seed, mask or model."""

    exit_code = 7


def explain(error: Exception) -> tuple[str, str]:
    """Return what to tell of an error, and its traceback, empty where it was raised on purpose."""
    if isinstance(error, Sam3dError):
        return str(error), ""
    reason = f"unexpected {type(error).__name__}: {error}; please report it"
    return reason, "".join(traceback.format_exception(error))
