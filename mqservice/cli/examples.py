"""Examples at the end of each `--help`. A test runs every one of them."""


def examples(*lines: str) -> str:
    """Return the epilog that shows these command lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
