"""What `sttd listen` does: microphone, session, screen, commands and keys, tied together."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from sttd.cli.live import Live
from sttd.cli.microphone import PIECES_PER_SECOND, Microphone, devices
from sttd.cli.options import token
from sttd.cli.screen import Screen
from sttd.errors import ConfigError, SttdError, Unavailable, first

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from sttd.cli.client import Event


def list_devices() -> int:
    """Print the microphones."""
    print("\n".join(devices()) or "there is no microphone")
    return 0


def listen(arguments: argparse.Namespace) -> int:
    """Turn speech into text until a signal ends it."""
    try:
        command = shlex.split(arguments.exec)
    except ValueError as error:
        raise ConfigError(f"--exec {arguments.exec}: {error}") from None
    if command and not shutil.which(command[0]):
        raise ConfigError(f"--exec {arguments.exec}: there is no command {command[0]}")

    async def listening() -> None:
        await _Listening(arguments, command).run()

    try:
        trio.run(listening)
    except BaseExceptionGroup as group:
        raise first(group) from None
    return 0


class _Listening:
    """What `sttd listen` does, while it does it."""

    def __init__(self, arguments: argparse.Namespace, command: Sequence[str]) -> None:
        self._arguments = arguments
        self._command = command
        self._screen = Screen(partials=not arguments.json)
        self._finals, self._waiting_finals = trio.open_memory_channel[str](math.inf)
        self._talking = not arguments.push_to_talk
        self._complained = False
        self._welcomed = False
        self._microphone_gone = False
        self._given_up = False
        self._problem: SttdError | None = None
        loop = trio.lowlevel.current_trio_token()

        def soon(call: Callable[..., None], *values: bytes) -> None:
            with suppress(trio.RunFinishedError):
                loop.run_sync_soon(call, *values)

        self._microphone = Microphone(
            arguments.device, lambda piece: soon(self._heard, piece), lambda: soon(self._lose_microphone)
        )
        options: dict[str, object] = {**self._microphone.options}
        if arguments.language:
            options["language"] = arguments.language
        self._live = Live(arguments.url, token(), options, self._show, self._screen.say)

    async def run(self) -> None:
        """Return when all is said, and each command has run."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_commands)
            async with self._finals, trio.open_nursery() as session:
                session.start_soon(self._obey_signals, nursery.cancel_scope)
                if self._arguments.push_to_talk:
                    session.start_soon(self._obey_keys)
                with self._microphone:
                    try:
                        await self._live.run()
                    except SttdError as error:  # the commands are run first
                        self._problem = error
                session.cancel_scope.cancel()
        if self._given_up:
            raise KeyboardInterrupt
        if self._problem:
            raise self._problem
        if self._microphone_gone:
            raise Unavailable(f"the microphone {self._microphone.name} is gone")

    def _heard(self, piece: bytes) -> None:
        if self._microphone.overflows and not self._complained:
            self._complained = True
            self._screen.say("sttd: this machine is too busy: a part of what was said is lost")
        if self._talking:
            self._live.hear(piece, 1 / PIECES_PER_SECOND)

    def _lose_microphone(self) -> None:
        self._microphone_gone = True
        self._live.end()

    def _show(self, event: Event) -> None:
        if event.get("type") == "ready" and not self._welcomed:
            self._welcomed = True
            how = "; space begins and ends what is heard" if self._arguments.push_to_talk else ""
            self._screen.say(f"Listening to {self._microphone.name}{how}; Ctrl-C ends.")
        if self._arguments.json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
        else:
            self._screen.show(event)
        if event.get("type") == "final" and self._command:
            self._finals.send_nowait(event["text"])

    async def _run_commands(self) -> None:
        async for text in self._waiting_finals:
            try:
                done = await trio.run_process(
                    [*self._command, text], stdin=subprocess.DEVNULL, check=False, start_new_session=True
                )
            except OSError as error:
                self._screen.say(f"sttd: {self._command[0]}: {error.strerror}")
            else:
                if done.returncode:
                    self._screen.say(f"sttd: {self._command[0]} has ended with {done.returncode}")

    async def _obey_signals(self, all_of_it: trio.CancelScope) -> None:
        """The first signal waits for the last text, the second does not."""
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        ends = (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))
        with trio.open_signal_receiver(*ends) as received:
            await anext(received)
            await trio.sleep(self._microphone.delay_s)
            self._live.end()
            await anext(received)
            self._given_up = True
            all_of_it.cancel()

    async def _obey_keys(self) -> None:
        """Push to talk: the space key or Enter; without a terminal, each line of standard input."""
        with _keys() as keys:
            while data := await trio.to_thread.run_sync(os.read, 0, 100, abandon_on_cancel=True):
                for _ in range(sum(data.count(key) for key in keys)):
                    self._screen.say("..." if self._talking else "speak")
                    if self._talking:
                        await trio.sleep(self._microphone.delay_s)  # what was said before the key is on its way
                        self._live.flush()
                    self._talking = not self._talking
        self._talking = False
        self._live.end()


@contextmanager
def _keys() -> Iterator[tuple[bytes, ...]]:
    """Have standard input give each key at once if it is a terminal; yield what is looked for in it."""
    if not sys.stdin.isatty():
        yield (b"\n",)
        return
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield b" ", b"\n", b"\r"
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
