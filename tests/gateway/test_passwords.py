"""Password hashing: bounded, off the loop, and False for whatever is no hash."""

import asyncio
import threading

import pytest

from gateway.passwords import PasswordHashingBusyError, Passwords, PasswordSettings, generate_password

CHEAP = PasswordSettings(memory_kib=64, passes=1, concurrent=2, waiting=4)


async def test_only_the_right_password_matches():
    passwords = Passwords(CHEAP)
    hashed = await passwords.hash("correct horse 电池")
    assert hashed.startswith("$argon2id$")
    assert await passwords.verify(hashed, "correct horse 电池")
    for wrong in ("", "correct horse 电", "Correct horse 电池", "correct horse 电池 "):
        assert not await passwords.verify(hashed, wrong)
    for no_hash in (None, "", "x", "$argon2id$v=19$m=64,t=1,p=1$", hashed[:-1], "$2b$12$" + "x" * 53):
        assert not await passwords.verify(no_hash, "correct horse 电池")


async def test_the_decoy_is_no_password(monkeypatch):
    passwords = Passwords(CHEAP)
    monkeypatch.setattr(passwords, "_verify", lambda *_: True)
    assert not await passwords.verify(None, "whatever the decoy is")


async def test_slots_and_waiting_are_bounded(monkeypatch):
    passwords = Passwords(CHEAP)
    go, running = threading.Event(), []

    def slow(_, __):
        running.append(threading.current_thread())
        assert go.wait(10)
        return True

    monkeypatch.setattr(passwords, "_verify", slow)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(passwords.verify("h", "p")) for _ in range(4)]
        while len(running) < 2:
            await asyncio.sleep(0)
        with pytest.raises(PasswordHashingBusyError):
            await passwords.verify("h", "p")
        with pytest.raises(PasswordHashingBusyError):
            await passwords.hash("p")
        assert len(running) == 2
        assert threading.main_thread() not in running
        go.set()
    assert [task.result() for task in waiting] == [True] * 4
    assert passwords._waiting == 0


async def test_who_leaves_gives_his_place_back(monkeypatch):
    passwords = Passwords(CHEAP)
    async with passwords._slot(), passwords._slot():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await passwords.verify(None, "p")
    assert passwords._waiting == 0
    assert not await passwords.verify(None, "p")


def test_generated_passwords_differ():
    assert len({generate_password() for _ in range(100)}) == 100
