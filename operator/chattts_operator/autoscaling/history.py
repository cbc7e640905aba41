"""What was wanted over the last minutes: the stabilisation window. Pure; times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass

GAP_SECONDS = 75.0  # five ticks; one of the longest interval that may be set (60 s) and its delay


@dataclass(frozen=True, slots=True)
class Window:
    """Wanted replicas by time, oldest first. Lives in memory: a restart begins anew, which only delays scale-in."""

    entries: tuple[tuple[float, int], ...] = ()

    def add(self, now: float, wanted: int, seconds: float) -> Window:
        """Keeps one entry older than the window, so that a full window can be told from a short one.

        After a gap (a hold, no pod, no metrics) it begins anew: nobody knows what was wanted meanwhile.
        """
        entries = self.entries if self.entries and now - self.entries[-1][0] <= GAP_SECONDS else ()
        older = [entry for entry in entries if entry[0] <= now - seconds][-1:]
        newer = [entry for entry in entries if now - seconds < entry[0] <= now]
        return Window((*older, *newer, (now, wanted)))

    def covers(self, now: float, seconds: float) -> bool:
        return bool(self.entries) and self.entries[0][0] <= now - seconds

    def maximum(self) -> int:
        return max(wanted for _, wanted in self.entries)
