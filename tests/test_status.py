"""Errors survive the way to a `google.rpc.Status` and back (`errors`, `status`)."""

from __future__ import annotations

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from footlights.errors import BY_CODE, DOMAIN, Error, InvalidArgument, NotFound, Reason, Violation
from footlights.status import CODE_NAMES, from_status, to_json, to_status

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
REASON = st.from_regex(r"[A-Z][A-Z0-9_]{0,62}", fullmatch=True)
METADATA = st.dictionaries(TEXT, TEXT, max_size=4)
DELAY = st.none() | st.integers(0, 10**13).map(lambda microseconds: microseconds / 1e6)


def facts(error: Error) -> tuple[object, ...]:
    where = error.violations if isinstance(error, InvalidArgument) else ()
    return (type(error), error.code, error.message, error.reason, error.metadata, error.retry_after_s, *where)


@given(st.sampled_from([*BY_CODE.values(), Error]), TEXT, REASON, METADATA, DELAY)
def test_an_error_survives_the_wire(
    kind: type[Error], message: str, reason: str, metadata: dict[str, str], delay: float | None
) -> None:
    """from_status gives back class, message, reason, metadata and delay of what to_status was given."""
    error = kind(message, metadata=metadata, retry_after_s=delay)
    error.reason = reason
    wire = to_status(error).SerializeToString()

    assert facts(from_status(status_pb2.Status.FromString(wire))) == facts(error)


@given(st.lists(st.builds(Violation, TEXT, TEXT, REASON), min_size=1, max_size=4), METADATA)
def test_an_invalid_argument_keeps_all_its_violations(violations: list[Violation], metadata: dict[str, str]) -> None:
    """Each with field, problem and reason, beside everything else."""
    error = InvalidArgument.of(violations, metadata=metadata)

    assert facts(from_status(to_status(error))) == facts(error)


def test_a_status_has_exactly_one_error_info() -> None:
    """AIP-193: one ErrorInfo with our domain; a BadRequest only for a field; a RetryInfo only with a delay."""
    kinds = [
        [detail.TypeName().rpartition(".")[2] for detail in to_status(error).details]
        for error in (NotFound("gone"), InvalidArgument("limit", "0 is below 1"), NotFound("later", retry_after_s=2))
    ]
    info = error_details_pb2.ErrorInfo()

    assert kinds == [["ErrorInfo"], ["ErrorInfo", "BadRequest"], ["ErrorInfo", "RetryInfo"]]
    assert to_status(NotFound("gone")).details[0].Unpack(info)
    assert info.domain == DOMAIN


def test_what_is_not_found_is_named_as_a_resource() -> None:
    """AIP-193: a ResourceInfo with the type and the id, by the reason; none where nothing was looked up."""
    gone = NotFound("gone", reason=Reason.SESSION_NOT_FOUND, metadata={"field": "session_id", "session_id": "s-1"})
    nowhere = NotFound("no route", reason=Reason.PATH_NOT_FOUND, metadata={"path": "/x"})
    info = error_details_pb2.ResourceInfo()

    assert to_status(gone).details[1].Unpack(info)
    assert (info.resource_type, info.resource_name) == ("footlights.dev/Session", "s-1")
    assert [detail.TypeName() for detail in to_status(nowhere).details] == ["google.rpc.ErrorInfo"]


def test_the_json_of_an_error_has_the_name_of_its_code() -> None:
    """As the gateway writes a status."""
    found = to_json(NotFound("gone"))

    assert (found["code"], found["status"], found["message"]) == (5, "NOT_FOUND", "gone")
    assert [detail["reason"] for detail in found["details"]] == ["RESOURCE_NOT_FOUND"]


def test_text_that_utf8_cannot_carry_does_not_hide_the_error() -> None:
    """A lone surrogate, as a file name may bring, is replaced instead of failing the answer."""
    assert to_status(NotFound("\udcff", metadata={"path": "\udcff"})).message == "?"


def test_statuses_of_other_makers_are_read_as_far_as_they_go() -> None:
    """No details, unknown details, broken details or a code of no class of ours still make an Error with a reason."""
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    plain = from_status(status_pb2.Status(code=5, message="no", details=[broken]))
    late = from_status(status_pb2.Status(code=4, message="late"))
    bad = from_status(status_pb2.Status(code=3, message="bad"))

    assert facts(plain)[:4] == (NotFound, 5, "no", "RESOURCE_NOT_FOUND")
    assert (type(late), late.reason) == (Error, "DEADLINE_EXCEEDED")
    assert (type(bad), bad.message, bad.reason) == (InvalidArgument, "bad", "INVALID_ARGUMENT")


def test_the_code_names_are_googles() -> None:
    """CODE_NAMES is google.rpc.Code without OK."""
    assert {number: name for name, number in code_pb2.Code.items() if number} == CODE_NAMES
