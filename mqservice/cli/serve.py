"""`mqservice serve`."""

import importlib
import sys
from pathlib import Path

import click
import uvloop

from mqservice import __version__, log
from mqservice.cli.examples import examples
from mqservice.cli.problems import Failed, Unreachable, UsageProblem
from mqservice.cli.reload import serve_reloading
from mqservice.config import Loaded, load
from mqservice.errors import ConfigError, EmbeddedError, MqError, NoSuchQueue, Unavailable
from mqservice.process import serve as serve_process
from mqservice.runtime import Parts
from mqservice.service import Service


@click.command(
    epilog=examples("mqservice serve --port 8080", "mqservice serve --app shop:service --queues emails --no-http")
)
@click.option("--config", "path", type=click.Path(path_type=Path), help="Configuration file.  [default: config.toml]")
@click.option("--app", help="What to serve, as module:attribute.  [default: mqservice.demo:service]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0: any free one.  [default: 5000]")
@click.option("--queues", help="Consume only these, separated by commas.  [default: all that have a handler]")
@click.option("--no-http", is_flag=True, help="Consume only; open no port.")
@click.option("--no-consumers", is_flag=True, help="Take messages only; run no handler.")
@click.option("--reload", is_flag=True, help="For development: drain and start again when a .py or the file changes.")
def serve(
    path: Path | None,
    app: str | None,
    host: str | None,
    port: int | None,
    queues: str | None,
    no_http: bool,
    no_consumers: bool,
    reload: bool,
) -> None:
    """Take messages over HTTP and run their handlers, until TERM or INT."""
    if no_http and no_consumers:
        raise UsageProblem("--no-http and --no-consumers together leave nothing to do")
    if reload:
        given = {"--config": path, "--app": app, "--host": host, "--port": port, "--queues": queues}
        arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
        switches = {"--no-http": no_http, "--no-consumers": no_consumers}
        serve_reloading([*arguments, *(flag for flag, on in switches.items() if on)], path)
        return
    flags = {"service.app": ("--app", app), "http.host": ("--host", host), "http.port": ("--port", port)}
    names = frozenset(name.strip() for name in queues.split(",")) if queues else None
    parts = Parts(http=not no_http, consumers=not no_consumers, queues=names, summary=True)
    try:
        loaded = load(path, flags=flags)
        log.set_up(loaded.config.log)
        service = _service(loaded)
        uvloop.run(serve_process(service, parts, __version__, lambda: load(path, flags=flags).config.log.level))
    except (ConfigError, NoSuchQueue) as error:
        raise UsageProblem(str(error)) from error
    except (Unavailable, EmbeddedError) as error:
        raise Unreachable(str(error)) from error
    except MqError as error:
        raise Failed(str(error)) from error


def _service(loaded: Loaded) -> Service:
    """Import the application named by the configuration, from the current directory or what is installed."""
    module_name, _, attribute = loaded.config.service.app.partition(":")
    sys.path.insert(0, "")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0] and error.name != module_name:
            raise  # the application's own import that fails: its traceback says more than we could
        raise ConfigError(f'service.app: there is no module "{module_name}"') from error
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, Service):
        raise ConfigError(f'service.app: "{attribute}" of {module_name} is not a Service but {type(found).__name__}')
    found.configure(loaded.config)
    return found
