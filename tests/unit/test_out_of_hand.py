"""When a subhost that is being stopped is out of hand: overlay-stop(8)."""
import pytest

from overlay_boot import stop


def is_out_of_hand(monkeypatch, seconds, collisions, work):
    """Whether it is, so many seconds after the first look, if it runs against its limits at these moments, and works so much."""
    clock = 0.0
    monkeypatch.setattr(stop.time, "monotonic", lambda: clock)
    looked = 0.0

    def seen(_watch):
        return any(looked < moment <= clock for moment in collisions), (clock - looked) * work

    monkeypatch.setattr(stop.Watch, "collides_and_works", seen)
    watch = stop.Watch(None)
    found = False
    while clock < seconds:
        looked, clock = clock, clock + 0.1001
        found = found or watch.is_out_of_hand()
    return found


def every(period, seconds):
    return [period * number for number in range(1, int(seconds / period) + 1)]


@pytest.mark.parametrize("seconds, collisions, work, expected", [
    (1.3, every(0.1, 2), 0, True),              # a fork bomb
    (1.5, every(0.4, 2), 0, True),              # a memory hog
    (5, every(0.9, 5), 1, True),                # the same on a slow machine
    (9, every(2.2, 9), 1, True),
    (9, every(2.2, 9), 0.1, False),             # what is near its limit, and rests meanwhile
    (9, every(0.9, 9), 0.1, False),
    (9, [0.1], 1, False),                       # what is at work, and has hit its limit before
    (9, [0.1, 1.5], 1, False),
    (9, [0.1, 0.2, 0.3, 0.4], 1, False),
    (9, [0.1, 1.5, 5, 6.5], 1, False),
])
def test_out_of_hand(monkeypatch, seconds, collisions, work, expected):
    assert is_out_of_hand(monkeypatch, seconds, collisions, work) == expected
