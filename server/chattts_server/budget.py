"""How much audio a caller may ask for: a bucket of one minute for each. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_CALLERS = 10_000  # API keys are given out by hand; this only stops a mistake from growing without end


@dataclass(slots=True)
class _Bucket:
    level: float  # audio seconds; below 0: in debt
    filled: float  # monotonic


@dataclass(slots=True)
class Budget:
    """`per_minute`: audio seconds of each caller; None: no bound."""

    per_minute: float | None
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def wait(self, caller: str, audio_seconds: float, now: float) -> float:
        """Seconds until the caller may ask for so much; 0: now. More than a minute's worth needs a full bucket."""
        if self.per_minute is None:
            return 0.0
        missing = min(audio_seconds, self.per_minute) - self._bucket(caller, now).level
        return max(0.0, missing / self.per_minute * 60)

    def spend(self, caller: str, audio_seconds: float, now: float) -> None:
        """Negative seconds give back what was not made."""
        if self.per_minute is not None:
            bucket = self._bucket(caller, now)
            bucket.level = min(self.per_minute, bucket.level - audio_seconds)

    def _bucket(self, caller: str, now: float) -> _Bucket:
        assert self.per_minute is not None
        if len(self._buckets) >= MAX_CALLERS and caller not in self._buckets:
            self._buckets.clear()
        bucket = self._buckets.setdefault(caller, _Bucket(self.per_minute, now))
        bucket.level = min(self.per_minute, bucket.level + (now - bucket.filled) * self.per_minute / 60)
        bucket.filled = now
        return bucket
