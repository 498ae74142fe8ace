"""The tutorial's two listeners, as handlers: `mqservice serve` runs these unless told otherwise."""

from mqservice.service import Service

service = Service()


@service.handler("prodcons", key="task:prodcons:queue")
async def prodcons(digit: str) -> None:
    """Print what one of all consumers gets."""
    print("Task get", digit, flush=True)  # noqa: T201 - the tutorial's own output


@service.subscriber("pubsub", key="task:pubsub:channel")
async def pubsub(digit: str) -> None:
    """Print what every subscriber gets."""
    print("Task get", digit, flush=True)  # noqa: T201
