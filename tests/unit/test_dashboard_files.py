"""The dashboard's files: what they weigh, what was vendored, its words in both languages, its policy."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from mqservice.web.assets import ASSETS
from mqservice.web.pages import _DASHBOARD_CSP

ROOT = Path(__file__).parent.parent.parent
DASHBOARD = ROOT / "mqservice/web/static/dashboard"
VENDORED = [DASHBOARD / "vendor", ROOT / "tests/web/vendor"]
SOURCES = {path: path.read_text() for path in DASHBOARD.rglob("*.js") if path.parent.name != "vendor"}
WORDS = {path.stem: json.loads(path.read_text()) for path in (DASHBOARD / "words").iterdir()}
MOST_BYTES = 100_000


def test_dashboard_when_it_is_sent_then_all_files_together_are_within_100_kb() -> None:
    files = [asset for name, asset in ASSETS.items() if name.startswith("dashboard/") or name == "palette.css"]

    assert len(files) > 30
    assert sum(len(asset.packed) for asset in files) <= MOST_BYTES


@pytest.mark.parametrize("directory", VENDORED, ids=["dashboard", "tests"])
def test_vendored_files_when_compared_then_they_are_as_their_authors_published_them(directory: Path) -> None:
    libraries = tomllib.loads((directory / "VENDORED.toml").read_text())
    sha512 = {name: digest for library in libraries.values() for name, digest in library["sha512"].items()}

    assert {path.name for path in directory.iterdir()} == {"VENDORED.toml", *sha512}
    for name, digest in sha512.items():
        assert hashlib.sha512((directory / name).read_bytes()).hexdigest() == digest, name
    for name, library in libraries.items():
        assert library["licence"] in {"MIT", "Apache-2.0", "MPL-2.0"}
        assert library["version"] in library["source"]
        assert any(name in licence and "LICENSE" in licence for licence in library["sha512"]), name


def test_words_when_compared_then_both_languages_have_the_same_keys_and_places() -> None:
    english, chinese = WORDS["en"], WORDS["zh-CN"]

    assert list(english) == sorted(english)
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert text.strip()
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key


def test_words_when_looked_up_then_each_exists_and_each_is_used() -> None:
    text = "".join(SOURCES.values())
    families = set(re.findall(r"\bt\(`([a-z]+\.)\$\{", text))
    asked = set(re.findall(r"\bt\(\"([^\"]+)\"", text)) | set(re.findall(r"(?:\bkey: |number\()\"([^\"]+)\"", text))

    assert asked <= set(WORDS["en"])
    quoted = set(re.findall(r"[\"`]([a-z0-9_-]+)[\"`]", text))
    for key in WORDS["en"]:
        family = key.partition(".")[0] + "."
        assert key in asked | quoted or (family != key + "." and family in families), f"nobody says {key}"


def test_sources_when_read_then_they_name_no_foreign_host_and_need_no_inline_style() -> None:
    for path in [*SOURCES, *DASHBOARD.glob("*.html"), *DASHBOARD.glob("*.css")]:
        text = path.read_text().replace("xmlns='http://www.w3.org/2000/svg'", "")
        assert not re.search(r"https?://|\beval\(|new Function|innerHTML|\sstyle=|\son[a-z]+=\"", text), path


def test_index_when_read_then_it_asks_for_every_module_at_once_not_level_by_level() -> None:
    index = (DASHBOARD / "index.html").read_text()
    asked = set(re.findall(r"(?:modulepreload\" href|module\" src)=\"/static/dashboard/([^\"]+)", index))
    scripts = {"boot.js", "vendor/uPlot.iife.min.js"}  # before the first paint; when a chart is drawn

    assert asked | scripts == {str(path.relative_to(DASHBOARD)) for path in DASHBOARD.rglob("*.*js")}


def test_policy_when_read_then_it_lets_nothing_in_but_our_own_files() -> None:
    assert "unsafe" not in _DASHBOARD_CSP
    assert "default-src 'none'" in _DASHBOARD_CSP
    assert not re.search(r"https?:|\*", _DASHBOARD_CSP)
