"""What an account may still spend: token buckets, without a clock of their own."""

from __future__ import annotations


class Bucket:
    """Holds up to `capacity`, and fills up in `period` seconds (Turner, "New directions in communications", 1986)."""

    def __init__(self, capacity: float, period: float) -> None:
        self.capacity = capacity
        self._rate = capacity / period
        self._level = capacity
        self._at = 0.0

    def level(self, now: float) -> float:
        """What there is."""
        self._level = min(self.capacity, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until there is so much, or all that fits."""
        return max(0.0, min(amount, self.capacity) - self.level(now)) / self._rate

    def take(self, amount: float, now: float) -> None:
        """Take it, whether it is there or not: what is owed fills up first."""
        self._level = self.level(now) - amount


class Budget:
    """Requests a minute and seconds of audio an hour, of which each request counts for `least_s` at least."""

    def __init__(self, requests_per_minute: float, seconds_per_hour: float, least_s: float) -> None:
        self.requests = Bucket(requests_per_minute, 60)
        self.audio = Bucket(seconds_per_hour, 3600)
        self._least_s = least_s

    def wait(self, seconds: float, now: float) -> float:
        """Seconds until a request with so much audio can be made."""
        return max(self.requests.wait(1, now), self.audio.wait(max(seconds, self._least_s), now))

    def take(self, seconds: float, now: float) -> None:
        """Count a request."""
        self.requests.take(1, now)
        self.audio.take(max(seconds, self._least_s), now)
