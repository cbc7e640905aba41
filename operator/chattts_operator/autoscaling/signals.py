"""Nouns of the autoscaler: data only, and who fills each field. None is unknown, 0 is zero."""

from __future__ import annotations

from dataclasses import dataclass, field

from .history import Window


@dataclass(frozen=True, slots=True)
class Metrics:
    """One service as Prometheus shows it. Filled by prometheus.py; rates are per second, times in seconds."""

    offered: float | None = None  # asked for, refused included, over 1 minute
    offered_5m: float | None = None
    completed: float | None = None
    refused: float | None = None
    p99: float | None = None  # also None while nothing is asked for
    bad_ratio: float | None = None
    breach: bool | None = None  # over target for the whole sustained time; None: cannot be said
    inflight: float | None = None
    age: float | None = None  # of the newest sample
    reporting: int | None = None  # pods that are scraped
    offered_30s: float | None = None  # the newest; asked directly, while records are up to a rule interval old


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One pod's way to Ready, or the moving average of many; seconds."""

    starting: float  # container started -> Ready: load, warm up
    pulling: float | None = None  # scheduled -> container started: volumes and images, on a new node minutes
    placing: float | None = None  # made -> scheduled: a node had to be found or provisioned

    @property
    def seconds(self) -> float:
        """Scheduled to Ready."""
        return (self.pulling or 0.0) + self.starting


@dataclass(frozen=True, slots=True)
class Fleet:
    """The pods as the cluster shows them. Filled by observe.py."""

    committed: int  # the Deployment's replicas, live, as the operator wrote them
    ready: int = 0
    ready_a_minute: int = 0  # Ready long enough to have been scraped
    unschedulable: int = 0
    overdue: int = 0  # placed, and not Ready within the startup deadline
    last_ready_at: float | None = None  # when the newest pod became Ready for the first time
    rolling_out: bool = False
    cold_start: tuple[str, ColdStart] | None = None  # of the newest Ready pod, by its uid

    @property
    def pending(self) -> int:
        """Pods on their way: wanted, not Ready, and nothing says that they cannot be placed or will never come."""
        return max(0, self.committed - self.ready - self.unschedulable - self.overdue)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the number of replicas, as status.autoscaling.history keeps it."""

    time: float
    before: int
    after: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class State:
    """What decide remembers from one tick to the next. What lives in memory says so; the rest is in status."""

    learned_qps: float | None = None  # requests per second that one replica carries within the promise
    learned_for: str = ""  # what determines how fast a pod is: see speed.py
    jump_time: float = 0.0  # when the load was last seen to jump
    cold_start: ColdStart | None = None  # moving average
    cold_start_pod: str = ""
    hold_until: float = 0.0  # no SLO step before
    ineffective_steps: int = 0
    p99_at_last_step: float | None = None
    refused_at_last_step: float | None = None  # share of what was asked for
    completed_at_last_step: float | None = None
    unschedulable_time: float = 0.0  # when pods last could not be placed; in memory: it moves with every tick
    floor: int = 0  # what the last breach asked for
    floor_time: float = 0.0
    last_scale_time: float = 0.0
    last_change: Change | None = None
    history: tuple[Change, ...] = ()  # newest first, ten at most
    window: Window = field(default_factory=Window)  # in memory: a restart only delays scale-in
    missing_since: float | None = None  # in memory


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one tick. "No change" has a reason too."""

    committed: int  # what the decision was taken on; it is void when the Deployment says otherwise by now
    desired: int
    reason: str
    message: str
    state: State
    metrics: Metrics = field(default_factory=Metrics)
    limited: str = ""  # why desired is not what was wanted: AtMaxReplicas, Unschedulable, Probing, StepLimit


@dataclass(frozen=True, slots=True)
class Signals:
    """All that one decision looks at."""

    metrics: Metrics
    fleet: Fleet
