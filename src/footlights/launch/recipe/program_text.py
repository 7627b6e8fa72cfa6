"""Does a version put a session's text into a program? Pure; part of `recipe.validate`.

There is no shell between a version and its application, but the application may be one, or anything else that reads
a program from its command line or environment. A session's text belongs beside a program, as a token of its own.

Of a program that is known to run others or to take code, every place is refused that it may read code, a script's name
or a program's name from. Of any other program, a token is refused that has a session's text among blanks, quotes,
brackets and the like: that is some language's text, and the session could leave its quotes. So is one in which it could
name an option, or what Kit loads. Where something may parse the command once more, such as an image's own entry point,
a session's text is a whole token; which texts may pass there is said by `read_again`.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from footlights.launch.recipe.checks import refuse
from footlights.launch.recipe.read_again import EXEC, KIT_SETTING, SPLIT_VARIABLE, STAGE_NAME, free_names
from footlights.launch.recipe.template import Placeholder, parse
from footlights.launch.recipe.whole_command import foreign_reader, whole_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from footlights.launch.recipe.template import Template
    from footlights.launch.recipe.whole_command import CommandToken
    from footlights.v1.application_pb2 import Version

_INTERPRETERS = re.compile(
    r"(ba|da|z|k|mk|pdk|a|fi|c|tc|r|el)?sh|pwsh|(i?python|pypy)[\d.]*|perl[\d.]*|ruby[\d.]*|node(js)?|deno|bun"
    r"|lua(jit)?[\d.]*|php[\d.]*|Rscript|R|julia|tclsh[\d.]*|wish[\d.]*|expect|[gmn]?awk|g?sed|jq|gdb|n?vim?|ex|emacs"
    r"|octave|guile|osascript|psql|sqlite3|mysql|bc|m4|scala|groovy|java|erl|elixir|ghci|xargs"
)
_SHELL_CALLERS = re.compile(r"g?make|ssh|watch|parallel|at|batch|su|runuser|script|eval|systemd-run")
"""Programs that give all of their arguments to a shell, or run any that looks like an assignment."""
_WRAPPERS = re.compile(
    r"env|nice|nohup|timeout|setsid|stdbuf|ionice|chrt|taskset|numactl|time|strace|ltrace|gdbserver|sudo|doas|setpriv"
    r"|chroot|unshare|nsenter|flock|xvfb-run|dbus-run-session|catchsegv|tini|dumb-init|gosu|su-exec|find|busybox|toybox"
    r"|exec|command|start-stop-daemon|prlimit|cgexec|firejail|bwrap|proot|fakeroot|vglrun|optirun|primusrun|mpirun"
)
"""Programs that run another one, which is named after their own options."""
_CODE_OPTION = re.compile(
    r"-[A-Za-z]*[ceErRpfmMilx]|-ex|--?(eval|print|exec|execute|execute-only|command|run|code|expression|source|file"
    r"|require|import|init-file|rcfile|include|load|loader|program)"
)
_KIT = re.compile(r"kit(-gcov)?(\.exe)?|.+\.kit(\.sh)?")
"""Omniverse Kit, or the file of an application of it."""
_KIT_CODE = re.compile(
    r"--/(persistent/)?(app/(exec|exts?|extensions|python|runScript|settings|tokens)|plugins|exts/omni\.kit\.registry.*)(/|$)"
)
"""Settings of Kit that name what it loads or runs."""
_WORDS = re.compile(r"[\s\"'`()\[\]{};$|\\<>]")
_LOADED = re.compile(
    r"(LD_|DYLD_|PYTHON|PERL5?|RUBY|NODE_|LUA_|BASH|JAVA_|JDK_|_JAVA|GCONV_|GLIBC_|MALLOC_|VK_|LIBGL_|__EGL_|__GLX_|EGL_"
    r"|GBM_|GTK_|QT_|GST_|GIO_|PXR_|CUDA_INJECTION|GIT_|SSH_)\w*|PATH|ENV|IFS|SHELL|SHELLOPTS|PS4|PROMPT_COMMAND|EDITOR"
    r"|PAGER|BROWSER"
)


_SHELLS_OWN = re.compile(r"_|PWD|OLDPWD|PPID|E?UID|GROUPS|OPTIND|OPTARG|SHLVL|LINENO|RANDOM|SECONDS|MAIL\w*|HISTCMD")
"""Variables that a shell sets itself, or takes numbers in: a unit's is set by one."""


def check_command(version: Version) -> None:
    """Check every token of what a version runs. Raises InvalidArgument for the first that is refused."""
    chosen, free, foreign = _chosen(version), free_names(version), foreign_reader(version)
    tokens = whole_command(version)
    templates = [parse(token.text) for token in tokens]
    if foreign:
        for token, template in zip(tokens, templates, strict=True):
            _alone(token.field, token.text, template, free, foreign)
    if templates[0].names & chosen:
        text = f"{tokens[0].text!r} lets a session choose the program: write its name, and give arguments after it."
        raise refuse(tokens[0].field, text)
    for number in _read_as_code(templates, chosen):
        token, name = tokens[number], min(templates[number].names & chosen)
        raise refuse(
            token.field,
            f"{token.text!r} puts {{{name}}} where a program may be read, "
            "and a session could give it commands: write the program without it, and the placeholder as a token after "
            'it (a shell\'s "$1").',
        )
    for token, template in zip(tokens, templates, strict=True):
        _among_words(token.field, token.text, template, free)
    for number, template in enumerate(templates):
        if names := template.names & free:
            _kit_and_options(tokens, number, _start(template), min(names))


def check_variable(version: Version, field: str, name: str, text: str) -> None:
    """Check one variable of the environment. Raises InvalidArgument."""
    template, chosen, free = parse(text), _chosen(version), free_names(version)
    secret = {argument.name for argument in version.arguments if argument.secret}
    if template.names & secret:
        if SPLIT_VARIABLE.fullmatch(name):
            raise refuse(field, f"{name} becomes a part of a command line, which process lists show: no secret.")
        if _SHELLS_OWN.fullmatch(name):
            raise refuse(field, f"{name} is a shell's own variable, and can hold no secret: choose another name.")
    if template.names & chosen and _LOADED.fullmatch(name):
        problem = (
            f"{name} says what is loaded or run, and {{{min(template.names & chosen)}}} lets a session choose it: "
        )
        raise refuse(field, problem + "write a fixed value, or choose another variable.")
    _among_words(field, text, template, free)
    if template.names & free and SPLIT_VARIABLE.fullmatch(name):
        problem = f"{name} is made into options, and {{{min(template.names & free)}}} lets a session add its own: "
        raise refuse(field, problem + "write a fixed value, or give the placeholder a token of the command.")
    if foreign := foreign_reader(version):
        _alone(field, text, template, free - secret, foreign)


def _chosen(version: Version) -> frozenset[str]:
    """The placeholders whose text comes from a session."""
    return frozenset({STAGE_NAME, *(argument.name for argument in version.arguments)})


def _among_words(field: str, text: str, template: Template, free: frozenset[str]) -> None:
    names = template.names & free
    if names and _WORDS.search("".join(part for part in template.parts if isinstance(part, str))):
        raise refuse(
            field,
            f"{text!r} puts {{{min(names)}}} among words or quotes, and a session could end them and add its own: give "
            f"the placeholder a token or variable of its own, such as --option={{{min(names)}}}.",
        )


def _alone(field: str, text: str, template: Template, free: frozenset[str], foreign: str) -> None:
    names = template.names & free
    if names and not (len(template.parts) == 1 and isinstance(template.parts[0], Placeholder)):
        raise refuse(
            field,
            f"{text!r} puts {{{min(names)}}} beside other text, and {foreign} may parse it once more: write what is "
            f"run as container.entrypoint ([] runs the command alone), or the placeholder as a token {{{min(names)}}}.",
        )


def _kit_and_options(tokens: Sequence[CommandToken], number: int, start: str, name: str) -> None:
    """Refuse a token in which a session could name an option or a setting, or choose what Kit loads."""
    token, before = tokens[number], tokens[number - 1].text if number else ""
    option, is_set, _ = start.partition("=")
    if start == "-" or (start.startswith("--") and not is_set):
        text = f"{token.text!r} lets a session choose an option by {{{name}}}: "
        raise refuse(token.field, f"{text}write the option, and the placeholder after '=' or as a token.")
    kit = any(each.text.startswith(KIT_SETTING) or _KIT.fullmatch(posixpath.basename(each.text)) for each in tokens)
    loads = EXEC in (option, before) or _KIT_CODE.match(option)
    if loads or (kit and not start.startswith(KIT_SETTING)):
        raise refuse(
            token.field,
            f"{token.text!r} lets a session choose by {{{name}}} what is loaded or run: write a fixed value. Kit takes "
            f"text as a setting, --/path={{{name}}}; its scripts find a session's in FOOTLIGHTS_SESSION_FILE.",
        )


def _read_as_code(command: Sequence[Template], chosen: frozenset[str]) -> Iterator[int]:
    """Yield the tokens with a session's text that the command's program may take for code, a script or a program."""
    at, kind = 0, _kind(command[0])
    if kind is _WRAPPERS:
        named = False
        for number, template in enumerate(command[1:], start=1):
            if (found := _kind(template)) in (_INTERPRETERS, _SHELL_CALLERS):
                at, kind = number, found
                break
            if template.names & chosen and not named:
                yield number
            named = named or _is_operand(template, chosen)
    if kind is _SHELL_CALLERS:
        yield from (number for number in range(at + 1, len(command)) if command[number].names & chosen)
    elif kind is _INTERPRETERS:
        yield from _interpreted(command, at, chosen)


def _interpreted(command: Sequence[Template], at: int, chosen: frozenset[str]) -> Iterator[int]:
    """The same of an interpreter's own tokens: its options, up to its script, and what follows an option for code."""
    script = False
    for number in range(at + 1, len(command)):
        template, before = command[number], command[number - 1]
        if template.names & chosen:
            option, separator, _ = _start(template).partition("=")
            joined = bool(option) and (bool(separator) or not option.startswith("--")) and _is_code_option(option)
            if not script or joined or _is_code_option(_start(before)):
                yield number
        elif _is_operand(template, chosen):
            if number == at + 1:
                return  # certainly its script: what follows is read by that
            script = True


def _kind(template: Template) -> re.Pattern[str] | None:
    name = posixpath.basename(_start(template)) if not template.names else ""
    return next((kind for kind in (_INTERPRETERS, _SHELL_CALLERS, _WRAPPERS) if kind.fullmatch(name)), None)


def _is_code_option(text: str) -> bool:
    return _CODE_OPTION.fullmatch(text) is not None


def _is_operand(template: Template, chosen: frozenset[str]) -> bool:
    """Whether it may be the name of a script or program: no option, assignment or number."""
    text = _start(template)
    return not template.names & chosen and not text.startswith("-") and not re.fullmatch(r"\w+=.*|[\d.,:]+\w?", text)


def _start(template: Template) -> str:
    """The text before the first placeholder."""
    part = template.parts[0] if template.parts else ""
    return part if isinstance(part, str) else ""
