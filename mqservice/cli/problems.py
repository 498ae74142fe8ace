"""Failures that end a command, each with its exit code. Raised by commands, shown by click."""

import click

from mqservice.client import ApiProblem, BadUrl, NoAnswer
from mqservice.errors import MqError


class UsageProblem(click.ClickException):
    """What was asked or configured makes no sense: exit 2, the message on stderr."""

    exit_code = 2


class Failed(click.ClickException):
    """It was tried and did not work: exit 1."""

    exit_code = 1


class Unreachable(click.ClickException):
    """Redis or the service does not answer: exit 3."""

    exit_code = 3


class NotFound(click.ClickException):
    """There is no such message, queue or schedule: exit 4."""

    exit_code = 4


class TimedOut(click.ClickException):
    """It had not ended when the wait was over: exit 5."""

    exit_code = 5


def of_api(error: MqError) -> click.ClickException:
    """Return what ends a command after an error of the client."""
    match error:
        case BadUrl() | ApiProblem(status=400):
            return UsageProblem(str(error))
        case NoAnswer() | ApiProblem(status=502 | 503 | 504):
            return Unreachable(str(error))
        case ApiProblem(status=404):
            return NotFound(str(error))
        case ApiProblem(status=401):
            return Failed(f"{error}; the token is taken from MQSERVICE_TOKEN")
    return Failed(str(error))
