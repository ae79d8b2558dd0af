"""Every error a user can cause. The command line prints `str(error)` on one line and exits with `exit_code`."""


class OnnxqError(Exception):
    """Root of the tree: says what is wrong, where, and what to do about it."""

    exit_code = 1


class ModelError(OnnxqError):
    """A model file that cannot be read, is invalid, or cannot be written."""


class OutputError(OnnxqError):
    """An output that could not be written; what stood there before is untouched."""


class DataError(OnnxqError):
    """Samples that cannot be read or do not fit the model's inputs."""


class ProfileError(OnnxqError):
    """A hardware profile that does not exist or does not validate."""


class ConfigError(OnnxqError):
    """A setting (bits, overrides, calibration method, configuration file) that makes no sense."""


class CalibrationError(OnnxqError):
    """Statistics that cannot be collected, merged or turned into ranges."""


class NumericError(OnnxqError):
    """Integers that cannot hold a value: a rescale out of range, or a sum that could overflow."""


class InterruptedRun(OnnxqError):
    """Long work stopped by the user; the message says what was kept and how to resume."""

    exit_code = 130


class MissingDependencyError(OnnxqError):
    """A package of an extra is not installed; the message names the extra."""


class PipelineError(OnnxqError):
    """A pipeline text that does not parse: unknown pass, unknown option, bad value."""


class PassError(OnnxqError):
    """A pass failed; the message names it and the passes that ran before."""


class PreconditionError(PassError):
    """The graph is not what the pass requires."""


class PostconditionError(PassError):
    """The pass left a graph that is not what it promises."""


class VerificationError(PassError):
    """A value-preserving pass changed the model's outputs."""


def first_line(err: BaseException) -> str:
    """The first line of an error's message that is not blank, stripped; the name of its class where there is none."""
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
