"""What the user wants: a TTSService body becomes a frozen TTSServiceSpec, or all its problems at once.

Pure. The API server has already refused what the CRD can say; here is what needs more than one rule can see, and the
same defaults once more, so that a body from anywhere reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from . import across, api
from .autoscaling.schedules import Schedule, ScheduleError, check
from .model_spec import Model, read_model
from .overlay import OUR_VARIABLES, problems_of
from .reader import Reader

DEFAULT_GPU = "nvidia.com/gpu"
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
    server_cuda_version: str = ""  # of server_image
    image_registries: tuple[str, ...] = ()  # prefixes that images must have; empty: any


@dataclass(frozen=True, slots=True)
class Image:
    reference: str | None  # None: the one fixed in status, else the operator's default
    cuda_version: str  # empty: not said
    pull_policy: str
    pull_secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    device: str
    max_batch_size: int | None  # None: the engine chooses
    max_queue_wait_milliseconds: int
    request_timeout_seconds: int
    max_whole_audio_seconds: int | None  # None: the server's own
    key_audio_seconds_per_minute: int | None  # None: no bound
    dtype: str
    api_keys_secret: str  # empty: everybody may call
    extra_env: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Voices:
    """Named voices for all replicas: one of the two, or neither."""

    config_map: str
    claim_name: str


@dataclass(frozen=True, slots=True)
class Accelerator:
    resource_name: str | None  # None: no GPU, or one by claim_template
    claim_template: str  # dynamic resource allocation; empty: none
    count: int
    min_driver_version: str
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
    capacity_wait_seconds: int
    startup_deadline_seconds: int
    drain_seconds: int


@dataclass(frozen=True, slots=True)
class Autoscaling:
    mode: str
    mode_is_default: bool
    why_none: str  # why the operator's default is not taken although there is a Prometheus, or empty
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
    restricted: bool  # with a NetworkPolicy
    ingress_from: tuple[Mapping[str, Any], ...]
    egress_to: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Monitoring:
    monitor: str | None  # None: PodMonitor where its CRD exists, else annotations
    labels: Mapping[str, str]
    interval_seconds: int
    rules: bool
    dashboard: bool


@dataclass(frozen=True, slots=True)
class Disruption:
    max_unavailable: int
    protect_from_node_autoscaler: bool


@dataclass(frozen=True, slots=True)
class TTSServiceSpec:
    key: api.Key
    uid: str
    replicas: int  # the scale subresource
    paused: bool
    image: Image
    model: Model
    server: Server
    voices: Voices
    accelerator: Accelerator
    requests: Mapping[str, Any]
    limits: Mapping[str, Any]
    scheduling: Scheduling
    rollout: Rollout
    autoscaling: Autoscaling
    networking: Networking
    monitoring: Monitoring
    disruption: Disruption
    overlay: Mapping[str, Any]  # over the pod template
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
        model=read_model(spec.section("model")),
        server=_server(spec.section("server")),
        voices=_voices(spec.section("voices")),
        accelerator=_accelerator(spec.section("accelerator")),
        requests=spec.section("resources").mapping("requests"),
        limits=spec.section("resources").mapping("limits"),
        scheduling=_scheduling(spec.section("scheduling")),
        rollout=_rollout(spec.section("rollout")),
        autoscaling=autoscaling,
        networking=_networking(spec.section("networking")),
        monitoring=_monitoring(spec.section("monitoring"), operator),
        disruption=_disruption(spec.section("disruption")),
        overlay=spec.mapping("podTemplateOverlay"),
        ignored=_ignored(spec, autoscaling),
    )
    parsed = _with_kept_mode(parsed, (body.get("status") or {}).get("autoscaling") or {})
    problems += problems_of(parsed.overlay, "spec.podTemplateOverlay")
    problems += across.problems_of(parsed, operator.image_registries)
    if problems:
        raise InvalidSpec(list(dict.fromkeys(problems)))
    return parsed


def _with_kept_mode(spec: TTSServiceSpec, status: Mapping[str, Any]) -> TTSServiceSpec:
    """A Prometheus that the operator is given later neither makes a service invalid nor takes pods from it.

    `status`: status.autoscaling. A service without a mode that was in mode None stays there until it fits.
    """
    scaling = spec.autoscaling
    was_none = status.get("mode") == api.MODE_NONE
    if not (scaling.mode_is_default and scaling.mode == api.MODE_OPERATOR and was_none):
        return spec
    wrong = [
        *across.scaling_problems(spec),
        *([] if scaling.clamp(spec.replicas) == spec.replicas else [_out_of_bounds(spec)]),
    ]
    if not wrong:
        return spec
    why = f"autoscaling.mode is None as before: mode Operator, the default with a Prometheus, does not fit ({wrong[0]})"
    return replace(spec, autoscaling=replace(scaling, mode=api.MODE_NONE, why_none=why))


def _out_of_bounds(spec: TTSServiceSpec) -> str:
    scaling = spec.autoscaling
    return f"spec.replicas {spec.replicas} is not within {scaling.min_replicas} to {scaling.max_replicas}"


def _image(image: Reader) -> Image:
    repository, tag, digest = image.text("repository"), image.text("tag"), image.text("digest")
    if repository and not (tag or digest):
        image.problem("repository", "needs image.tag or image.digest")
    reference = f"{repository}@{digest}" if digest else f"{repository}:{tag}"
    return Image(
        reference=reference if repository else None,
        cuda_version=image.text("cudaVersion"),
        pull_policy=image.text("pullPolicy", "IfNotPresent", ("Always", "IfNotPresent", "Never")),
        pull_secrets=tuple(item["name"] for item in image.sequence("pullSecrets")),
    )


def _server(server: Reader) -> Server:
    if server.integer("enginesPerPod", 1, 1, 8) != 1:
        server.problem("enginesPerPod", "must be 1: this server runs one engine per pod; use replicas")
    extra_env = tuple((item["name"], item.get("value", "")) for item in server.sequence("extraEnv"))
    for name, _ in extra_env:
        if name.startswith(OUR_VARIABLES) and name != "CHATTTS_LOG_FORMAT":
            server.problem(f"extraEnv[{name}]", "is set by the operator from the other fields of spec: use those")
    api_keys_secret = server.section("apiKeysSecretRef").text("name")
    if server.data.get("keyAudioSecondsPerMinute") is not None and not api_keys_secret:
        server.problem("keyAudioSecondsPerMinute", "is only read with apiKeysSecretRef; set it or remove the field")
    return Server(
        device=server.text("device", "Auto", ("Auto", "CUDA", "CPU")),
        max_batch_size=server.optional_integer("maxBatchSize", 1, 1024),
        max_queue_wait_milliseconds=server.integer("maxQueueWaitMilliseconds", 3000, 1, 600_000),
        request_timeout_seconds=server.integer("requestTimeoutSeconds", 30, 1, 3600),
        max_whole_audio_seconds=server.optional_integer("maxWholeAudioSeconds", 1, 36_000),
        key_audio_seconds_per_minute=server.optional_integer("keyAudioSecondsPerMinute", 1, 1_000_000_000),
        dtype=server.text("dtype", "auto", ("auto", "float32", "float16", "bfloat16", "int8")),
        api_keys_secret=api_keys_secret,
        extra_env=extra_env,
    )


def _voices(voices: Reader) -> Voices:
    found = Voices(voices.section("configMapRef").text("name"), voices.text("claimName"))
    if found.config_map and found.claim_name:
        voices.problem("claimName", "and spec.voices.configMapRef exclude each other: give one of them")
    return found


def _accelerator(accelerator: Reader) -> Accelerator:
    vendor = accelerator.text("vendor", "NVIDIA", ("NVIDIA", "None"))
    name = accelerator.text("resourceName", DEFAULT_GPU)
    template = accelerator.text("resourceClaimTemplateName")
    count = accelerator.integer("count", 1, 1, 16)
    if vendor == "None" and (template or name != DEFAULT_GPU):
        accelerator.problem("vendor", "None asks for no GPU: remove resourceName and resourceClaimTemplateName")
    if template and name != DEFAULT_GPU:
        accelerator.problem("resourceName", "and resourceClaimTemplateName exclude each other: give one of them")
    if template and count != 1:
        accelerator.problem("count", "is said by the ResourceClaimTemplate: remove accelerator.count")
    return Accelerator(
        resource_name=None if vendor == "None" or template else name,
        claim_template=template,
        count=count,
        min_driver_version=accelerator.text("minDriverVersion"),
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
        capacity_wait_seconds=rollout.integer("capacityWaitSeconds", 300, 0, 86400),
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
        why_none="",
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


def _networking(networking: Reader) -> Networking:
    service, policy = networking.section("service"), networking.section("networkPolicy")
    restricted = policy.text("mode", "None", ("None", "Restricted")) == "Restricted"
    for name in ("ingressFrom", "egressTo"):
        if policy.sequence(name) and not restricted:
            policy.problem(name, "is only read with networkPolicy.mode Restricted; set the mode or remove it")
    return Networking(
        service_type=service.text("type", "ClusterIP", ("ClusterIP", "NodePort", "LoadBalancer")),
        port=service.integer("port", 80, 1, 65535),
        annotations=service.mapping("annotations"),
        restricted=restricted,
        ingress_from=policy.sequence("ingressFrom"),
        egress_to=policy.sequence("egressTo"),
    )


def _monitoring(monitoring: Reader, operator: OperatorDefaults) -> Monitoring:
    return Monitoring(
        monitor=monitoring.text("monitor", "", ("None", "PodMonitor", "Annotations")) or None,
        labels={**(operator.monitoring_labels or {}), **monitoring.mapping("labels")},
        interval_seconds=monitoring.integer("intervalSeconds", 15, 1, 300),
        rules=monitoring.text("rules", "Enabled", ("Enabled", "Disabled")) == "Enabled",
        dashboard=monitoring.text("dashboard", "Disabled", ("Disabled", "Enabled")) == "Enabled",
    )


def _disruption(disruption: Reader) -> Disruption:
    protection = disruption.text("nodeAutoscalerProtection", "None", ("None", "Always"))
    return Disruption(disruption.integer("maxUnavailable", 1, 1, 1000), protection == "Always")


def _ignored(spec: Reader, scaling: Autoscaling) -> tuple[str, ...]:
    """Said in an Event and in condition Ready, so that nobody believes that a field works which does not yet."""
    autoscaling = spec.section("autoscaling")
    found = {
        "autoscaling.schedules": bool(scaling.schedules) and scaling.mode != api.MODE_OPERATOR,
        "autoscaling.idle": autoscaling.section("idle").text("activator", "None") != "None",
    }
    return tuple(name for name, is_set in found.items() if is_set)
