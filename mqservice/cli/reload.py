"""`mqservice serve --reload`: for development, the service anew whenever its code or its configuration changes."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mqservice.cli import child
from mqservice.cli.output import say
from mqservice.cli.problems import UsageProblem

_LOOK_MS: Final = 500


def serve_reloading(arguments: Sequence[str], config: Path | None) -> None:
    """Serve in a child process; drain and start it again when a .py below here or the configuration changes.

    Ends when the child ended well, or with Ctrl-C. A child that failed is started again at the next change.
    """
    try:
        from watchfiles import Change, PythonFilter, watch  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise UsageProblem("--reload needs watchfiles: pip install 'mqservice[reload]'") from None

    configured = (config or Path("config.toml")).resolve()

    class Ours(PythonFilter):
        def __call__(self, change: Change, path: str) -> bool:
            return Path(path) == configured or super().__call__(change, path)

    here = Path.cwd()
    places = {here, configured.parent} if configured.parent.is_dir() else {here}
    child.term_as_interrupt()
    served = child.start(arguments)
    try:
        for changes in watch(*places, watch_filter=Ours(), rust_timeout=_LOOK_MS, yield_on_timeout=True):
            if changes:
                say(f"changed: {', '.join(sorted({Path(path).name for _, path in changes}))}; starting again")
                child.end(served)
                served = child.start(arguments)
            elif _ended_well(served):
                return
    finally:
        child.end(served)


def _ended_well(served: subprocess.Popen[bytes]) -> bool:
    return served.poll() == 0
