"""How NVIDIA's library is read from an operator's directory, and served apart from the console."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from footlights.console import console, kit_library
from footlights.errors import InvalidArgument

MODULE = "const a = {}; export { a as AppStreamer };"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package as npm unpacks one, with more in it than a browser needs."""
    directory = tmp_path / "library"
    files = {
        "package.json": json.dumps({"exports": {".": {"types": "./dist/i.d.ts", "import": "./dist/lib.js"}}}),
        "dist/lib.js": MODULE,
        "dist/lib.umd.cjs": "module.exports = {};",
        "dist/other.mjs": "export const other = 1;",
        "dist/placeholder.jpg": "JPEG",
        "dist/i.d.ts": "export declare class AppStreamer {}",
        "LICENSE.txt": "NVIDIA's",
        ".npmrc": "//registry.example.com/:_authToken=secret",
        "node_modules/other/index.js": "export const AppStreamer = 1;",
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def served(directory: Path) -> tuple[TestClient, str]:
    library = kit_library.read(directory)
    client = TestClient(Starlette(routes=[Mount("/console", app=console(kit_library=library))]))
    return client, f"/console/kit/{library.digest}"


def test_what_a_browser_needs_is_served(package: Path) -> None:
    """The page, its module, and of the package scripts and images with their types, for as long as the digest holds."""
    client, at = served(package)

    types = {
        name: client.get(f"{at}/{name}").headers["content-type"].split(";")[0]
        for name in (
            "frame.html",
            "frame.js",
            "library/dist/lib.js",
            "library/dist/other.mjs",
            "library/dist/placeholder.jpg",
        )
    }

    assert list(types.values()) == ["text/html", *["text/javascript"] * 3, "image/jpeg"]
    assert client.get(f"{at}/library.js").text == 'export * from "./library/dist/lib.js";\n'
    assert client.get(f"{at}/library/dist/lib.js").text == MODULE
    assert "immutable" in client.get(f"{at}/frame.html").headers["cache-control"]
    assert client.get("/console/kit/0123456789abcdef/frame.html").headers["cache-control"] == "no-cache"
    assert f'content="{at.removeprefix("/console/")}/frame.html"' in client.get("/console/").text


@pytest.mark.parametrize(
    "path",
    [
        "library/package.json",
        "library/dist/lib.umd.cjs",
        "library/dist/i.d.ts",
        "library/LICENSE.txt",
        "library/.npmrc",
        "library/node_modules/other/index.js",
        "library/dist/",
        "library/dist/../package.json",
        "library/%2e%2e/%2e%2e/etc/passwd",
        "main.js",
        "",
    ],
)
def test_nothing_else_of_the_directory_is_served(package: Path, path: str) -> None:
    """No other type, nothing hidden, no other package, and no path on disk."""
    client, at = served(package)

    assert client.get(f"{at}/{path}").status_code == 404


def test_links_lead_nowhere(package: Path, tmp_path: Path) -> None:
    """A file or folder that is a link is not served: it may lead to anything on the server's machine."""
    secret = tmp_path / "secret.js"
    secret.write_text("export const key = 1;")
    (package / "dist" / "link.js").symlink_to(secret)
    (package / "folder").symlink_to(tmp_path, target_is_directory=True)
    client, at = served(package)

    assert client.get(f"{at}/library/dist/link.js").status_code == 404
    assert client.get(f"{at}/library/folder/secret.js").status_code == 404


def test_without_a_library_there_is_no_frame() -> None:
    """Neither below its own address nor among the console's files, and the page knows of none."""
    client = TestClient(Starlette(routes=[Mount("/console", app=console())]))

    assert client.get("/console/kit/0123456789abcdef/frame.html").status_code == 404
    assert client.get("/console/assets/0123456789abcdef/kit/frame.html").status_code == 404
    assert '<meta name="kit-library" content="">' in client.get("/console/").text


def test_the_frame_has_no_origin_and_the_console_keeps_its_policy(package: Path) -> None:
    """
    Whatever is in the frame's folder is sandboxed, also when it is opened by itself; it runs no inline script and
    connects to this server alone. The console's own policy is the same with a library as without.
    """
    client, at = served(package)
    plain = TestClient(Starlette(routes=[Mount("/console", app=console())]))
    for name in ("frame.html", "library/dist/lib.js", "nothing"):
        headers = client.get(f"{at}/{name}").headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["sandbox"] == "allow-scripts allow-pointer-lock"
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'unsafe-eval'"
        assert policy["connect-src"] == policy["frame-ancestors"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
    name = "content-security-policy"

    assert client.get("/console/").headers[name] == plain.get("/console/").headers[name]


def test_the_module_is_found_without_a_manifest(package: Path) -> None:
    """Where the directory of the module itself is given."""
    client, at = served(package / "dist")

    assert client.get(f"{at}/library.js").text == 'export * from "./library/lib.js";\n'


def test_an_entry_that_leads_out_of_the_package_is_not_taken(package: Path) -> None:
    """What the package names as its module must be one of the files that are served."""
    (package / "package.json").write_text(json.dumps({"main": "../secret.js", "module": ["x"], "exports": {".": 5}}))
    client, at = served(package)

    assert client.get(f"{at}/library.js").text == 'export * from "./library/dist/lib.js";\n'


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "no ES module that exports AppStreamer"),
        ({"index.js": "module.exports = { AppStreamer: 1 };"}, "no ES module that exports AppStreamer"),
        ({"index.js": MODULE, "package.json": "[" * 100_000}, "is no package's"),
        ({"index.js": MODULE, "package.json": '{"a": "' + "x" * 70_000 + '"}'}, "is no package's"),
        ({"index.js": MODULE, "a b.js": ""}, "'a b.js' has a name that is not served"),
        ({"index.js": MODULE, "large.js": "x" * (33 << 20)}, "holds more than 500 files or 32 MiB"),
        ({f"{number}.js": "" for number in range(501)}, "holds more than 500 files or 32 MiB"),
        ({"a/b/c/d/e/f/g/h.js": ""}, "is deeper than a library is"),
    ],
)
def test_what_is_no_library_is_refused(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    """By the option, with what to give instead; nothing is served that is not known to be one."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    with pytest.raises(InvalidArgument, match=problem) as refused:
        kit_library.read(tmp_path)
    assert refused.value.field == "kit_library"


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With what to give."""
    with pytest.raises(InvalidArgument, match=r"missing cannot be read .*Give the directory of @nvidia"):
        kit_library.read(tmp_path / "missing")
