"""What the user wants: a TTSService body becomes a frozen TTSServiceSpec, or all its problems at once.

Pure. The API server has already refused what the CRD can say; here is what needs more than one rule can see, and the
same defaults once more, so that a body from anywhere reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import api
from .autoscaling.schedules import Schedule, ScheduleError, check
from .quantities import parse_quantity
from .reader import Reader

GPU_TOLERATION: Mapping[str, Any] = {"key": "nvidia.com/gpu", "operator": "Exists"}


class InvalidSpec(ValueError):
    """Carries every problem, each a sentence that begins with the field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class OperatorDefaults:
    """What the operator's configuration adds to a TTSService."""

    has_prometheus: bool = False
    server_image: str = ""
    monitoring_labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Image:
    reference: str | None  # None: the one fixed in status, else the operator's default
    pull_policy: str
    pull_secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    source: str
    repository: str
    revision: str
    claim_name: str
    host_path: str
    image: str
    path: str
    cache_size: str


@dataclass(frozen=True, slots=True)
class Server:
    device: str
    max_batch_size: int | None  # None: the engine chooses
    max_queue_wait_milliseconds: int
    request_timeout_seconds: int
    dtype: str
    extra_env: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Accelerator:
    resource_name: str | None  # None: no GPU
    count: int
    shared_memory: str


@dataclass(frozen=True, slots=True)
class Scheduling:
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    affinity: Mapping[str, Any]
    topology_spread: tuple[Mapping[str, Any], ...]
    priority_class: str
    runtime_class: str
    scheduler: str


@dataclass(frozen=True, slots=True)
class Rollout:
    capacity_policy: str
    startup_deadline_seconds: int
    drain_seconds: int


@dataclass(frozen=True, slots=True)
class Autoscaling:
    mode: str
    mode_is_default: bool
    min_replicas: int
    max_replicas: int
    p99_milliseconds: int
    qps_per_replica: float | None  # None: learned
    concurrency_per_replica: int | None
    latency_signal: str
    slo_max_audio_seconds: int
    sustained_seconds: int
    settle_seconds: int
    min_samples: int
    up_percent: int
    stabilization_seconds: int
    period_seconds: int
    down_percent: int
    fallback_after_seconds: int
    fallback_replicas: int | None  # None: hold
    schedules: tuple[Schedule, ...]
    hold_until: datetime | None
    hold_by: str

    def clamp(self, replicas: int) -> int:
        return max(self.min_replicas, min(self.max_replicas, replicas))


@dataclass(frozen=True, slots=True)
class Networking:
    service_type: str
    port: int
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Monitoring:
    monitor: str | None  # None: PodMonitor where its CRD exists, else annotations
    labels: Mapping[str, str]
    interval_seconds: int
    rules: bool


@dataclass(frozen=True, slots=True)
class TTSServiceSpec:
    key: api.Key
    uid: str
    replicas: int  # the scale subresource
    paused: bool
    image: Image
    model: Model
    server: Server
    accelerator: Accelerator
    requests: Mapping[str, Any]
    limits: Mapping[str, Any]
    scheduling: Scheduling
    rollout: Rollout
    autoscaling: Autoscaling
    networking: Networking
    monitoring: Monitoring
    ignored: tuple[str, ...]  # fields that are set and that this version does not act upon yet


def parse(body: api.Body, operator: OperatorDefaults) -> TTSServiceSpec:
    """Raises InvalidSpec with all problems."""
    problems: list[str] = []
    spec = Reader(body.get("spec") or {}, "spec", problems)
    autoscaling = _autoscaling(spec.section("autoscaling"), operator)
    parsed = TTSServiceSpec(
        key=api.key_of(body),
        uid=body["metadata"]["uid"],
        replicas=spec.integer("replicas", 1, 0, 1000),
        paused=spec.text("managementPolicy", "Managed", ("Managed", "Paused")) == "Paused",
        image=_image(spec.section("image")),
        model=_model(spec.section("model")),
        server=_server(spec.section("server")),
        accelerator=_accelerator(spec.section("accelerator")),
        requests=spec.section("resources").mapping("requests"),
        limits=spec.section("resources").mapping("limits"),
        scheduling=_scheduling(spec.section("scheduling")),
        rollout=_rollout(spec.section("rollout")),
        autoscaling=autoscaling,
        networking=_networking(spec.section("networking").section("service")),
        monitoring=_monitoring(spec.section("monitoring"), operator),
        ignored=_ignored(spec, autoscaling),
    )
    _refuse_unprotected(spec)
    _check_across(parsed, problems)
    if problems:
        raise InvalidSpec(list(dict.fromkeys(problems)))
    return parsed


def _image(image: Reader) -> Image:
    repository, tag, digest = image.text("repository"), image.text("tag"), image.text("digest")
    if repository and not (tag or digest):
        image.problem("repository", "needs image.tag or image.digest")
    reference = f"{repository}@{digest}" if digest else f"{repository}:{tag}"
    return Image(
        reference=reference if repository else None,
        pull_policy=image.text("pullPolicy", "IfNotPresent", ("Always", "IfNotPresent", "Never")),
        pull_secrets=tuple(item["name"] for item in image.sequence("pullSecrets")),
    )


_NEEDED_BY_SOURCE = {
    "HuggingFace": ("revision", "acceptLicense"),
    "PersistentVolumeClaim": ("claimName",),
    "HostPath": ("hostPath",),
    "ImageVolume": ("image",),
}


def _model(model: Reader) -> Model:
    source = model.text("source", "HuggingFace", tuple(_NEEDED_BY_SOURCE))
    for name in _NEEDED_BY_SOURCE[source]:
        if not model.text(name):
            model.problem(name, f"is needed with model.source {source}")
    return Model(
        source=source,
        repository=model.text("repository", "2Noise/ChatTTS"),
        revision=model.text("revision"),
        claim_name=model.text("claimName"),
        host_path=model.text("hostPath"),
        image=model.text("image"),
        path=model.text("path"),
        cache_size=model.section("cache").text("size", "10Gi"),
    )


def _server(server: Reader) -> Server:
    return Server(
        device=server.text("device", "Auto", ("Auto", "CUDA", "CPU")),
        max_batch_size=server.optional_integer("maxBatchSize", 1, 1024),
        max_queue_wait_milliseconds=server.integer("maxQueueWaitMilliseconds", 3000, 1, 600_000),
        request_timeout_seconds=server.integer("requestTimeoutSeconds", 30, 1, 3600),
        dtype=server.text("dtype", "auto", ("auto", "float32", "float16", "bfloat16", "int8")),
        extra_env=tuple((item["name"], item.get("value", "")) for item in server.sequence("extraEnv")),
    )


def _accelerator(accelerator: Reader) -> Accelerator:
    vendor = accelerator.text("vendor", "NVIDIA", ("NVIDIA", "None"))
    name = accelerator.text("resourceName", "nvidia.com/gpu")
    return Accelerator(
        resource_name=None if vendor == "None" else name,
        count=accelerator.integer("count", 1, 1, 16),
        shared_memory=accelerator.text("sharedMemory", "1Gi"),
    )


def _scheduling(scheduling: Reader) -> Scheduling:
    tolerations = scheduling.sequence("tolerations")
    return Scheduling(
        node_selector=scheduling.mapping("nodeSelector"),
        tolerations=(*(() if GPU_TOLERATION in tolerations else (GPU_TOLERATION,)), *tolerations),
        affinity=scheduling.mapping("affinity"),
        topology_spread=scheduling.sequence("topologySpreadConstraints"),
        priority_class=scheduling.text("priorityClassName"),
        runtime_class=scheduling.text("runtimeClassName"),
        scheduler=scheduling.text("schedulerName"),
    )


def _rollout(rollout: Reader) -> Rollout:
    return Rollout(
        capacity_policy=rollout.text("capacityPolicy", "Auto", ("Auto", "Replace", "Surge", "Recreate")),
        startup_deadline_seconds=rollout.integer("startupDeadlineSeconds", 900, 30, 86400),
        drain_seconds=rollout.integer("drainSeconds", 40, 0, 3600),
    )


def _autoscaling(autoscaling: Reader, operator: OperatorDefaults) -> Autoscaling:
    modes = (api.MODE_NONE, api.MODE_OPERATOR, "HorizontalPodAutoscaler", "KEDA")
    default_mode = api.MODE_OPERATOR if operator.has_prometheus else api.MODE_NONE
    targets, up = autoscaling.section("targets"), autoscaling.section("scaleUp")
    down, fallback = autoscaling.section("scaleDown"), autoscaling.section("fallback")
    hold = autoscaling.section("hold")
    return Autoscaling(
        mode=autoscaling.text("mode", default_mode, modes),
        mode_is_default=autoscaling.data.get("mode") is None,
        min_replicas=max(1, autoscaling.integer("minReplicas", 1, 0, 1000)),  # 0 comes with autoscaling.idle
        max_replicas=autoscaling.integer("maxReplicas", 8, 1, 1000),
        p99_milliseconds=targets.integer("p99Milliseconds", 1200, 10, 600_000),
        qps_per_replica=targets.positive_number("qpsPerReplica"),
        concurrency_per_replica=targets.optional_integer("concurrencyPerReplica", 1, 10_000),
        latency_signal=targets.text("latencySignal", "Duration", ("Duration", "FirstAudio")),
        slo_max_audio_seconds=targets.integer("sloMaxAudioSeconds", 15, 1, 3600),
        sustained_seconds=up.integer("sustainedSeconds", 120, 30, 3600),
        settle_seconds=up.integer("settleSeconds", 75, 0, 3600),
        min_samples=up.integer("minSamples", 50, 1, 1_000_000),
        up_percent=up.integer("maxPercent", 100, 1, 1000),
        stabilization_seconds=down.integer("stabilizationSeconds", 300, 0, 86400),
        period_seconds=down.integer("periodSeconds", 60, 15, 86400),
        down_percent=down.integer("maxPercent", 25, 1, 100),
        fallback_after_seconds=fallback.integer("afterSeconds", 300, 60, 86400),
        fallback_replicas=fallback.optional_integer("replicas", 1, 1000),
        schedules=_schedules(autoscaling),
        hold_until=hold.time("until"),
        hold_by=hold.text("by"),
    )


def _schedules(autoscaling: Reader) -> tuple[Schedule, ...]:
    found = []
    for number, item in enumerate(autoscaling.sequence("schedules")):
        reader = Reader(item, f"{autoscaling.path}.schedules[{number}]", autoscaling.problems)
        schedule = Schedule(
            name=reader.text("name"),
            cron=reader.text("cron"),
            time_zone=reader.text("timeZone", "UTC"),
            duration_seconds=reader.integer("durationSeconds", 60, 60, 604_800),
            min_replicas=reader.integer("minReplicas", 1, 1, 1000),
        )
        try:
            check(schedule)
            found.append(schedule)
        except ScheduleError as error:
            reader.problems.append(f"{reader.path}: {error}")
    return tuple(found)


def _networking(service: Reader) -> Networking:
    return Networking(
        service_type=service.text("type", "ClusterIP", ("ClusterIP", "NodePort", "LoadBalancer")),
        port=service.integer("port", 80, 1, 65535),
        annotations=service.mapping("annotations"),
    )


def _monitoring(monitoring: Reader, operator: OperatorDefaults) -> Monitoring:
    return Monitoring(
        monitor=monitoring.text("monitor", "", ("None", "PodMonitor", "Annotations")) or None,
        labels={**(operator.monitoring_labels or {}), **monitoring.mapping("labels")},
        interval_seconds=monitoring.integer("intervalSeconds", 15, 1, 300),
        rules=monitoring.text("rules", "Enabled", ("Enabled", "Disabled")) == "Enabled",
    )


def _ignored(spec: Reader, scaling: Autoscaling) -> tuple[str, ...]:
    """Said in an Event and in condition Ready, so that nobody believes that a field works which does not yet."""
    server, autoscaling = spec.section("server"), spec.section("autoscaling")
    disruption, accelerator = spec.section("disruption"), spec.section("accelerator")
    found = {
        "image.cudaVersion": bool(spec.section("image").text("cudaVersion")),
        "model.cache.type": spec.section("model").section("cache").text("type", "EmptyDir") != "EmptyDir",
        "server.enginesPerPod": server.integer("enginesPerPod", 1, 1, 8) != 1,
        "voices": bool(spec.mapping("voices")),
        "accelerator.resourceClaimTemplateName": bool(accelerator.text("resourceClaimTemplateName")),
        "accelerator.minDriverVersion": bool(accelerator.text("minDriverVersion")),
        "rollout.capacityWaitSeconds": spec.section("rollout").integer("capacityWaitSeconds", 300, 0, 86400) != 300,
        "autoscaling.schedules": bool(scaling.schedules) and scaling.mode != api.MODE_OPERATOR,
        "autoscaling.idle": autoscaling.section("idle").text("activator", "None") != "None",
        "monitoring.dashboard": spec.section("monitoring").text("dashboard", "Disabled") != "Disabled",
        "disruption.maxUnavailable": disruption.integer("maxUnavailable", 1, 1, 1000) != 1,
        "disruption.nodeAutoscalerProtection": disruption.text("nodeAutoscalerProtection", "None") != "None",
        "podTemplateOverlay": bool(spec.mapping("podTemplateOverlay")),
    }
    return tuple(name for name, is_set in found.items() if is_set)


def _refuse_unprotected(spec: Reader) -> None:
    """Fields that shall protect: to ignore them would leave open what the user believes closed."""
    if spec.section("server").mapping("apiKeysSecretRef"):
        spec.section("server").problem("apiKeysSecretRef", "cannot be acted upon by this version yet; remove the field")
    policy = spec.section("networking").section("networkPolicy")
    if policy.text("mode", "None", ("None", "Restricted")) == "Restricted":
        policy.problem("mode", "Restricted cannot be acted upon by this version yet; remove the field")


def _check_across(spec: TTSServiceSpec, problems: list[str]) -> None:
    scaling, gpu = spec.autoscaling, spec.accelerator.resource_name
    if scaling.min_replicas > scaling.max_replicas:
        problems.append("spec.autoscaling.minReplicas must not be greater than spec.autoscaling.maxReplicas")
    for schedule in scaling.schedules:
        if schedule.min_replicas > scaling.max_replicas:
            text = "must not be greater than spec.autoscaling.maxReplicas"
            problems.append(f"spec.autoscaling.schedules {schedule.name!r}: minReplicas {text}")
    if scaling.mode == api.MODE_OPERATOR and spec.monitoring.interval_seconds > 15:
        problems.append("spec.monitoring.intervalSeconds must be at most 15 in autoscaling.mode Operator")
    if gpu and (gpu in spec.limits or gpu in spec.requests):
        problems.append(f"spec.resources must not name {gpu}: it is asked for by spec.accelerator.count")
    for name, request in spec.requests.items():
        try:
            if name in spec.limits and parse_quantity(request) > parse_quantity(spec.limits[name]):
                problems.append(f"spec.resources.requests.{name} must not be greater than spec.resources.limits.{name}")
        except ValueError as error:
            problems.append(f"spec.resources: {error}")
