"""The commands of ``footlights apps`` and ``footlights profiles``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, DryRun, Yes, command, confirm, group, pairs, secret_texts, whole
from footlights.cli.output import details, emit, table
from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from footlights.v1 import application_pb2, profile_pb2

app = group("Register applications, their versions and releases.")
profiles_app = group("Manage profiles: named bundles of needs, limits, environment, arguments and secrets.")

Application = Annotated[str, typer.Argument(metavar="APPLICATION", help="The application's id.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="The version.")]
Release = Annotated[str, typer.Argument(metavar="RELEASE", help="The release's name.")]


@command(app, "list")
async def list_(cli: Cli) -> None:
    """List applications."""
    async with cli.client() as client:
        answer = await whole(client.applications.iterate())
    rows = [
        (
            item.application,
            item.display_name or "-",
            show.mapping(item.releases) or "-",
            show.age(item.created_time, time.time()),
        )
        for item in answer.items
    ]
    lines = table(
        ("APPLICATION", "NAME", "RELEASES", "AGE"),
        rows,
        empty="No applications. Register one: footlights apps apply usd-viewer",
    )
    emit(cli.output, answer, [item.application for item in answer.items], lines)


@command(app, "show")
async def show_(cli: Cli, application: Application) -> None:
    """Show one application, with its versions."""
    async with cli.client() as client:
        answer = await client.applications.get(application)
        versions = await whole(client.applications.iterate_versions(application))
    lines = details(
        [
            ("Application", answer.application),
            ("Name", answer.display_name),
            ("Description", answer.description),
            ("Tags", ", ".join(answer.tags)),
            ("Releases", show.mapping(answer.releases)),
            ("Created", show.moment(answer.created_time)),
        ]
    )
    lines += ["", *show.version_rows(versions.items, time.time())]
    emit(cli.output, answer, [answer.application], lines)


@command(app, "apply")
async def apply(
    cli: Cli,
    recipe: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|RECIPE]...", help="Files, or recipes that ship with Footlights."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE", help="An application's YAML file; repeatable; - is stdin."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="A value for ${K} in the files; repeatable.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Register applications, versions and releases from files. Each file is applied completely or not at all."""
    sources = [*(file or []), *(recipe or [])]
    if not sources:
        raise InvalidArgument("--file", f"missing; give a file, or one of the recipes {', '.join(_recipe_names())}.")
    requests = [load(source, pairs("set", set_ or [])) for source in sources]
    async with cli.client() as client:
        for request in requests:
            answer = await client.applications.apply(request, validate_only=dry_run)
            name = answer.application.application
            changes = [
                *(f"version {version} created" for version in answer.created_versions),
                *(
                    f"release {release} -> {answer.application.releases[release]}"
                    for release in answer.changed_releases
                ),
            ]
            emit(cli.output, answer, [name], [f"{name}: {', '.join(changes) or 'unchanged'}"], dry_run=dry_run)


@command(app, "versions")
async def versions(cli: Cli, application: Application) -> None:
    """List an application's versions, newest first."""
    async with cli.client() as client:
        answer = await whole(client.applications.iterate_versions(application))
    emit(cli.output, answer, [item.version for item in answer.items], show.version_rows(answer.items, time.time()))


@command(app, "releases")
async def releases(cli: Cli, application: Application) -> None:
    """List an application's releases."""
    async with cli.client() as client:
        answer = await whole(client.applications.iterate_releases(application))
    rows = [(item.release, item.version, show.age(item.updated_time, time.time())) for item in answer.items]
    lines = table(("RELEASE", "VERSION", "SINCE"), rows, empty="No releases.")
    emit(cli.output, answer, [item.release for item in answer.items], lines)


@command(app, "show-release")
async def show_release(cli: Cli, application: Application, release: Release) -> None:
    """Show one release, with the versions that it pointed at, newest first."""
    async with cli.client() as client:
        answer = await client.applications.get_release(application, release)
    lines = details(
        [
            ("Application", answer.application),
            ("Release", answer.release),
            ("Version", answer.version),
            ("Since", show.moment(answer.updated_time)),
            ("Etag", answer.etag),
        ]
    )
    rows = [(show.moment(change.time) or "-", change.version, change.subject or "-") for change in answer.history]
    if rows:
        lines += ["", *table(("TIME", "VERSION", "BY"), rows)]
    emit(cli.output, answer, [answer.release], lines)


@command(app, "set-release")
async def set_release(
    cli: Cli, application: Application, release: Release, version: Version, dry_run: DryRun = False
) -> None:
    """Point a release at a version. Running sessions keep their version."""
    async with cli.client() as client:
        answer = await client.applications.set_release(application, release, version, validate_only=dry_run)
    line = f"{application}: release {answer.release} -> {answer.version}"
    emit(cli.output, answer, [answer.release], [line], dry_run=dry_run)


@command(app, "delete")
async def delete(
    cli: Cli,
    application: Application,
    *,
    version: Annotated[str, typer.Option("--version", help="Only this version.")] = "",
    release: Annotated[str, typer.Option("--release", help="Only this release; its version stays.")] = "",
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete an application with its versions and releases, or only one of them."""
    if version and release:
        raise InvalidArgument("--release", "cannot be combined with --version; give one of them.")
    what = f"version {version} of " if version else f"release {release} of " if release else ""
    confirm(f"Delete {what}{application}?", yes=yes or dry_run)
    async with cli.client() as client:
        answer: Any
        if version:
            answer = await client.applications.delete_version(application, version, validate_only=dry_run)
        elif release:
            answer = await client.applications.delete_release(application, release, validate_only=dry_run)
        else:
            answer = await client.applications.delete(application, validate_only=dry_run)
    emit(cli.output, answer, [application], [f"{what}{application} is deleted"], dry_run=dry_run)


@command(profiles_app, "list")
async def profiles_list(
    cli: Cli,
    application: Annotated[str, typer.Option("--application", help="Only profiles that match this application.")] = "",
) -> None:
    """List profiles."""
    async with cli.client() as client:
        answer = await whole(client.profiles.iterate(application))
    rows = [
        (
            item.profile,
            ", ".join(f"{match.application}@{'|'.join(match.versions) or '*'}" for match in item.matches) or "all",
            show.age(item.updated_time, time.time()),
            item.description,
        )
        for item in answer.items
    ]
    lines = table(("PROFILE", "MATCHES", "SINCE", "DESCRIPTION"), rows, empty="No profiles.")
    emit(cli.output, answer, [item.profile for item in answer.items], lines)


@command(profiles_app, "set")
async def profiles_set(
    cli: Cli,
    file: Annotated[
        list[str], typer.Option("--file", "-f", metavar="FILE", help="A profile's YAML file; repeatable; - is stdin.")
    ],
    secret_file: Annotated[
        list[str] | None,
        typer.Option(
            "--secret-file",
            metavar="K=FILE",
            help="A secret of the profile, from a file of its own; - is stdin; repeatable. For one profile only.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Create or replace profiles from files. Existing sessions are not changed."""
    if secret_file and len(file) > 1:
        raise InvalidArgument("--secret-file", "is for one profile; set each of them by itself.")
    wanted = [_profile(source) for source in file]
    wanted[0].secrets.update(secret_texts(secret_file or []))
    async with cli.client() as client:
        for profile in wanted:
            answer = await client.profiles.set(profile, validate_only=dry_run)
            emit(cli.output, answer, [answer.profile], [f"{answer.profile} is set"], dry_run=dry_run)


@command(profiles_app, "delete")
async def profiles_delete(
    cli: Cli,
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete a profile. Existing sessions are not changed."""
    confirm(f"Delete profile {profile}?", yes=yes or dry_run)
    async with cli.client() as client:
        answer = await client.profiles.delete(profile, validate_only=dry_run)
    emit(cli.output, answer, [profile], [f"{profile} is deleted"], dry_run=dry_run)


def _recipe_names() -> list[str]:
    from footlights import recipes

    return recipes.names()


def load(source: str, variables: dict[str, str]) -> application_pb2.ApplyApplicationRequest:
    """Return the application in a file, on stdin (``-``), or of a recipe. Raises ``InvalidArgument``."""
    from footlights import recipes

    return recipes.load("/dev/stdin" if source == "-" else source, variables)


def _profile(source: str) -> profile_pb2.Profile:
    import yaml
    from google.protobuf import json_format

    from footlights.v1 import profile_pb2

    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise InvalidArgument(source, "not a profile; it must have a member 'profile: NAME'.")
        return json_format.ParseDict(content, profile_pb2.Profile())
    except OSError as problem:
        raise InvalidArgument(source, f"cannot be read: {problem.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, json_format.ParseError) as problem:
        raise InvalidArgument(source, f"not a valid profile: {problem}") from None
