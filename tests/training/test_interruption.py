"""Ctrl-C: the first only asks, the second interrupts, and what was there before comes back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from onnxprune.training.interruption import Interruption


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Python's own handler, whatever the runner of the tests has."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_asks_and_the_second_interrupts() -> None:
    with Interruption() as interruption:
        assert not interruption.asked
        press()
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            press()


@pytest.mark.parametrize("pressed", [False, True])
def test_the_handler_comes_back(pressed: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) is not before
        if pressed:
            press()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_comes_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="x"), Interruption():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        press()
        assert not interruption.asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_get_no_handler() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def enter() -> None:
        with Interruption() as interruption:
            seen.extend((interruption.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False, before]
