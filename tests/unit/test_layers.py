"""Which module may import which: design.md, section 3. The checker reads the source, so nothing has to be imported."""

import ast
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "mqservice"

LAYERS = (
    ("errors", "keys", "batching", "jsontext"),
    (
        "message",
        "message_view",
        "packing",
        "records",
        "retry",
        "config.*",
        "log",
        "tracing",
        "scripts",
        "keeper",
        "schedules",
        "histogram",
        "events",
        "client",
        "deploy",
    ),
    (
        *("tls", "wires", "connections", "embedded", "inspection", "bell", "pop", "broker", "channels", "rates"),
        *("operations", "views", "results", "idempotency", "schedule_store", "session_key"),
        *(
            "queue_counters",
            "queue_views",
            "history",
            "processes",
            "numbers",
            "subscription",
            "channel_history",
            "ordering",
        ),
    ),
    ("handlers", "executor", "held", "tally"),
    (
        *("consumer", "lanes", "prefetch", "settling", "popper", "fault", "subscriber", "following", "scheduler"),
        *("sidecar", "leases", "lag", "watchdog", "reports", "fanout", "queue_streams"),
        *("metrics", "summary", "spans", "backend"),
    ),
    ("web.*",),
    ("runtime", "service", "process", "kitchen"),
    ("cli.*", "demo", "testing", "pytest_plugin", "__init__", "__main__"),
)
"""Every module, lowest layer first. `x.*` is the package x with all that it holds; `__init__` is mqservice itself."""

ONLY_BY = {
    "redis": ("connections", "wires", "tls", "inspection", "subscription", "broker", "bell", "pop", "embedded"),
    "aiohttp": ("web.*",),
    "watchfiles": ("cli.reload",),
    "prometheus_client": ("metrics",),
    "opentelemetry": ("spans",),
}
"""Foreign package → the modules that may import it."""

STDLIB_ONLY = ("keeper",)
"""Modules that are run as scripts by an interpreter that may know no package."""

ENVIRONMENT = {"config.*": "*", "embedded": "XDG_*", "keeper": "LD_PRELOAD"}
"""Module → the variables of the environment that it may read."""

_ENVIRON = {"environ", "environb", "getenv", "getenvb"}


class Module(NamedTuple):
    """One source file. `imports` and `variables` are pairs of a name and the line it stands on."""

    name: str
    imports: list[tuple[str, int]]
    """Dotted and absolute, down to the imported name: `mqservice.keys.valid_name`."""
    variables: list[tuple[str, int]]
    """Variables of the environment; `*` where it may be any."""


def read(package: Path) -> dict[str, Module]:
    """Read every module below `package`, by its name there."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        inside = (package.name, *parts[:-1])
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"
        tree = ast.parse(path.read_text("utf-8"), str(path))
        modules[name] = Module(name, list(imports(tree, inside)), list(variables(tree)))
    return modules


def imports(tree: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield what is imported anywhere: at the top, in functions, under TYPE_CHECKING; absolute and relative."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else ()
            source = ".".join((*above, *filter(None, [node.module])))
            yield from ((f"{source}.{alias.name}", node.lineno) for alias in node.names)


def variables(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the variable of each use of the environment, `*` where the use does not name it."""
    named: dict[ast.expr, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Attribute(attr="environ") as use),
                args=[ast.Constant(value=str(name)), *_],
            ):
                named[use] = name
            case ast.Subscript(value=ast.Attribute(attr="environ") as use, slice=ast.Constant(value=str(name))):
                named[use] = name
            case ast.Call(func=ast.Attribute(attr="getenv") as use, args=[ast.Constant(value=str(name)), *_]):
                named[use] = name
            case ast.ImportFrom(module="os", names=names) if _ENVIRON & {alias.name for alias in names}:
                yield "*", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in _ENVIRON:
            yield named.get(node, "*"), node.lineno


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) or name == pattern.removesuffix(".*") for pattern in patterns)


def layer_of(name: str) -> int | None:
    return next((number for number, patterns in enumerate(LAYERS) if fits(name, patterns)), None)


def own_imports(module: Module, modules: Mapping[str, Module], package: str) -> dict[str, int]:
    """Return the modules of ours that `module` imports, each with the line of the last import."""
    found = {}
    for dotted, line in module.imports:
        top, *rest = dotted.split(".")
        if top != package:
            continue
        while rest and ".".join(rest) not in modules:  # what is left over is a name inside the module
            rest.pop()
        found[".".join(rest) or "__init__"] = line
    found.pop(module.name, None)
    return found


def faults(package: Path) -> list[str]:
    """Return a line for everything below `package` that breaks a rule of the tables above."""
    modules = read(package)
    graph = {name: own_imports(module, modules, package.name) for name, module in modules.items()}
    return [*unlisted(modules), *upward(graph), *cycles(graph), *foreign(modules, package.name), *environment(modules)]


def unlisted(modules: Mapping[str, Module]) -> Iterator[str]:
    for name in modules:
        if layer_of(name) is None:
            yield f"{name} has no layer: add it to LAYERS in {Path(__file__).name}, after design.md section 3"


def upward(graph: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for name, imported in graph.items():
        for other, line in imported.items():
            own, others = layer_of(name), layer_of(other)
            if own is not None and others is not None and others > own:
                yield f"{name}:{line} (layer {own}) imports {other} (layer {others})"


def cycles(graph: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"cycle: {' imports '.join(reversed(error.args[1]))}"


def foreign(modules: Mapping[str, Module], package: str) -> Iterator[str]:
    for module in modules.values():
        for dotted, line in module.imports:
            top = dotted.split(".")[0]
            if top in ONLY_BY and not fits(module.name, ONLY_BY[top]):
                yield f"{module.name}:{line} imports {top}: only {', '.join(ONLY_BY[top])} may"
            if module.name in STDLIB_ONLY and top not in sys.stdlib_module_names:
                yield f"{module.name}:{line} imports {top}: it may use the standard library only"


def environment(modules: Mapping[str, Module]) -> Iterator[str]:
    for module in modules.values():
        allowed = next((ENVIRONMENT[pattern] for pattern in ENVIRONMENT if fits(module.name, (pattern,))), "")
        for variable, line in module.variables:
            if not fnmatchcase(variable, allowed):
                yield f"{module.name}:{line} reads {variable} from the environment: that is for config"


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write a small package with our names."""
    package = root / "mqservice"
    for name, source in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    return package


def test_package_when_read_then_it_breaks_no_rule() -> None:
    assert faults(PACKAGE) == []


def test_package_when_read_then_the_way_of_a_message_is_seen() -> None:
    modules = read(PACKAGE)
    for name, below in [
        ("__main__", "cli"),
        ("service", "runtime"),
        ("runtime", "scripts"),
        ("runtime", "web.server"),
        ("consumer", "broker"),
        ("executor", "handlers"),
        ("config", "config.loading"),
    ]:
        assert below in own_imports(modules[name], modules, "mqservice"), name
    assert any(dotted.startswith("redis.") for dotted, _ in modules["connections"].imports)
    assert modules["config.loading"].variables
    assert modules["embedded"].variables


def test_checker_when_all_is_in_order_then_it_finds_nothing(tmp_path: Path) -> None:
    package = plant(
        tmp_path,
        {
            "__init__.py": "from mqservice.service import Service",
            "errors.py": "",
            "keys.py": "from mqservice.errors import InvalidName",
            "config/__init__.py": "from mqservice.config.loading import load",
            "config/loading.py": "import os\nfrom .checks import checked\nos.environ.copy()",
            "config/checks.py": "from .. import keys\nfrom ..errors import ConfigError",
            "embedded.py": "import os, redis\nos.environ['XDG_STATE_HOME']\nos.getenv('XDG_RUNTIME_DIR')",
            "web/__init__.py": "",
            "web/app.py": "from aiohttp import web\nfrom mqservice import config\nfrom mqservice.web import pages",
            "web/pages.py": "import aiohttp.web",
            "service.py": "from mqservice.web.app import application",
            "cli/__init__.py": "from mqservice import __version__",
        },
    )
    assert faults(package) == []


PLANTED: dict[str, tuple[dict[str, str], list[str]]] = {
    "upward": (
        {"keys.py": "from mqservice.message import Message", "message.py": ""},
        ["keys:1 (layer 0) imports message (layer 1)"],
    ),
    "upward in a function": (
        {"broker.py": "def f():\n    import mqservice.consumer as c", "consumer.py": ""},
        ["broker:2 (layer 2) imports consumer (layer 4)"],
    ),
    "upward for types": (
        {"pop.py": "import typing\nif typing.TYPE_CHECKING:\n    from mqservice import runtime", "runtime.py": ""},
        ["pop:3 (layer 2) imports runtime (layer 6)"],
    ),
    "upward, relative": (
        {"config/loading.py": "from .. import broker", "config/__init__.py": "", "broker.py": ""},
        ["config.loading:1 (layer 1) imports broker (layer 2)"],
    ),
    "upward, relative, from a package": (
        {"config/__init__.py": "from ..web.app import application", "web/app.py": ""},
        ["config:1 (layer 1) imports web.app (layer 5)"],
    ),
    "upward, everything": (
        {"retry.py": "from mqservice.web import *", "web/__init__.py": ""},
        ["retry:1 (layer 1) imports web (layer 5)"],
    ),
    "upward, the package itself": (
        {"service.py": "from mqservice import __version__", "__init__.py": "__version__ = '1'"},
        ["service:1 (layer 6) imports __init__ (layer 7)"],
    ),
    "cycle inside a layer": (
        {"bell.py": "from mqservice import pop", "pop.py": "def f():\n    from mqservice.bell import Bell"},
        ["cycle: bell imports pop imports bell"],
    ),
    "cycle through a package": (
        {"config/__init__.py": "from mqservice.config import checks", "config/checks.py": "import mqservice.config"},
        ["cycle: config imports config.checks imports config"],
    ),
    "no layer": (
        {"utils.py": ""},
        ["utils has no layer: add it to LAYERS in test_layers.py, after design.md section 3"],
    ),
    "redis above the broker": (
        {"consumer.py": "from redis.asyncio import Redis"},
        [f"consumer:1 imports redis: only {', '.join(ONLY_BY['redis'])} may"],
    ),
    "aiohttp below the web": (
        {"runtime.py": "def f():\n    from aiohttp import web"},
        ["runtime:2 imports aiohttp: only web.* may"],
    ),
    "a package in the keeper": (
        {"keeper.py": "import msgspec"},
        ["keeper:1 imports msgspec: it may use the standard library only"],
    ),
    "the environment": (
        {"log.py": "import os as system\nsystem.environ['NO_COLOR']"},
        ["log:2 reads NO_COLOR from the environment: that is for config"],
    ),
    "the environment, whole": (
        {"process.py": "from os import environ"},
        ["process:1 reads * from the environment: that is for config"],
    ),
    "the environment, another variable": (
        {"embedded.py": "import os\nos.environ.get('HOME', '')\nos.getenv('XDG_STATE_HOME')\nos.environ.copy()"},
        [
            "embedded:2 reads HOME from the environment: that is for config",
            "embedded:4 reads * from the environment: that is for config",
        ],
    ),
}


@pytest.mark.parametrize(("files", "expected"), PLANTED.values(), ids=PLANTED.keys())
def test_checker_when_a_violation_is_planted_then_it_names_it(
    tmp_path: Path, files: dict[str, str], expected: list[str]
) -> None:
    found = faults(plant(tmp_path, files))
    if expected[0].startswith("cycle"):  # where a cycle begins is the sorter's choice
        assert len(found) == 1
        assert set(found[0].split()) == set(expected[0].split())
    else:
        assert sorted(found) == expected
