"""Failures that end a command, each with its exit code. Raised by commands, shown by click."""

import click


class UsageProblem(click.ClickException):
    """What was asked or configured makes no sense: exit 2, the message on stderr."""

    exit_code = 2


class Failed(click.ClickException):
    """It was tried and did not work: exit 1."""

    exit_code = 1


class Unreachable(click.ClickException):
    """Redis or the service does not answer: exit 3."""

    exit_code = 3
