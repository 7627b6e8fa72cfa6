"""How the console's files are read and served (`app`, `assets`)."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from footlights.console import console
from footlights.console.assets import load


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=[Mount("/console", app=console())]))


@pytest.fixture
def address() -> str:
    return f"/console/assets/{load().digest}"


def test_page_is_asked_for_each_time_and_names_its_files_by_digest(client: TestClient, address: str) -> None:
    """
    The page is revalidated at every visit; every file that it names lies below the digest, exists, and is kept.
    """
    page = client.get("/console/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert len(named) > 20
    for name in named:
        assert f"/console/{name}".startswith(address + "/")
        answer = client.get(f"/console/{name}")
        assert (answer.status_code, name) == (200, name)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_every_module_import_is_a_packed_file() -> None:
    """
    No module imports a file that is not there, a bare name, or another origin: each would break the page.
    """
    assets = load()
    modules = {path: asset.body.decode() for path, asset in assets.files.items() if path.endswith((".js", ".mjs"))}
    missing = []
    for path, text in modules.items():
        folder = path.rpartition("/")[0]
        for name in re.findall(r'(?:^|[\n;])(?:import|export)\b[^"\n]*?from\s*"([^"]+)"', text):
            parts = [*folder.split("/")] if folder else []
            for part in name.split("/"):
                if part == "..":
                    parts.pop()
                elif part != ".":
                    parts.append(part)
            if not name.startswith(".") or "/".join(parts) not in assets.files:
                missing.append((path, name))
    assert len(modules) > 20
    assert missing == []


def test_security_headers_are_on_every_answer(address: str) -> None:
    """
    Pages, files, redirects, refusals and 404s all carry the policy, and the policy allows nothing inline or foreign.
    """
    client = TestClient(console())
    for path in ("/console/", f"{address}/main.js", "/console/nothing", "/console"):
        headers = client.get(path, follow_redirects=False).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in headers
    assert client.post("/console/").headers["x-frame-options"] == "DENY"


def test_nothing_is_inline(client: TestClient) -> None:
    """
    The page has no inline script, style or handler, which the policy would refuse.
    """
    page = client.get("/console/").text

    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []


def test_unchanged_files_are_not_sent_again(client: TestClient) -> None:
    """
    A request with the entity tag that was given is answered 304 without a body, whatever the encoding and list form.
    """
    for encoding in ("gzip", "identity"):
        first = client.get("/console/", headers={"Accept-Encoding": encoding})
        tag = first.headers["etag"]
        for sent in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again = client.get("/console/", headers={"If-None-Match": sent, "Accept-Encoding": encoding})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/console/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_gzip_is_used_only_where_it_is_taken(client: TestClient, address: str) -> None:
    """
    The same text arrives with and without gzip; the two forms have different strong tags and vary by encoding.
    """
    path = f"{address}/vendor/preact.mjs"

    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    packed = client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    refused = client.get(path, headers={"Accept-Encoding": "gzip;q=0"})

    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in refused.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content)
    assert packed.content == plain.content
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]


def test_a_file_of_an_older_page_is_served_but_not_kept(client: TestClient) -> None:
    """
    During a rolling upgrade a page of the older server gets its files from the newer one, to be asked for again.
    """
    answer = client.get("/console/assets/0123456789abcdef/main.js")

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing",
        "/console/assets",
        "/console/assets/x",
        "/console/main.js",
        "/console/assets/x/../app.py",
        "/console/assets/x/%2e%2e/%2e%2e/app.py",
        "/console/assets/x//main.js",
        "/console/assets/x/index.html",
    ],
)
def test_only_packed_files_exist(client: TestClient, path: str) -> None:
    """
    Whatever else is asked for is 404 and not kept: no request names a path on disk.
    """
    answer = client.get(path)

    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_allowed(client: TestClient, method: str) -> None:
    """
    Other methods are refused with the list of those that are not.
    """
    answer = client.request(method, "/console/")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_address_without_slash_leads_to_the_page() -> None:
    """
    ``/console`` is sent on by a relative address, so that it also holds below a proxy's prefix.
    """
    client = TestClient(console())

    answer = client.get("/console", follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (308, "console/")
    assert client.get("/console").status_code == 200


def test_connect_sources_extend_the_policy() -> None:
    """
    A separate front door's origin may be named; what would change the policy is refused with the value.
    """
    client = TestClient(console(connect_sources=["https://media.example.com:8443"]))

    policy = client.get("/console/").headers["content-security-policy"]

    assert "connect-src 'self' https://media.example.com:8443;" in policy
    with pytest.raises(ValueError, match=r"'https://a; script-src \*'.*write it as"):
        console(connect_sources=["https://a; script-src *"])
