"""Who has which stream: the table alone, against a model of two lines."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.stream_claims import StreamClaims

WORKERS = st.integers(0, 2)
STREAMS = st.sampled_from(["a", "a/sub", "b"])


def test_the_first_that_asks_has_it_and_the_others_learn_from_whom():
    claims = StreamClaims(100)
    first = claims.ask("a", 1)
    assert (first.worker, first.epoch) == (1, 101)
    assert claims.ask("a", 2).worker == 1
    again = claims.ask("a", 1)
    assert (again.worker, again.epoch, again.peers) == (1, 102, {2})
    assert claims.ask("a/sub", 2).worker == 2


def test_only_the_newest_claim_is_released_by_its_worker():
    claims = StreamClaims(0)
    early = claims.ask("a", 1).epoch
    late = claims.ask("a", 1).epoch
    claims.ask("a", 2)
    assert claims.release("a", 1, early) is None
    assert claims.release("a", 2, late) is None
    assert claims.release("a", 1, late) == {2}
    assert claims.release("a", 1, late) is None
    assert claims.ask("a", 2).worker == 2


def test_a_publisher_takes_a_stream_from_whoever_has_it():
    claims = StreamClaims(0)
    claims.ask("a", 1)
    claims.ask("a", 2)
    taken = claims.take_over("a", 2)
    assert (taken.worker, taken.peers) == (2, set())
    assert claims.ask("a", 1).worker == 2


def test_a_worker_that_says_hello_keeps_what_it_has_unless_another_has_it():
    claims = StreamClaims(0)
    assert claims.restore(1, {"a": 7, "b": 9}) == []
    assert claims.restore(2, {"b": 3, "c": 4}) == ["b"]
    assert claims.ask("a", 2).worker == 1
    assert claims.drop(1, {"a": 7}) == {"b": set()}
    assert claims.restore(1, {"a": 7}) == []
    assert claims.ask("a", 1).epoch > 9
    assert claims.drop(1) == {"a": {2}}


asks = st.tuples(st.just("ask"), STREAMS, WORKERS)
releases = st.tuples(st.just("release"), STREAMS, WORKERS)
takes = st.tuples(st.just("take_over"), STREAMS, WORKERS)
drops = st.tuples(st.just("drop"), STREAMS, WORKERS)


@given(st.lists(asks | releases | takes | drops, max_size=30))
def test_nobody_is_sent_to_a_worker_that_does_not_have_the_stream(steps):
    claims, holders, epochs = StreamClaims(0), {}, {}
    for step, stream, worker in steps:
        if step == "ask":
            holding = claims.ask(stream, worker)
            assert holding.worker == holders.setdefault(stream, worker)
            if holding.worker == worker:
                epochs[stream] = holding.epoch
        elif step == "take_over":
            epochs[stream] = claims.take_over(stream, worker).epoch
            holders[stream] = worker
        elif step == "release":
            freed = claims.release(stream, worker, epochs.get(stream, 0))
            assert (freed is not None) == (holders.get(stream) == worker)
            if freed is not None:
                del holders[stream]
        else:
            freed = claims.drop(worker)
            assert set(freed) == {stream for stream, holder in holders.items() if holder == worker}
            holders = {stream: holder for stream, holder in holders.items() if holder != worker}
        assert all(claims.holder(stream) == holders.get(stream) for stream in ("a", "a/sub", "b"))
