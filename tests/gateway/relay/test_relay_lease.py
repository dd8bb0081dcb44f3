import asyncio

import pytest

from gateway.relay.lease import Lease


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_lease_runs_out():
    clock = Clock()
    lease = Lease(5.0, clock)
    assert not lease.is_valid
    lease.renew()
    clock.now += 4.999
    assert lease.is_valid
    clock.now += 0.001
    assert not lease.is_valid
    lease.renew()
    assert lease.is_valid


async def test_each_loss_is_told_once():
    clock = Clock()
    lease = Lease(5.0, clock)
    lost = []
    script = iter([False, True, False, False, True, False, False])

    async def sleep(_):
        renew = next(script, None)
        if renew is None:
            raise asyncio.CancelledError
        clock.now += 5.0
        if renew:
            lease.renew()

    with pytest.raises(asyncio.CancelledError):
        await lease.watch(lambda: lost.append(clock.now), 0.25, sleep)
    assert lost == [100 + 3 * 5.0, 100 + 6 * 5.0]
