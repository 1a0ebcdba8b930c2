"""The exceptions that end a run, each with its exit code (the table is in README.md)."""


class UsageError(Exception):
    """Bad usage, configuration or input: one line that names the value, the rule and the remedy."""

    exit_code = 2


class RunError(Exception):
    """A run that was well configured and failed: one line that says what to do next."""

    exit_code = 1


class Preempted(Exception):
    """The run was asked to stop and left everything ready to go on: run the command again."""

    exit_code = 75
