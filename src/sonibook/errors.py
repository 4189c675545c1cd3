"""What can go wrong, by kind.

Every message is one sentence that says what is wrong and what to do. On the command line any
`SonibookError` is printed as that sentence and ends the program with exit code 2.
"""


class SonibookError(Exception):
    """The base of every error that sonibook raises on purpose."""


class AudioError(SonibookError, ValueError):
    """A sound that cannot be read, or samples that are not a sound (NaN, infinite, empty)."""


class MissingAudioError(AudioError):
    """A sound whose file is not there, or no longer: a disk that has gone, not a bad file."""


class DatasetError(SonibookError, ValueError):
    """A data set that is not where, or not as, its layout says."""


class StackError(SonibookError, TypeError):
    """A network, or a module in it, that the backward pass cannot invert."""


class LayerError(SonibookError, IndexError):
    """A layer or filter that the network does not have."""


class CheckpointError(SonibookError, ValueError):
    """A checkpoint that is missing, damaged, or of another shape."""


class ConfigError(SonibookError, ValueError):
    """A configuration with a missing, unknown or impossible value."""


class ParameterError(SonibookError, ValueError):
    """A chapter's parameter that it does not have, or with a value that it cannot take."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook, the one sentence alone."""
        return [str(self)]


class MetricError(SonibookError, ValueError):
    """Scores, targets or runs that give no score: NaN, or too few to judge by."""


class AnalysisError(SonibookError, ValueError):
    """An analysis that has nothing to measure, cannot go on, or whose result cannot be read."""


class SonibookWarning(UserWarning):
    """Something a listener should know: a padded clip, a silent map."""


def explain(problem: Exception) -> str:
    """What is wrong, in one sentence: the message, or for the system's errors file and reason."""
    if isinstance(problem, OSError) and problem.strerror:
        name = "" if problem.filename is None else f"{problem.filename}: "
        return f"{name}{problem.strerror[0].lower()}{problem.strerror[1:]}."
    return str(problem)
