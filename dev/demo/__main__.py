"""`python -m dev.demo`: TTSService -> speech -> p99 > 1.2 s for 2 minutes -> scale-out -> scale-in.

Read from `main` down: the order of the functions is the order of the run.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dev.cluster import Cluster
from dev.demo import install, speech
from dev.demo.load import Load, provide_files
from dev.demo.plot import timeline
from dev.demo.summary import SLO_SECONDS, Moments, problems, summarize
from dev.demo.view import View
from dev.demo.watch import Sample, Watcher, first_over, unix
from dev.kubeapi import KubeApi

URL = f"http://demo.{install.NAMESPACE}.svc"
OVERLOAD = 1.4
AUDIO_SECONDS = "0.75"  # of each request: short, so that 0.7 of a pod's capacity is well within 1.2 s on half a core
CAPACITY = ("--url", URL, "--max-seconds", AUDIO_SECONDS)
STEADY_SECONDS = 60
SELECTOR = "chattts.dev/service=demo"


def main() -> int:
    """Run the demo; 0 when it showed everything it promises."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with View() as view:
        with view.phase("cluster, tools and images (the first time builds them: up to half an hour)"):
            was_up = Cluster.is_up()
            cluster = Cluster.up(gpus=arguments.gpus, keep=arguments.keep)
        try:
            built = time.monotonic()
            summary = show(
                cluster, view, arguments.out, arguments.model, facts={"cold_build_s": round(built - began, 1)}
            )
        except KeyboardInterrupt:
            view.say("interrupted")
            return 130
        finally:
            if not (arguments.keep or was_up):
                with view.phase("ending the cluster"):
                    cluster.down()
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    found = problems(summary)
    for problem in found:
        print(f"demo: {problem}", file=sys.stderr)
    print(f"demo: {'NOT shown' if found else 'shown'} in {time.monotonic() - began:.0f} s; files in {arguments.out}")
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--gpus", type=int, default=4, help="fake GPUs of the node")
    parser.add_argument(
        "--model",
        type=Path,
        help="folder with the released weights (it holds `asset/`); default: random weights, which sound like noise",
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    return parser.parse_args()


def show(cluster: Cluster, view: View, out: Path, model: Path | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything after the cluster is up; writes the files of `out` and returns the summary."""
    began = time.time()
    prepare(cluster, view, out, model)
    with KubeApi(cluster.kubectl_path, cluster.kubeconfig) as api:
        with view.phase("TTSService demo: waiting until Ready"):
            install.apply(cluster, install.demo_service())
            cluster.kubectl("wait", "-n", install.NAMESPACE, "tts/demo", "--for=condition=Ready", "--timeout=300s")
        facts |= {
            "kubernetes_version": _version(api),
            "warm_start_s": round(first_pod_started(api) - began, 1),
        }
        with view.phase("three texts"):
            audio = speech.speak(api, install.NAMESPACE, "demo", out)
            noise = "" if model else " (random weights: the sound is noise)"
            view.say(f"   wrote {', '.join(a['file'] for a in audio)} to {out}{noise}")
        watcher = Watcher(api, install.NAMESPACE, "demo")
        watcher.start()
        view.watcher = watcher
        try:
            moments, loads, capacity = breach_and_recover(cluster, api, view, watcher)
        finally:
            watcher.stop()
    facts |= {
        "capacity_rps": capacity,
        "load_rps": round(capacity * OVERLOAD, 2),
        "model": str(model or "random tiny checkpoint"),
    }
    return _report(out, moments, watcher.samples, loads, audio, facts)


def prepare(cluster: Cluster, view: View, out: Path, model: Path | None) -> None:
    """Prometheus, the weights as a volume, the operator by Helm."""
    install.namespaces(cluster)
    with view.phase("Prometheus"):
        cluster.install_prometheus()
    with view.phase("model volume"):
        cluster.create_volume("demo-model", install.NAMESPACE, install.checkpoint(out.parent, model))
    with view.phase("helm install chattts-operator"):
        install.operator(cluster)
    provide_files(cluster, install.NAMESPACE)


def first_pod_started(api: KubeApi) -> float:
    """Unix time at which the first server container ran."""
    pods = api.pods(install.NAMESPACE, SELECTOR)
    return min(
        unix(status["state"]["running"]["startedAt"]) for pod in pods for status in pod["status"]["containerStatuses"]
    )


def breach_and_recover(
    cluster: Cluster, api: KubeApi, view: View, watcher: Watcher, steady_seconds: float = STEADY_SECONDS
) -> tuple[Moments, list[dict[str, Any]], float]:
    """One pod's capacity, 1.4 times that, the rule's 2 minutes, the second pod, calm, and back to one pod."""
    image = cluster.images["operator"]
    with view.phase("one pod's capacity"):
        measured = Load(cluster, install.NAMESPACE, "capacity", "bench.capacity", CAPACITY, image).wait(180)
        capacity = round(float(measured["rps"]), 2)
        view.say(f"   {capacity} requests/s of {AUDIO_SECONDS} s audio each")
    with view.phase("rest, until the measurement itself is no longer in the 1 minute window"):
        _wait(watcher, view, "no breach before the load", lambda s: s.p99 is None, 120)
    moments = Moments(time.time(), None, None, None, None, None, None)
    load = Load(
        cluster,
        install.NAMESPACE,
        "load",
        "bench.loadgen",
        _load_arguments(capacity * OVERLOAD, seed=1),
        image,
    )
    with view.phase(f"{capacity * OVERLOAD:.1f} requests/s: p99 over {SLO_SECONDS} s for 2 minutes, then scale-out"):
        out = _wait(watcher, view, "scale-out", lambda s: (s.replicas or 0) >= 2, 420)
        moments = replace(
            moments,
            scaled_out=out.at,
            breach_started=first_over(api, install.NAMESPACE, "demo", moments.load_started),
        )
        view.say(f"   {out.reason}: {out.message}")
    with view.phase("the new pod"):
        _wait(watcher, view, "second pod Ready", lambda s: (s.ready or 0) >= 2, 180)
        moments = replace(moments, second_pod_ready=second_ready(api))
    with view.phase(f"p99 back under {SLO_SECONDS} s at unchanged load"):
        calm = _wait(watcher, view, "p99 under the SLO", lambda s: s.p99 is not None and s.p99 <= SLO_SECONDS, 240)
        moments = replace(moments, steady_from=calm.at)
        _watch(view, steady_seconds)
        moments = replace(moments, load_stopped=time.time())
        loads = [load.stop()]
    with view.phase("the load ends; a trickle goes on through the scale-in"):
        # Streams, so that a scale-in has something to cut; whole answers, because p99 is measured on those.
        kinds = {"trickle": [], "trickle-stream": ["--stream"]}
        trickles = [
            Load(cluster, install.NAMESPACE, name, "bench.loadgen", [*_load_arguments(1, seed=2), *more], image)
            for name, more in kinds.items()
        ]
        down = _wait(watcher, view, "scale-in", lambda s: s.replicas == 1 and s.ready == 1, 600)
        _watch(view, 15)
        loads += [trickle.stop() for trickle in trickles]
    return replace(moments, scaled_in=down.at), loads, capacity


def _load_arguments(rate: float, seed: int) -> list[str]:
    return [
        "--url",
        URL,
        "--rate",
        f"{rate:.2f}",
        "--arrival",
        "poisson",
        "--seconds",
        "1800",
        "--seed",
        str(seed),
        "--max-seconds",
        AUDIO_SECONDS,
    ]


def _wait(watcher: Watcher, view: View, what: str, true: Callable[[Sample], bool], timeout: float) -> Sample:
    return watcher.wait_for(what, true, timeout, tick=view.tick)


def _watch(view: View, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        view.tick()


def second_ready(api: KubeApi) -> float | None:
    """Unix time at which the second pod became Ready, by its own condition."""
    ready = [
        unix(condition["lastTransitionTime"])
        for pod in api.pods(install.NAMESPACE, SELECTOR)
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    return sorted(ready)[1] if len(ready) > 1 else None


def _version(api: KubeApi) -> str:
    return str((api.get("/version") or {})["gitVersion"])


def _report(
    out: Path,
    moments: Moments,
    samples: list[Sample],
    loads: list[dict[str, Any]],
    audio: list[dict[str, Any]],
    facts: dict[str, Any],
) -> dict[str, Any]:
    summary = summarize(moments, samples, loads, audio, facts)
    labels = {
        "first sample over 1.2 s": moments.breach_started,
        "scale-out": moments.scaled_out,
        "second pod Ready": moments.second_pod_ready,
        "load ends": moments.load_stopped,
        "scale-in": moments.scaled_in,
    }
    rates = f"one pod carries {facts['capacity_rps']} requests/s; offered {facts['load_rps']}"
    title = f"{rates}; Kubernetes {facts['kubernetes_version']}"
    timeline(
        out / "timeline.png",
        samples,
        moments.load_started,
        {k: v for k, v in labels.items() if v is not None},
        title,
    )
    (out / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


if __name__ == "__main__":
    sys.exit(main())
