"""Reading WebSocket frame headers as they pass by (RFC 6455, section 5.2), without I/O.

The WebSocket library parses and validates the frames; this only finds out where a Close frame begins, so that it
can be held back, and stops what the library does not bound: fragments and control frames without end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CONTINUATION, CLOSE, PING, PONG = 0x0, 0x8, 0x9, 0xA
MAX_FRAGMENTS = 4096
MAX_CONTROL_FRAMES = 256  # a second


class Flood(Exception):
    """The peer sends frames that no honest client sends."""


@dataclass(slots=True)
class FrameScanner:
    """Follows the frame boundaries of one direction of a connection."""

    _head: bytearray = field(default_factory=bytearray)
    _payload_left: int = 0
    _fragments: int = 0
    _control_frames: int = 0
    _second: float = 0.0

    @property
    def mid_message(self) -> bool:
        """Whether the bytes so far end inside a message."""
        return bool(self._payload_left or self._head or self._fragments)

    def close_at(self, data: bytes | bytearray, now: float) -> int | None:
        """How many bytes of `data` come before a Close frame; None if all of it does. Flood on abuse.

        The opcode is in a frame's first byte, so a Close frame is known from that. After one there is nothing to scan.
        """
        if now - self._second >= 1:
            self._second = now
            self._control_frames = 0
        at = 0
        while at < len(data):
            if self._payload_left:
                step = min(self._payload_left, len(data) - at)
                self._payload_left -= step
                at += step
                continue
            self._head.append(data[at])
            at += 1
            if self._head[0] & 0x0F == CLOSE:
                return at - 1
            if len(self._head) == self._head_length():
                self._begin_payload()
        return None

    def _head_length(self) -> int:
        if len(self._head) < 2:
            return 14
        extended = {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0)
        return 2 + extended + (4 if self._head[1] & 0x80 else 0)

    def _begin_payload(self) -> None:
        length = self._head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(self._head[2 : 4 if length == 126 else 10], "big")
        opcode, final = self._head[0] & 0x0F, self._head[0] & 0x80
        self._payload_left = length
        self._head.clear()
        if opcode in (PING, PONG):
            self._control_frames += 1
            if self._control_frames > MAX_CONTROL_FRAMES:
                raise Flood("too many control frames")
            return
        self._fragments = 0 if final else self._fragments + 1
        if self._fragments > MAX_FRAGMENTS:
            raise Flood("a message in too many fragments")
