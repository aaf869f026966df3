"""Reading WebSocket frame headers as they pass by (RFC 6455, section 5.2), without I/O.

The WebSocket library parses and validates the frames. This module does what the library cannot: it holds back a Close
frame, splits a long binary message into several, so that no long message is in memory as a whole, and stops floods of
fragments and of control frames.
"""

from __future__ import annotations

from collections import deque

CONTINUATION, BINARY, CLOSE, PING, PONG = 0x0, 0x2, 0x8, 0x9, 0xA
FINAL, MASKED = 0x80, 0x80
MAX_FRAGMENTS = 4096
MAX_CONTROL_FRAMES = 256
"""The maximum number per second; empty data frames count too."""


class Flood(Exception):
    """The peer sends frames that no honest client sends."""


class FrameFilter:
    """Follows the frames of one direction of a connection."""

    def __init__(self, part_bytes: int, message_bytes: int) -> None:
        """Binary messages are passed on in parts of `part_bytes`, unless they are longer than `message_bytes`."""
        self.held: bytearray | None = None
        """The Close frame, from its first byte on, and everything after it."""
        self.parts: deque[bool] = deque()
        """For each binary message that was passed on, or begun: whether it is the last part of the peer's message."""
        self.closing = False
        """Our own Close frame is sent: a ping is passed on as a pong, which needs no answer."""
        self._part_bytes = part_bytes
        self._message_bytes = message_bytes
        self._head = bytearray()
        self._payload_left = 0  # of the frame that is passed on
        self._frame_left = 0  # of the peer's frame, after that
        self._final = 0
        self._mask = b""
        self._binary = False
        self._part = 0
        self._message = 0
        self._fragments = 0
        self._control_frames = 0
        self._second = 0.0

    @property
    def mid_message(self) -> bool:
        """Whether the bytes so far end inside a message."""
        return bool(self._payload_left or self._frame_left or self._head or self._fragments)

    def feed(self, data: bytes | bytearray, now: float) -> bytes:
        """What to pass on, up to a Close frame. Flood on abuse.

        The opcode is in a frame's first byte, so a Close frame is known from that.
        """
        if now - self._second >= 1:
            self._second = now
            self._control_frames = 0
        view = memoryview(data)
        out: list[bytes | memoryview] = []
        at = 0
        while at < len(view):
            if self.held is not None:
                self.held += view[at:]
                break
            if self._payload_left:
                step = min(self._payload_left, len(view) - at)
                out.append(view[at : at + step])
                self._payload_left -= step
                at += step
            elif self._frame_left:
                out.append(self._begin_part())
            elif view[at] & 0x0F == CLOSE and not self._head:
                self.held = bytearray()
            else:
                missing = self._head_length() - len(self._head)
                self._head += view[at : at + missing]
                at += missing
                if len(self._head) == self._head_length():
                    out.append(self._begin_frame())
                    self._head.clear()
        return b"".join(out)

    def _head_length(self) -> int:
        if len(self._head) < 2:
            return 2
        extended = {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0)
        return 2 + extended + (4 if self._head[1] & MASKED else 0)

    def _begin_frame(self) -> bytes:
        """The head to pass on for the one that came."""
        length = self._head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(self._head[2 : 4 if length == 126 else 10], "big")
        opcode, final = self._head[0] & 0x0F, self._head[0] & FINAL
        if opcode in (PING, PONG) or not length:
            self._control_frames += 1
            if self._control_frames > MAX_CONTROL_FRAMES:
                raise Flood("too many control or empty frames")
        if opcode in (PING, PONG):
            if self.closing:
                self._head[0] = self._head[0] & 0xF0 | PONG
            self._payload_left = length
            return bytes(self._head)
        if opcode != CONTINUATION:
            self._binary = opcode == BINARY
            self._part = self._message = 0
        self._fragments = 0 if final else self._fragments + 1
        if self._fragments > MAX_FRAGMENTS:
            raise Flood("a message in too many fragments")
        self._message += length
        too_long = self._message > self._message_bytes  # for the library to refuse
        if self._binary and not too_long and self._part + length > self._part_bytes:
            self._frame_left, self._final = length, final
            self._mask = bytes(self._head[-4:]) if self._head[1] & MASKED else b""
            return self._begin_part(self._head[0] & ~FINAL)
        self._payload_left = length
        self._part += length
        if self._binary and final:
            self.parts.append(True)
        return bytes(self._head)

    def _begin_part(self, opcode: int = BINARY) -> bytes:
        """The head of a frame with as much of the peer's frame as there is room for in the part that is open."""
        size = min(self._part_bytes - self._part, self._frame_left)
        self._payload_left = size
        self._frame_left -= size
        final = FINAL if self._frame_left else self._final
        if final:
            self.parts.append(not self._frame_left)
        self._part = 0 if self._frame_left else size
        mask, turn = self._mask, size % 4
        self._mask = mask[turn:] + mask[:turn]
        if size < 126:
            short, extended = size, b""
        elif size <= 0xFFFF:
            short, extended = 126, size.to_bytes(2, "big")
        else:
            short, extended = 127, size.to_bytes(8, "big")
        return bytes([final | opcode, short | (MASKED if mask else 0)]) + extended + mask
