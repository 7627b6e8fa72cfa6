"""The real process, its ports, and viewers that are not browsers.

The modules of the running process: `main`, `application`, `options`, `failure`, `health`, `notice`, `whep`, `viewers`,
`peer`, `media_port`, `render_loop`, `fetch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import pytest
from pxr import UsdGeom

from footlights.viewer.failure import PREFIX
from footlights.viewer.stream.viewers import MAX_VIEWERS, QUIET_S
from tests.viewer.stages import StageMaker
from tests.viewer.viewer_process import ViewerProcess, ready_viewer
from tests.viewer.whep_client import WhepClient, WhepRefused, luma

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DRAG = [
    {"type": "pointer", "action": "down", "x": 0.4, "y": 0.5, "button": 0, "buttons": 1},
    {"type": "pointer", "action": "move", "x": 0.6, "y": 0.6, "button": -1, "buttons": 1},
    {"type": "pointer", "action": "up", "x": 0.6, "y": 0.6, "button": 0, "buttons": 0},
]


def still_stage(folder: Path) -> Path:
    """A stage in which nothing moves, so that a picture only changes by input."""
    maker = StageMaker(folder / "still.usda")
    for k in range(5):
        shape = (UsdGeom.Cube, UsdGeom.Sphere)[k % 2].Define(maker.stage, f"/Shape{k}")
        shape.AddTranslateOp().Set((2.5 * k, 0, k % 3))
        shape.CreateDisplayColorAttr([(0.9, 0.2 * k, 0.1)])
    maker.stage.GetRootLayer().Save()
    return maker.path


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerProcess]:
    """One viewer for all tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("viewer")
    with ready_viewer(str(still_stage(folder)), folder / "log", "--title", "Test") as running:
        yield running


class TestStream:
    async def test_frames_arrive_and_answer_a_drag(self, viewer: ViewerProcess) -> None:
        """A viewer decodes pictures of 1280x720 that are not blank, and that change after a drag."""
        async with WhepClient(viewer.whep) as client:
            first = await client.next_frame()
            hello = await client.message("hello")
            before = luma(await client.fresh_frame()).astype(int)
            for message in DRAG:
                client.send(message)
            after = await client.frame_where(lambda f: np.abs(luma(f).astype(int) - before).mean() > 3)
            status = await viewer.status()

        assert (first.width, first.height) == (1280, 720)
        assert before.std() > 10
        assert luma(after).std() > 10
        assert (hello["title"], hello["width"], hello["height"]) == ("Test", 1280, 720)
        assert hello["triangles"] > 1000
        assert status["last_input_seconds_ago"] < 10

    async def test_typing_shows_in_the_picture(self, viewer: ViewerProcess) -> None:
        """Text darkens and brightens the place of the caption; Escape takes it away."""

        def caption(frame: Any) -> Any:
            return luma(frame)[600:665, 440:840].astype(int)

        async with WhepClient(viewer.whep) as client:
            await client.message("hello")
            empty = caption(await client.fresh_frame())
            client.send({"type": "text", "text": "Footlights, please"})
            await client.frame_where(lambda f: caption(f).std() > empty.std() + 15)
            client.send({"type": "key", "action": "down", "key": "Escape"})
            await client.frame_where(lambda f: abs(caption(f).std() - empty.std()) < 5)

    async def test_pings_and_nonsense(self, viewer: ViewerProcess) -> None:
        """A ping is answered; what is not input is counted and changes nothing."""
        before = (await viewer.status())["bad_input"]
        async with WhepClient(viewer.whep) as client:
            await client.message("hello")
            for raw in ("{", "[1]", '{"type": "dance"}'):
                client.send(raw)
            client.send({"type": "ping", "t": 12.5})
            pong = await client.message("pong")
            stats = await client.message("stats")

        assert pong == {"type": "pong", "t": 12.5}
        assert stats["viewers"] == 1
        assert (await viewer.status())["bad_input"] == before + 3

    async def test_h264_wins_and_vp8_is_possible(self, viewer: ViewerProcess) -> None:
        """H.264 is chosen whenever it is offered; an offer of only VP8 plays too, at the same time."""
        async with WhepClient(viewer.whep) as both, WhepClient(viewer.whep, codec="VP8") as vp8:
            await both.next_frame()
            frame = await vp8.next_frame()
            status = await viewer.status()

        assert "H264/90000" in both.answer
        assert "VP8/90000" not in both.answer
        assert "profile-level-id=42e01f" in both.answer.partition("a=fmtp:")[2].splitlines()[0]
        assert "VP8/90000" in vp8.answer
        assert (frame.width, frame.height) == (1280, 720)
        assert status["codecs"] == ["h264", "vp8"]

    async def test_media_comes_from_the_one_port(self, viewer: ViewerProcess) -> None:
        """Answers offer the media port at the public address and nothing else."""
        async with WhepClient(viewer.whep) as one, WhepClient(viewer.whep) as two:
            await one.next_frame()
            await two.next_frame()
        for answer in (one.answer, two.answer):
            places = {tuple(line.split()[4:6]) for line in answer.splitlines() if line.startswith("a=candidate")}
            assert places == {("127.0.0.1", str(viewer.media_port))}

    async def test_a_second_viewer_joins_with_a_key_frame(self, viewer: ViewerProcess) -> None:
        """It sees pictures at once, although nothing moves, and the first one goes on."""
        async with WhepClient(viewer.whep) as one:
            await one.next_frame()
            async with WhepClient(viewer.whep) as two:
                await two.next_frame(timeout=3)
                assert (await viewer.status())["viewers"] == 2
            await one.fresh_frame()

    async def test_lost_pictures_are_made_good(self, viewer: ViewerProcess) -> None:
        """A picture loss indication gets a key frame, long before the next regular one."""
        async with WhepClient(viewer.whep) as client:
            await client.next_frame()
            before = (await viewer.status())["key_frames"]
            await client.request_key_frame()
            await viewer.status_where(lambda s: s["key_frames"] > before, timeout=3)

    async def test_coming_back_at_once(self, viewer: ViewerProcess) -> None:
        """A viewer that leaves and returns gets the same port again without waiting."""
        for _ in range(3):
            async with WhepClient(viewer.whep) as client:
                await client.next_frame(timeout=3)

    async def test_nothing_is_drawn_without_a_viewer(self, viewer: ViewerProcess) -> None:
        """The frame counter stands still when the last viewer has gone, and moves again for the next one."""
        async with WhepClient(viewer.whep) as client:
            await client.next_frame()
        alone = await viewer.status_where(lambda s: s["viewers"] == 0 and s["fps"] == 0)
        for _ in range(10):  # on a busy machine one that was begun may still be counted
            before = alone["frames"]
            await asyncio.sleep(0.5)
            alone = await viewer.status()
            if alone["frames"] == before:
                break
        assert alone["frames"] == before
        async with WhepClient(viewer.whep) as client:
            await client.next_frame()
            assert (await viewer.status())["frames"] > alone["frames"]


class TestWhep:
    async def test_a_resource_can_be_deleted_twice(self, viewer: ViewerProcess) -> None:
        """DELETE ends the stream and answers 200, again and again."""
        async with WhepClient(viewer.whep, audio=True) as client:
            await client.next_frame()
            assert client.location.startswith("/whep/")
            assert [await client.delete(), await client.delete()] == [200, 200]
            await viewer.status_where(lambda s: s["viewers"] == 0)

        audio = client.answer.partition("m=audio")[2].partition("m=")[0]
        assert "a=inactive" in audio

    async def test_other_requests(self, viewer: ViewerProcess) -> None:
        """Preflight, trickle, unusable offers and wrong types get fitting answers, never 400, always with CORS."""
        async with aiohttp.ClientSession() as http:
            sdp = {"Content-Type": "application/sdp"}
            requests = [
                http.options(viewer.whep, headers={"Origin": "http://page"}),
                http.patch(
                    f"{viewer.whep}/x",
                    data="a=candidate:1",
                    headers={"Content-Type": "application/trickle-ice-sdpfrag"},
                ),
                http.patch(f"{viewer.whep}/x", data="a=candidate:1", headers={"Content-Type": "text/plain"}),
                http.delete(f"{viewer.whep}/gone"),
                http.post(viewer.whep, data="hello", headers=sdp),
                http.post(viewer.whep, data="", headers=sdp),
                http.post(viewer.whep, json={}),
                http.get(viewer.whep),
            ]
            statuses = []
            for request in requests:
                async with request as response:
                    statuses.append(response.status)
                    assert response.headers["Access-Control-Allow-Origin"] == "*"
                    assert "Location" in response.headers["Access-Control-Expose-Headers"]

        assert statuses == [204, 404, 415, 200, 422, 422, 415, 405]
        assert (await viewer.status())["viewers"] == 0

    async def test_an_offer_without_video_is_refused(self, viewer: ViewerProcess) -> None:
        """The reason says what to offer."""
        sdp = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
        async with (
            aiohttp.ClientSession() as http,
            http.post(viewer.whep, data=sdp, headers={"Content-Type": "application/sdp"}) as response,
        ):
            assert response.status == 422
            assert "recvonly video" in (await response.json(content_type=None))["detail"]


class TestHealth:
    def test_ready_says_so(self, viewer: ViewerProcess) -> None:
        """200 with the words that launchers look for."""
        status, body = viewer.get("/v1/streaming/ready")

        assert status == 200
        assert "Ready for connection" in json.dumps(body)
        assert viewer.get("/v1/streaming/startup")[1]["ready"] is True

    async def test_a_notice_reaches_who_watches_and_who_comes(self, viewer: ViewerProcess) -> None:
        """With the time that is left; an empty one takes it back, and then new viewers are not told."""
        notice = {"reason": "DRAIN", "message": "The machine goes.", "ends_in_seconds": 300}
        async with WhepClient(viewer.whep) as client:
            await client.message("hello")
            told = await asyncio.to_thread(viewer.post, "/v1/streaming/notice", json.dumps(notice).encode())
            there = await client.message("notice")
        async with WhepClient(viewer.whep) as client:
            came = await client.message("notice")
            back = await asyncio.to_thread(viewer.post, "/v1/streaming/notice", b'{"reason": ""}')
        async with WhepClient(viewer.whep) as client:
            await client.message("stats")
            kinds = [message["type"] for message in client.messages]

        assert (told, back) == (204, 204)
        assert there == {"type": "notice", **notice}
        assert came["message"] == "The machine goes."
        assert 0 < came["ends_in_seconds"] <= 300
        assert "notice" not in kinds

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"reason": 1}', b'{"ends_in_seconds": -1}', b'{"ends_in_seconds": NaN}']
    )
    def test_a_notice_that_makes_no_sense_is_refused(self, viewer: ViewerProcess, body: bytes) -> None:
        """And changes nothing."""
        assert viewer.post("/v1/streaming/notice", body) == 400

    def test_a_slow_stage_is_not_ready_rather_than_refused(self, tmp_path: Path) -> None:
        """While a stage is still being downloaded the HTTP port answers 503 with the step it is at."""
        release = threading.Event()

        class Slow(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                release.wait(20)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(still_stage(tmp_path).read_bytes())

            def log_message(self, *args: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Slow)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/still.usda?signature=secret"
        try:
            with ViewerProcess(url, tmp_path / "log") as viewer:
                while True:
                    try:
                        status, body = viewer.get("/v1/streaming/ready")
                    except OSError:
                        assert viewer.process.poll() is None
                        continue
                    if "stage" in body["statusMessage"]:
                        break
                assert status == 503
                release.set()
                viewer.wait_ready()
                assert viewer.terminate() < 2
                assert "secret" not in viewer.log.read_text()
        finally:
            release.set()
            server.shutdown()
            server.server_close()


class TestEnd:
    async def test_sigterm_ends_it_at_once(self, tmp_path: Path) -> None:
        """Exit code 0 within a second, with a viewer connected."""
        with ready_viewer(str(still_stage(tmp_path)), tmp_path / "log") as viewer:
            async with WhepClient(viewer.whep, keep_resource=True) as client:
                await client.next_frame()
                took = await asyncio.to_thread(viewer.terminate)

        assert viewer.process.returncode == 0
        assert took < 1.5

    @pytest.mark.parametrize("which", ["signal", "http", "media"])
    def test_a_taken_port(self, tmp_path: Path, which: str) -> None:
        """Exit code 2 and one line that names the port."""
        kind = socket.SOCK_DGRAM if which == "media" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if which != "media":
                taken.listen()
            port = taken.getsockname()[1]
            viewer = ViewerProcess(str(still_stage(tmp_path)), tmp_path / "log", **{f"{which}_port": port})
            with viewer:
                code, lines = viewer.wait_end()

        assert code == 2
        assert len(lines) == 1
        assert str(port) in lines[0]

    @pytest.mark.parametrize(
        ("uri", "reason"),
        [
            ("/nowhere/at/all.usd", "STAGE_NOT_FOUND"),
            ("omniverse://host/a.usd", "UNSUPPORTED_SCHEME"),
            ("http://127.0.0.1:9/a.usd", "STAGE_NOT_FOUND"),
            ("{folder}/garbage.usd", "STAGE_UNREADABLE"),
            ("{folder}/empty.usda", "STAGE_EMPTY"),
        ],
    )
    def test_a_stage_that_cannot_be_opened(self, tmp_path: Path, uri: str, reason: str) -> None:
        """Exit code 3, and the last line of stderr says why in a form that the agent reads."""
        (tmp_path / "garbage.usd").write_bytes(b"\x00\x01garbage")
        empty = StageMaker(tmp_path / "empty.usda")
        empty.stage.GetRootLayer().Save(True)
        with ViewerProcess(uri.format(folder=tmp_path), tmp_path / "log") as viewer:
            code, lines = viewer.wait_end()

        assert code == 3
        assert lines[-1].startswith(PREFIX)
        failure = json.loads(lines[-1].removeprefix(PREFIX))
        assert failure["reason"] == reason
        assert len(failure["message"]) > 20

    def test_bad_arguments(self, tmp_path: Path) -> None:
        """Exit code 2, naming the argument and its value."""
        with ViewerProcess("x", tmp_path / "log", ("--fps", "0")) as viewer:
            code, lines = viewer.wait_end()

        assert code == 2
        assert "--fps: '0' is not a whole number from 1 to 60" in lines[-1]


async def test_who_watches_is_not_thrown_out(viewer: ViewerProcess) -> None:
    """Nine offers that nobody follows up, while somebody watches: what does not connect goes first, when it has had
    its time; until then one too many is told to try again."""
    async with WhepClient(viewer.whep) as client, aiohttp.ClientSession() as http:
        await client.next_frame()
        offer = client.offer
        statuses = []
        for _ in range(9):
            async with http.post(viewer.whep, data=offer, headers={"Content-Type": "application/sdp"}) as response:
                statuses.append((response.status, response.headers.get("Retry-After")))
        assert statuses == [*[(201, None)] * (MAX_VIEWERS - 1), *[(503, "5")] * 2]
        await client.fresh_frame()
        assert client.connection_state == "connected"
        async with asyncio.timeout(QUIET_S + 10):
            while True:
                try:
                    async with WhepClient(viewer.whep) as late:
                        await late.next_frame()
                    break
                except WhepRefused:
                    await asyncio.sleep(0.5)
        assert client.connection_state == "connected"


class Nat(asyncio.DatagramProtocol):
    """A router between one player and the viewer, which may forget them and give the player another port."""

    def __init__(self, viewer_port: int) -> None:
        self._viewer = ("127.0.0.1", viewer_port)
        self._player: tuple[str, int] | None = None
        self._ports: list[asyncio.DatagramTransport] = []
        self.port = 0

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._inside.get_extra_info("sockname")[1]
        await self.rebind()

    async def rebind(self) -> None:
        nat = self

        class Outside(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
                if nat._player is not None:
                    nat._inside.sendto(data, nat._player)

        loop = asyncio.get_running_loop()
        for old in self._ports:
            old.close()
        outside, _ = await loop.create_datagram_endpoint(Outside, local_addr=("127.0.0.1", 0))
        self._ports.append(outside)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._player = (addr[0], addr[1])
        self._ports[-1].sendto(data, self._viewer)

    def close(self) -> None:
        for port in (self._inside, *self._ports):
            port.close()


async def test_a_player_goes_on_when_its_router_forgets_it(viewer: ViewerProcess) -> None:
    """Its packets come from another port then: within seconds the picture follows them, without a new offer."""
    nat = Nat(viewer.media_port)
    await nat.open()
    try:
        async with WhepClient(viewer.whep, through=nat.port) as client:
            await client.next_frame()
            await nat.rebind()
            began = asyncio.get_running_loop().time()
            while client.connection_state == "connected":
                client.send(DRAG[0])
                with contextlib.suppress(TimeoutError):
                    await client.fresh_frame(timeout=0.5)
                    if asyncio.get_running_loop().time() - began > 1:
                        break
            assert client.connection_state == "connected"
            assert asyncio.get_running_loop().time() - began < 25
            await viewer.status_where(lambda s: s["viewers"] == 1)
    finally:
        nat.close()


async def test_an_ice_restart_is_refused(viewer: ViewerProcess) -> None:
    """422, as RFC 9725 has it where candidates are taken (204) and restarts are not; the viewer goes on."""
    headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
    async with WhepClient(viewer.whep) as client, aiohttp.ClientSession(headers=headers) as http:
        await client.next_frame()
        ufrag = re.findall(r"a=ice-ufrag:\S+", client.offer)[0]
        statuses = []
        for fragment in (f"{ufrag}\r\na=ice-pwd:x\r\na=candidate:1\r\n", "a=candidate:1\r\n", "a=ice-ufrag:new\r\n"):
            async with http.patch(client.resource_url, data=fragment, headers={"If-Match": "*"}) as response:
                statuses.append(response.status)
        async with http.options(client.resource_url) as response:
            assert response.headers["Accept-Patch"] == headers["Content-Type"]
        await client.fresh_frame()
        await client.delete()
        async with http.patch(client.resource_url, data="a=candidate:1\r\n") as response:
            statuses.append(response.status)

    assert statuses == [204, 204, 422, 404]


@pytest.mark.parametrize(
    "parameters",
    ["", "profile-level-id=42e01f", "packetization-mode=1", "profile-level-id=42001f;level-asymmetry-allowed=1"],
)
async def test_h264_with_few_parameters_plays(viewer: ViewerProcess, parameters: str) -> None:
    """As small players offer it: those that are left out are the usual ones."""

    def reduced(offer: str) -> str:
        line = rf"a=fmtp:\1 {parameters}\r\n" if parameters else ""
        payload, *others = re.findall(r"a=rtpmap:(\d+) H264/90000", offer)
        for other in others:
            offer = re.sub(rf"a=(rtpmap|fmtp|rtcp-fb):{other} .*\r\n", "", offer)
        return re.sub(rf"a=fmtp:({payload}) .*\r\n", line, offer)

    async with WhepClient(viewer.whep, codec="H264", changed=reduced) as client:
        await client.next_frame()

    assert "H264/90000" in client.answer


@pytest.mark.parametrize(
    "formats",
    ["A=RTPMAP:96 H264/90000\r\n", "".join(f"a=rtpmap:{number} H264/90000\r\n" for number in range(2000))],
    ids=["in capitals", "thousands"],
)
async def test_odd_formats_are_refused_at_once(viewer: ViewerProcess, formats: str) -> None:
    """They neither fail in here nor hold up who watches, as 4,000 did for eight seconds."""
    began = time.monotonic()
    headers = {"Content-Type": "application/sdp"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(viewer.whep, data=f"v=0\r\n{formats}", headers=headers) as response,
    ):
        assert response.status == 422

    assert time.monotonic() - began < 4


async def test_refused_offers_raise_in_the_test_client(viewer: ViewerProcess) -> None:
    """The client reports a status other than 201 (so no test passes by mistake)."""
    with pytest.raises(WhepRefused):
        async with WhepClient(viewer.whep.replace("/whep", "/nothing")):
            pass
