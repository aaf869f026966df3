"""The quota of a cloud account: token buckets without a clock. Times are in seconds of any monotonic clock."""

from __future__ import annotations


class Bucket:
    """A token bucket. It holds up to `capacity` tokens and fills up in `period` seconds.

    See Turner, "New directions in communications", 1986.
    """

    def __init__(self, capacity: float, period: float) -> None:
        self.capacity = capacity
        self._rate = capacity / period
        self._level = capacity
        self._at = 0.0

    def level(self, now: float) -> float:
        """Return the number of tokens; negative if more were taken than there were."""
        self._level = min(self.capacity, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until the bucket holds `amount` tokens, or is full."""
        return max(0.0, min(amount, self.capacity) - self.level(now)) / self._rate

    def take(self, amount: float, now: float) -> None:
        """Take `amount` tokens, whether the bucket holds them or not."""
        self._level = self.level(now) - amount


class Budget:
    """An account's quota. Each request counts for its seconds of audio, but at least for `min_billed_s`."""

    def __init__(self, requests_per_minute: float, seconds_per_hour: float, min_billed_s: float) -> None:
        self.requests = Bucket(requests_per_minute, 60)
        self.audio = Bucket(seconds_per_hour, 3600)
        self._min_billed_s = min_billed_s

    def wait(self, seconds: float, now: float) -> float:
        """Return the seconds until the quota allows a request with `seconds` of audio."""
        return max(self.requests.wait(1, now), self.audio.wait(max(seconds, self._min_billed_s), now))

    def take(self, seconds: float, now: float) -> None:
        """Count a request with `seconds` of audio."""
        self.requests.take(1, now)
        self.audio.take(max(seconds, self._min_billed_s), now)
