"""A session of live speech that outlasts its connections: what has no text yet is sent again over the next one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed

from sttd.cli.client import EOF, FLUSH, Refused, connected, next_event
from sttd.errors import RecognitionError, Unavailable, first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_websocket import WebSocketConnection

    from sttd.cli.client import Event

MAX_KEPT = 600
"""Pieces, a minute, that were sent and have no text yet."""
MAX_WAITING = 2 * MAX_KEPT
"""Pieces that wait for a connection, with those that are sent again."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 10.0
"""Before another attempt to connect."""
END_S = 30.0
"""After the end: timeout for the next sign of life."""
PING_S = 20.0
"""Between two questions whether the daemon is there, and the timeout of its answer."""
AFTER_WORD_S = 0.3
"""Words may end later than a recognizer says."""
UNCERTAIN_S = 0.4
"""At the arrival of a final without word times, this much of the audio may belong to the next utterance. It is less
than the silence that ends an utterance."""


class Live:
    """Sends what is heard, and shows what it means. All methods belong to one Trio run, and only `run` waits."""

    def __init__(
        self,
        url: str,
        token: str,
        options: Mapping[str, object],
        show: Callable[[Event], None],
        say: Callable[[str], None],
    ) -> None:
        """`show` gets each event, `say` a sentence about the connection. `options` are those of the session."""
        self._url = url
        self._token = token
        self._options = {**options, "words": 1, "warnings": 1, "codes": 1}
        self._show = show
        self._say = say
        self._waiting: deque[tuple[bytes | str, float]] = deque()
        self._without_text: deque[tuple[bytes | str, float, float]] = deque(maxlen=MAX_KEPT)
        self._more = trio.Event()
        self._scope = trio.CancelScope()
        self._sessions = 0  # that the daemon was ready for
        self._ended = False
        self._lost = False

    def hear(self, piece: bytes, duration_s: float) -> None:
        """Send audio as soon as possible."""
        if not self._ended:
            self._add(piece, duration_s)

    def flush(self) -> None:
        """Ask for the text of what was heard, without waiting for silence."""
        if not self._ended:
            self._add(FLUSH, 0.0)

    def end(self) -> None:
        """Ask for the last text; `run` returns once it is there."""
        if not self._ended:
            self._ended = True
            self._add(EOF, 0.0)
            self._live_on()

    def _add(self, data: bytes | str, duration_s: float) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            if not self._lost:
                self._lost = True
                self._say("sttd: the daemon has been away for too long; what was said first is lost")
        self._waiting.append((data, duration_s))
        self._more.set()

    async def run(self) -> None:
        """Return at the end of the session.

        Raises Unavailable or RecognitionError if there is no first session, if another attempt would fail as this one,
        or if the last text does not come.
        """
        with self._scope:
            pause_s = FIRST_PAUSE_S
            while True:
                before = self._sessions
                try:
                    await self._connection()
                    if self._ended and not self._waiting:
                        return
                    problem = "the daemon has ended the session"
                except (Unavailable, RecognitionError) as error:
                    if not self._sessions or isinstance(error, Refused):
                        raise
                    problem = str(error)
                if before != self._sessions:
                    self._say(f"sttd: {problem}; connecting again, and keeping what you say")
                    pause_s = FIRST_PAUSE_S
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
        raise RecognitionError(f"nothing came for {END_S:g} s: the last text is missing")

    async def _connection(self) -> None:
        try:
            async with connected(self._url, self._token, self._options) as websocket, trio.open_nursery() as nursery:
                self._waiting.extendleft((data, duration_s) for data, duration_s, _ in reversed(self._without_text))
                self._without_text.clear()
                nursery.start_soon(self._send, websocket)
                nursery.start_soon(_ask, websocket)
                while (event := await next_event(websocket)) is not None:
                    self._live_on()
                    if event.get("code") == "no_model":
                        raise Unavailable(str(event.get("message")))
                    if event.get("type") == "ready":
                        self._begin_session()
                    self._confirm(event)
                    self._show(event)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first(group) from None

    async def _send(self, websocket: WebSocketConnection) -> None:
        sent_s = 0.0
        try:
            while True:
                if not self._waiting:
                    self._more = trio.Event()
                    await self._more.wait()
                data, duration_s = self._waiting.popleft()
                sent_s += duration_s
                self._without_text.append((data, duration_s, sent_s))
                await websocket.send_message(data)
                self._live_on()
        except ConnectionClosed:
            return  # the other task reports it

    def _begin_session(self) -> None:
        self._sessions += 1
        self._lost = False
        if self._sessions > 1:
            self._say("sttd: connected again")

    def _live_on(self) -> None:
        """Wait longer for the last text."""
        if self._ended:
            self._scope.deadline = trio.current_time() + END_S

    def _confirm(self, event: Event) -> None:
        """Forget the audio whose text is here."""
        if event.get("type") != "final" or not self._without_text:
            return
        words = event.get("words")
        end_s = words[-1]["end"] + AFTER_WORD_S if words else self._without_text[-1][2] - UNCERTAIN_S
        while self._without_text and self._without_text[0][2] <= end_s:
            self._without_text.popleft()


async def _ask(websocket: WebSocketConnection) -> None:
    """Ask whether the daemon is there: a network that is gone says nothing. Raises RecognitionError if it is not."""
    try:
        while True:
            await trio.sleep(PING_S)
            with trio.fail_after(PING_S):
                await websocket.ping()
    except trio.TooSlowError:
        raise RecognitionError("the daemon does not answer") from None
    except ConnectionClosed:
        return  # another task reports it
