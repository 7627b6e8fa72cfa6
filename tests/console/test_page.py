"""The page in a real browser: who one is, what one sees, what one starts and ends."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Server
from tests.console.stand_in import DEVELOPER, OPERATOR
from tests.console.state import stamp

pytestmark = pytest.mark.browser


def start(page: Page, server: Server, application: str) -> str:
    """Start a session by the form; gives its id."""
    page.goto(server.page(f"start/{application}"))
    page.get_by_test_id("start-submit").click()
    page.wait_for_url(re.compile(r"#/sessions/."))
    return page.url.rpartition("/")[2]


def test_token_in_the_address_is_taken_once_and_removed(page: Page, server: Server) -> None:
    """
    `#token=` signs in, is kept for the tab, and is in the address bar and the history no more.
    """
    page.goto(server.page())

    expect(page.locator(".who-name strong")).to_have_text("ada")
    assert page.url == f"{server.url}/console/"
    assert page.evaluate("sessionStorage.getItem('footlights.token')") == OPERATOR
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.locator(".who-name strong")).to_have_text("ada")


def test_wrong_token_leads_to_sign_in_with_the_reason(page: Page, server: Server) -> None:
    """
    A token that is refused is forgotten, the server's reason is shown, and another token signs in.
    """
    page.goto(server.page(token="wrong"))

    expect(page.get_by_test_id("sign-in-reason")).to_contain_text("the token is not known")
    assert page.evaluate("sessionStorage.getItem('footlights.token')") is None
    page.get_by_test_id("token").fill(OPERATOR)
    page.get_by_test_id("sign-in").click()
    expect(page.get_by_test_id("nav-nodes")).to_be_visible()


def test_token_that_is_revoked_meanwhile_leads_to_sign_in(opened: Page, server: Server) -> None:
    """
    The first 401, wherever it comes from, leads back to the sign-in form with the reason.
    """
    server.do(lambda: server.stand_in.revoked.add(OPERATOR))
    # Not by a click: what is clicked may be gone already, for the watch may be the first to learn of it.
    opened.evaluate("location.hash = '#/applications'")

    expect(opened.get_by_test_id("sign-in-reason")).to_contain_text("revoked")


def test_developer_sees_only_what_the_role_allows(page: Page, server: Server) -> None:
    """
    Views and actions whose permission is missing are not offered.
    """
    page.goto(server.page(token=DEVELOPER))

    expect(page.get_by_test_id("nav-applications")).to_be_visible()
    expect(page.get_by_test_id("nav-nodes")).to_have_count(0)
    expect(page.get_by_test_id("nav-tokens")).to_have_count(0)


def test_empty_list_says_so_and_offers_a_start(opened: Page) -> None:
    """
    Without a session the view is not blank: it says that there is none and how to start one.
    """
    expect(opened.get_by_text("The stage is dark")).to_be_visible()
    expect(opened.get_by_test_id("start-session").first).to_be_visible()


def test_list_lives(opened: Page, server: Server) -> None:
    """
    A session that somebody else starts, changes and ends is seen at once, without a reload.
    """
    session = server.do(lambda: server.stand_in.add("usd-viewer", username="linus"))
    row = opened.locator(f"[data-session='{session['session_id']}']")
    expect(row.get_by_test_id("session-state")).to_have_attribute("data-state", "PENDING")

    server.do(lambda: server.stand_in.change(session, state="ACTIVE", viewers=2))
    expect(row.get_by_test_id("session-state")).to_have_attribute("data-state", "ACTIVE")
    expect(row).to_contain_text("2 viewers")
    server.do(lambda: server.stand_in.change(session, state="TERMINATED", ended_time=stamp()))
    expect(row).to_have_count(0)


def until(page: Page, condition: str, argument: str = "") -> None:
    """Wait for a condition of the page's own. (Playwright's way evaluates text, which the page's policy forbids.)"""
    deadline = time.monotonic() + 15
    while not page.evaluate(condition, argument):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def test_page_that_stays_open_keeps_no_endless_past(opened: Page, server: Server) -> None:
    """
    Of the sessions that ended the latest 500 are kept, all that live stay, and one that was let go can be opened.
    """

    living, *others = server.do(lambda: [server.stand_in.add("usd-viewer", state="READY") for _ in range(521)])
    first, last = others[0]["session_id"], others[-1]["session_id"]
    watch = """async () => {
      const main = document.querySelector("script[src*='main.js']").src;
      window.watched = (await import(main.replace("main.js", "api/watch.js"))).sessions;
    }"""
    opened.evaluate(watch)
    until(opened, "() => watched.value.size === 521")

    def end() -> None:
        for one in others:
            server.stand_in.change(one, state="TERMINATED", ended_time=stamp())

    server.do(end)
    until(opened, "(id) => watched.value.get(id)?.state === 'TERMINATED'", last)

    assert opened.evaluate("[...watched.value.values()].map(({ state }) => state).sort()") == [
        "READY",
        *["TERMINATED"] * 500,
    ]
    assert opened.evaluate("(id) => watched.value.has(id)", living["session_id"])
    assert not opened.evaluate("(id) => watched.value.has(id)", first)
    opened.goto(server.page(f"sessions/{first}"))
    expect(opened.get_by_test_id("session-state")).to_have_attribute("data-state", "TERMINATED")


def test_watch_is_taken_up_again(opened: Page, server: Server) -> None:
    """
    A watch that is cut off is opened again, and what changed meanwhile is seen.
    """
    session = server.do(lambda: server.stand_in.add("usd-viewer", username="linus"))
    row = opened.locator(f"[data-session='{session['session_id']}']")
    expect(row).to_be_visible()

    server.do(server.stand_in.cut)
    server.do(lambda: server.stand_in.change(session, state="READY"))

    expect(row.get_by_test_id("session-state")).to_have_attribute("data-state", "READY")
    watches = [path for _, path in server.stand_in.requests if path.startswith("/v1/sessions:watch")]
    assert len(watches) == 2


@pytest.mark.parametrize("reason", ["CURSOR_GONE", "INVALID_CURSOR"])
def test_watch_starts_over_where_its_cursor_is_refused(opened: Page, server: Server, reason: str) -> None:
    """
    What happened meanwhile is seen, whether the server has forgotten it or does not understand the cursor any more.
    """
    session = server.do(lambda: server.stand_in.add("usd-viewer", username="linus"))
    row = opened.locator(f"[data-session='{session['session_id']}']")
    expect(row).to_be_visible()

    server.do(lambda: server.stand_in.refuse_cursors(reason))
    server.do(server.stand_in.cut)
    server.do(lambda: server.stand_in.change(session, state="READY"))

    expect(row.get_by_test_id("session-state")).to_have_attribute("data-state", "READY")


def test_filters_narrow_the_list_and_stay_in_the_address(opened: Page, server: Server) -> None:
    """
    Filters by state, application and user can be combined, and the address holds them.
    """

    def add() -> None:
        server.stand_in.add("usd-viewer", username="ada", state="READY")
        server.stand_in.add("usd-viewer", username="linus", state="ACTIVE")
        server.stand_in.add("kit-explorer", username="linus", state="READY")

    server.do(add)
    rows = opened.get_by_test_id("session-row")
    expect(rows).to_have_count(3)

    opened.get_by_role("button", name="Ready").click()
    expect(rows).to_have_count(2)
    opened.get_by_label("User").fill("lin")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("kit-explorer")
    assert "state=READY" in opened.url
    assert "user=lin" in opened.url


def test_history_comes_page_by_page(opened: Page, server: Server) -> None:
    """
    Sessions that ended are listed newest first, fifty at a time, each with its reason.
    """

    def add() -> None:
        for number in range(61):
            times = {"created_time": stamp(minutes=-number), "ended_time": stamp(minutes=-number)}
            server.stand_in.add("usd-viewer", state="TERMINATED", end_reason="IDLE_TIMEOUT", **times)

    server.do(add)
    opened.get_by_test_id("history").click()
    rows = opened.get_by_test_id("session-row")

    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("Idle timeout")
    opened.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(61)


def test_start_is_sent_as_the_version_declares(opened: Page, server: Server) -> None:
    """
    The form sends the chosen release, the stage, and typed arguments, with a request id; defaults are left out.
    """
    opened.goto(server.page("start"))
    opened.get_by_test_id("start-application").select_option("usd-viewer")
    opened.get_by_test_id("start-version").select_option("next")
    opened.get_by_test_id("start-stage").fill("/srv/stages/a.usd")
    opened.get_by_test_id("argument-speed").fill("2.5")
    opened.get_by_test_id("argument-grid").select_option("true")
    opened.get_by_test_id("start-submit").click()
    opened.wait_for_url(re.compile(r"#/sessions/."))

    (body,) = server.stand_in.created
    assert re.fullmatch(r"[0-9a-f]{32}", body.pop("request_id"))
    assert body == {
        "application": "usd-viewer",
        "application_version": "next",
        "application_arguments": {
            "usd_stage_uri": "/srv/stages/a.usd",
            "nucleus_connection_config": [],
            "speed": 2.5,
            "grid": True,
        },
    }


def test_known_stages_are_one_click_away(opened: Page, server: Server) -> None:
    """
    The version's own stage, the samples beside it and what was used before are offered; any other can be typed.
    """
    used = {"usd_stage_uri": "/srv/stages/harbour.usd", "nucleus_connection_config": []}
    server.do(lambda: server.stand_in.add("usd-viewer", application_arguments=used))
    opened.goto(server.page("start/usd-viewer"))
    offered = opened.get_by_role("group", name="Stages to choose from").get_by_role("button")

    expect(offered).to_have_text(["Theatre", "Orrery", "Robot cell", "Harbour"])
    offered.nth(2).click()
    expect(opened.get_by_test_id("start-stage")).to_have_value("/srv/stages/robot_cell.usda")


def test_refusal_is_shown_at_the_field_it_names(opened: Page, server: Server) -> None:
    """
    The server's words and reason stand at the field, which gets the focus; after a correction it starts.
    """
    opened.goto(server.page("start/usd-viewer"))
    opened.get_by_test_id("start-stage").fill("/etc/passwd")
    opened.get_by_test_id("start-submit").click()

    field = opened.locator(".field", has=opened.get_by_test_id("start-stage"))
    expect(field.get_by_role("alert")).to_contain_text("outside of the allowed roots")
    expect(field.get_by_role("alert")).to_contain_text("STAGE_NOT_ALLOWED")
    expect(opened.get_by_test_id("start-stage")).to_be_focused()
    expect(opened.get_by_test_id("start-stage")).to_have_attribute("aria-invalid", "true")
    opened.get_by_test_id("start-stage").fill("/srv/stages/a.usd")
    opened.get_by_test_id("argument-speed").fill("11")
    opened.get_by_test_id("start-submit").click()
    field = opened.locator(".field", has=opened.get_by_test_id("argument-speed"))
    expect(field.get_by_role("alert")).to_contain_text("give a number from 0 to 10")
    assert not server.stand_in.sessions


def test_form_forecasts_the_placing(opened: Page, server: Server) -> None:
    """
    Before the start the form says whether it would start at once, and device by device why not.
    """
    opened.goto(server.page("start/usd-viewer"))
    forecast = opened.get_by_test_id("forecast")
    expect(forecast).to_contain_text("It can start now on stage-a")

    opened.get_by_test_id("start-application").select_option("huge")
    expect(forecast).to_contain_text("It will wait, number 3 in the queue, about 4 min 12 s")
    expect(forecast).to_contain_text("1000 nodes checked (3 shown): 2000 devices: too little memory")
    expect(forecast).to_contain_text("48 GiB, needs 80 GiB")


def test_waiting_session_says_why(opened: Page, server: Server) -> None:
    """
    A pending session shows its place, its estimate and its reasons, and explains itself device by device.
    """
    start(opened, server, "huge")
    waiting = opened.get_by_test_id("waiting")

    expect(waiting).to_contain_text("Number 3 in the queue, about 4 min 12 s")
    expect(waiting).to_contain_text("No slot")
    expect(waiting).to_contain_text("Memory 4 devices")
    waiting.get_by_role("button", name="Explain").click()
    expect(waiting).to_contain_text("cordoned by an operator")


def test_failed_session_says_why_and_can_be_started_again(opened: Page, server: Server) -> None:
    """
    A failure shows its sentence, reason, exit code and last lines, marks the step that was not reached, and the
    button starts a new session with the same wish.
    """
    first = start(opened, server, "crasher")
    ended = opened.get_by_test_id("ended")

    expect(ended).to_contain_text("give a path below /srv/stages")
    expect(ended).to_contain_text("CRASHED")
    expect(ended).to_contain_text("exit code 3")
    expect(ended).to_contain_text("Fatal: cannot open /srv/stages/missing.usd")
    expect(opened.locator("[data-stage=PROCESS_UP]")).to_have_attribute("data-status", "done")
    expect(opened.locator("[data-stage=APPLICATION_READY]")).to_have_attribute("data-status", "failed")
    opened.get_by_test_id("start-again").click()
    expect(opened.locator("h1")).to_contain_text("crasher")
    opened.wait_for_url(lambda url: "/sessions/" in url and first not in url)
    one, other = server.stand_in.created
    assert one.pop("request_id") != other.pop("request_id")
    assert one["application_arguments"] == other["application_arguments"]


def test_failure_of_an_own_session_is_said_in_every_view(opened: Page, server: Server) -> None:
    """
    Whoever looks at another view is told at once, with the way to the session; others' failures are not announced.
    """
    own = server.do(lambda: server.stand_in.add("usd-viewer", username="ada", state="STARTING"))
    other = server.do(lambda: server.stand_in.add("usd-viewer", username="linus", state="STARTING"))
    expect(opened.get_by_test_id("session-row")).to_have_count(2)
    opened.get_by_test_id("nav-applications").click()

    failed = {"state": "FAILED", "end_reason": "GPU_LOST", "ended_time": stamp()}
    server.do(lambda: server.stand_in.change(other, **failed, status_message="not yours"))
    server.do(lambda: server.stand_in.change(own, **failed, status_message="the GPU fell off the bus"))

    expect(opened.get_by_test_id("toast")).to_have_count(1)
    expect(opened.get_by_test_id("toast")).to_contain_text("the GPU fell off the bus")
    opened.get_by_test_id("toast").get_by_role("link").click()
    expect(opened.get_by_test_id("ended")).to_contain_text("GPU_LOST")


def test_unknown_session_is_said_to_be_unknown(opened: Page, server: Server) -> None:
    """
    An address of a session that does not exist, or is not visible, says so.
    """
    opened.goto(server.page("sessions/nothing"))

    expect(opened.get_by_text("No such session")).to_be_visible()


def test_session_is_extended_and_terminated(opened: Page, server: Server) -> None:
    """
    Extending shows the new limit, and a refusal where it is asked; terminating asks first and shows the end.
    """
    start(opened, server, "slow")
    opened.get_by_test_id("extend").click()
    opened.get_by_test_id("confirm-extend").click()
    expect(opened.locator(".facts")).to_contain_text("5 h")
    opened.get_by_test_id("extend").click()
    opened.get_by_role("button", name="4 h").click()
    opened.get_by_test_id("confirm-extend").click()
    expect(opened.get_by_role("dialog")).to_contain_text("the version allows 8 h")
    opened.keyboard.press("Escape")
    expect(opened.get_by_role("dialog")).to_have_count(0)

    opened.get_by_test_id("terminate").click()
    opened.get_by_test_id("confirm-terminate").click()

    expect(opened.locator("header").get_by_test_id("session-state")).to_have_attribute("data-state", "TERMINATED")
    expect(opened.get_by_test_id("ended")).to_contain_text("terminated by a user")


def test_a_session_without_whep_says_what_to_paste(opened: Page, server: Server) -> None:
    """
    Without NVIDIA's library the page shows the code for a page that has it, with a grant; it can be copied, and a
    second viewer gets a grant of its own. Embedding says the same without a grant, and nothing of WHEP.
    """
    session = server.do(lambda: server.stand_in.add("kit-explorer", username="ada", state="READY"))
    opened.goto(server.page(f"sessions/{session['session_id']}"))
    code = opened.get_by_test_id("kit-code")
    expect(code).to_contain_text("await AppStreamer.connect({")
    first = code.inner_text()
    config = json.loads(first.partition("const connection = ")[2].partition(";\n")[0])

    assert config["signalingPath"] == f"/v1/sessions/{session['session_id']}"
    assert config["accessToken"] == f"grant-{session['session_id']}-1"
    assert OPERATOR not in first
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.get_by_test_id("kit-paste").get_by_role("button", name="Copy").click()
    expect(opened.get_by_test_id("kit-paste").get_by_role("button", name="Copied")).to_be_visible()
    assert opened.evaluate("navigator.clipboard.readText()").strip() == first.strip()
    opened.get_by_test_id("kit-again").click()
    expect(code).to_contain_text(f"grant-{session['session_id']}-2")

    opened.get_by_test_id("embed").click()
    dialog = opened.get_by_test_id("embed-dialog")
    expect(dialog).to_contain_text("{ app_streamer } is the answer to :connect")
    expect(dialog).not_to_contain_text("whep")
    expect(dialog).not_to_contain_text("grant-")


def test_embedding_shows_calls_without_secrets(opened: Page, server: Server) -> None:
    """
    The calls behind the page are shown filled in for the session, and hold no token.
    """
    session_id = start(opened, server, "slow")
    opened.get_by_test_id("embed").click()
    dialog = opened.get_by_test_id("embed-dialog")

    expect(dialog).to_contain_text(f"{server.url}/v1/sessions/{session_id}:connect")
    expect(dialog).to_contain_text('"application":"slow"')
    assert OPERATOR not in dialog.inner_text()


def test_log_is_followed(opened: Page, server: Server) -> None:
    """
    Lines appear as the application writes them.
    """
    session_id = start(opened, server, "slow")
    expect(opened.get_by_test_id("log")).to_contain_text("opening stage")

    server.do(lambda: server.stand_in.logs[session_id].append("shader 12 of 80"))

    expect(opened.get_by_test_id("log")).to_contain_text("shader 12 of 80")


def test_nodes_show_devices_and_their_troubles(opened: Page, server: Server) -> None:
    """
    Every device is shown with its health and reasons, foreign processes by name, notes as they are; it is read again
    and again while the view is open, and not afterwards.
    """
    opened.get_by_test_id("nav-nodes").click()
    nodes = opened.get_by_test_id("nodes-list")

    expect(nodes.get_by_test_id("node")).to_have_count(3)
    expect(nodes.get_by_test_id("device")).to_have_count(10)
    expect(nodes).to_contain_text("GPU_IS_LOST")
    expect(nodes).to_contain_text("python3 train.py (48121)")
    expect(nodes).to_contain_text("No NVIDIA driver: software devices")
    with opened.expect_response("**/v1/nodes?**"):
        pass
    opened.get_by_test_id("nav-applications").click()
    expect(opened.get_by_test_id("applications")).to_be_visible()


def test_nodes_show_what_pauses_and_what_is_left_alone(opened: Page, server: Server) -> None:
    """
    The brake with its reason; a device's quarantine and what happened to it; a second agent's notice; how many sessions
    a drain still waits for, and how long.
    """

    def trouble() -> None:
        node = server.stand_in._nodes[0]
        since, until_ = (datetime.now(UTC) + timedelta(seconds=s) for s in (-90, 240))
        held = {"reason": "MASS_LOSS", "message": "4 of 5 nodes fell silent."}
        server.stand_in.brake = {**held, "since_time": since.isoformat()}
        node |= {"state": "DRAINING", "session_count": 2, "drain_time": until_.isoformat()}
        node["notices"] = [
            {"reason": "DUPLICATE_IDENTITY", "message": "A second agent tries.", "time": since.isoformat()}
        ]
        node["devices"][0] |= {
            "quarantine_status": {"reason": "GPU_LOST", "message": "GPU_LOST: ended sessions, 1 times"},
            "events": [{"time": since.isoformat(), "reason": "GPU_LOST", "message": "The device is lost."}],
        }

    server.do(trouble)
    opened.get_by_test_id("nav-nodes").click()

    expect(opened.get_by_test_id("brake")).to_contain_text("MASS_LOSS: 4 of 5 nodes fell silent.")
    expect(opened.get_by_test_id("drains")).to_have_text(
        re.compile(r"2 sessions left, will be ended in (4 min|3 min \d+ s)")
    )
    expect(opened.get_by_test_id("node-notice")).to_contain_text("DUPLICATE_IDENTITY A second agent tries.")
    expect(opened.get_by_test_id("quarantine")).to_contain_text("In quarantine: GPU_LOST: ended sessions, 1 times.")
    opened.get_by_test_id("device-history").locator("summary").click()
    expect(opened.get_by_test_id("device-history")).to_contain_text("GPU_LOST The device is lost.")


def test_a_session_that_does_not_end_is_raised(opened: Page, server: Server) -> None:
    """
    In the list and on its own page, with what is missing of the proof.
    """
    why = "The end is overdue, and its slots are withheld until the application is proved gone: pid 7 never ends."
    stuck = {"state": "TERMINATING", "node": "stage-a", "status_message": why}
    session = server.do(lambda: server.stand_in.add("robot-cell", **stuck))
    row = opened.locator(f"[data-session='{session['session_id']}']")
    expect(row.locator("span.bad")).to_contain_text("The end is overdue")
    row.get_by_role("link").click()

    expect(opened.get_by_test_id("overdue")).to_contain_text("It does not end")
    expect(opened.get_by_test_id("overdue")).to_contain_text("pid 7 never ends")


def test_an_unreachable_node_still_shows_that_it_is_cordoned(opened: Page, server: Server) -> None:
    """
    What is wanted of a node is shown beside what is observed of it, with who wanted it and why.
    """

    def fall_silent() -> None:
        scheduling = {"cordoned": True, "draining": False, "message": "new fans", "subject": "grace"}
        server.stand_in._nodes[0] |= {"state": "UNREACHABLE", "scheduling": scheduling}

    server.do(fall_silent)
    opened.get_by_test_id("nav-nodes").click()
    node = opened.locator("[data-node=stage-a]")

    expect(node.get_by_test_id("node-state")).to_have_attribute("data-state", "UNREACHABLE")
    expect(node.locator("[data-state=CORDONED]")).to_be_visible()
    expect(node.get_by_test_id("cordon-message")).to_contain_text("grace: new fans")


def test_operator_cordons_a_node(opened: Page, server: Server) -> None:
    """
    Cordon and uncordon act on the node and show its new state.
    """
    opened.get_by_test_id("nav-nodes").click()
    node = opened.locator("[data-node=stage-a]")

    node.get_by_role("button", name="Cordon").click()
    expect(node.get_by_test_id("node-state")).to_have_attribute("data-state", "CORDONED")
    node.get_by_role("button", name="Uncordon").click()
    expect(node.get_by_test_id("node-state")).to_have_attribute("data-state", "READY")
    assert ("POST", "/v1/nodes/stage-a:cordon") in server.stand_in.requests


def test_operator_accepts_a_new_node(opened: Page, server: Server) -> None:
    """
    A node that was not accepted says why it takes no sessions, and has no button that would not change that.
    """

    def come() -> None:
        why = {"reason": "NEW_NODE", "message": "The node is new."}
        server.stand_in._nodes[0] |= {"state": "CORDONED", "scheduling": {"cordoned": True, **why}, "acceptance": why}

    server.do(come)
    opened.get_by_test_id("nav-nodes").click()
    node = opened.locator("[data-node=stage-a]")

    expect(node.get_by_test_id("cordon-message")).to_contain_text("The node is new.")
    expect(node.get_by_role("button", name="Uncordon")).to_have_count(0)
    node.get_by_role("button", name="Accept").click()
    expect(node.get_by_test_id("node-state")).to_have_attribute("data-state", "READY")
    assert ("POST", "/v1/nodes/stage-a:accept") in server.stand_in.requests


def test_token_is_created_shown_once_and_revoked(opened: Page, server: Server) -> None:
    """
    The secret is shown at creation only; a refused member is shown at its field; revoking asks first.
    """
    opened.get_by_test_id("nav-tokens").click()
    opened.get_by_test_id("create-token").click()
    opened.get_by_test_id("token-subject").fill("bad name")
    opened.get_by_test_id("confirm-create-token").click()
    expect(opened.get_by_role("dialog").get_by_role("alert").first).to_contain_text("has a blank")
    opened.get_by_test_id("token-subject").fill("ci")
    opened.get_by_test_id("confirm-create-token").click()
    expect(opened.get_by_test_id("token-secret")).to_contain_text("flt00002_THE_SECRET")
    opened.get_by_role("button", name="Done").click()

    row = opened.get_by_test_id("token-row").first
    expect(row).to_contain_text("ci")
    assert "THE_SECRET" not in opened.content()
    row.get_by_role("button", name="Revoke").click()
    opened.get_by_test_id("confirm-revoke").click()
    expect(row).to_contain_text("revoked")


def test_application_shows_its_versions(opened: Page, server: Server) -> None:
    """
    An application's page lists releases and versions with what they run and take, and leads to the start form.
    """
    opened.get_by_test_id("nav-applications").click()
    opened.get_by_role("link", name="USD Viewer").click()

    expect(opened.locator(".version-card")).to_have_count(3)
    expect(opened.locator(".version-card").first).to_contain_text("footlights-viewer --stage {usd_stage_uri}")
    expect(opened.locator(".version-card").first).to_contain_text("2 GiB free memory")
    opened.get_by_role("link", name="Start this version").first.click()
    expect(opened.get_by_test_id("start-version")).to_have_value("1.5.0-rc.1")


def test_an_application_shows_its_warm_instances(opened: Page, server: Server) -> None:
    """
    Only its own pools, with how many are ready and why there are not more.
    """
    opened.get_by_test_id("nav-applications").click()
    opened.get_by_role("link", name="USD Viewer").click()

    rows = opened.get_by_test_id("pools").locator("tbody tr")
    expect(rows).to_have_count(1)
    for text in ("viewer-goal", "1.4.2", "for a wait of 5.0 s", "NO_SLOT: 4 devices"):
        expect(rows.first).to_contain_text(text)


def test_viewers_are_shown_and_disconnected(opened: Page, server: Server) -> None:
    """
    Those that are connected, with who asked for their grant; one is disconnected after a question, and goes.
    """
    session = start(opened, server, "usd-viewer")
    came = {"session_id": session, "connected_time": stamp(), "disconnected_time": None, "removed_time": None}
    found = [
        {"viewer_id": "vAAAAAAAAAAAAAAAA", "subject": "ada", "state": "CONNECTED"} | came,
        {"viewer_id": "vBBBBBBBBBBBBBBBB", "subject": "<b>eve</b>", "state": "CONNECTED"} | came,
        {"viewer_id": "vCCCCCCCCCCCCCCCC", "subject": "bob", "state": "DISCONNECTED"} | came,
    ]
    server.do(lambda: server.stand_in.viewers.update({session: found}))
    rows = opened.get_by_test_id("viewer")

    expect(rows).to_have_count(2, timeout=10_000)
    expect(rows.nth(1)).to_contain_text("<b>eve</b>")
    rows.nth(1).get_by_test_id("disconnect-viewer").click()
    expect(opened.get_by_test_id("disconnect-dialog")).to_contain_text("grant")
    opened.get_by_test_id("confirm-disconnect").click()

    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("ada")
    assert ("POST", f"/v1/sessions/{session}/viewers/vBBBBBBBBBBBBBBBB:disconnect") in server.stand_in.requests


def test_a_session_without_viewers_says_so(opened: Page, server: Server) -> None:
    """
    It does not look as if they were still being read.
    """
    start(opened, server, "usd-viewer")

    expect(opened.get_by_test_id("viewers")).to_contain_text("Nobody is watching now.")


def test_a_stage_that_is_not_opened_is_said_above_the_picture(opened: Page, server: Server) -> None:
    """A session shows why its scene is empty, and what to do, for as long as it lives."""
    why = "/srv/a.usd is opened once a client asks for it"
    own = server.do(lambda: server.stand_in.add("usd-viewer", username="ada", state="STARTING"))
    server.do(lambda: server.stand_in.change(own, stage_message=why))
    opened.goto(server.page(f"sessions/{own['session_id']}"))

    expect(opened.get_by_test_id("session-stage")).to_contain_text(why)
    server.do(lambda: server.stand_in.change(own, state="TERMINATED", ended_time=stamp()))
    expect(opened.get_by_test_id("session-stage")).to_have_count(0)
