"""Errors that a user can mend: a command prints their message as one line and exits with their code."""


class UserError(Exception):
    """The message says what is wrong and how to mend it."""

    exit_code = 2


class TooManyRejects(UserError):
    """More rows were set aside than the run allows."""

    exit_code = 3
