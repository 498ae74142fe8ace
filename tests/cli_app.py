"""What the tests of the command line serve: the demo's handlers, and a queue whose messages can be made to fail."""

from mqservice.demo import service

__all__ = ["service"]


@service.handler("emails", attempts=1)
async def emails(body: dict[str, str]) -> str:
    """Fail for who has no address."""
    if "to" not in body:
        raise ValueError("nobody to send it to")
    return body["to"]
