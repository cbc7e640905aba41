"""`python -m dev.demo`: TTSService -> speech -> p99 > 1.2 s for 2 minutes -> scale-out -> scale-in.

Read from `main` down: the order of the functions is the order of the run.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev.cluster import Cluster, ClusterError, recorded_builds
from dev.demo import install, speech
from dev.demo.chain import OVERLOAD, SELECTOR, Chain
from dev.demo.load import provide_files
from dev.demo.plot import timeline
from dev.demo.summary import Moments, problems, summarize
from dev.demo.view import View
from dev.demo.watch import Sample, Watcher, unix
from dev.kubeapi import KubeApi


def main() -> int:
    """Run the demo; 0 when it showed everything it promises."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        with View() as view:
            summary = run(arguments, view)
    except KeyboardInterrupt:
        left = "the cluster is still up (make cluster-down ends it)" if Cluster.is_up() else "nothing was left running"
        print(f"demo: interrupted; {left}", file=sys.stderr)
        return 130
    except (ClusterError, TimeoutError, RuntimeError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    found = [] if arguments.model else problems(summary)
    for text in found:
        print(f"demo: {text}", file=sys.stderr)
    print(f"demo: {'NOT shown' if found else 'shown'} in {time.monotonic() - began:.0f} s; files in {arguments.out}")
    return 1 if found else 0


def run(arguments: argparse.Namespace, view: View) -> dict[str, Any]:
    """Bring the cluster up, show everything, end what was started; also when it fails half-way."""
    began, was_up = time.time(), Cluster.is_up()
    builds_before = recorded_builds()
    cluster: Cluster | None = None
    try:
        with view.phase("cluster, tools and images (the first time builds them: up to half an hour)"):
            cluster = Cluster.up(gpus=arguments.gpus, keep=arguments.keep)
        build_seconds = sum(took for what, took in recorded_builds().items() if builds_before.get(what) != took)
        facts = {"cold_build_s": round(build_seconds, 1)}
        return show(cluster, view, arguments.out, arguments.model, began + build_seconds, facts)
    finally:
        if cluster is not None and was_up and not arguments.keep:
            cluster.kubectl("delete", "-n", install.NAMESPACE, "tts/demo", "--ignore-not-found", "--wait=false")
        elif cluster is not None and not arguments.keep:
            with view.phase("ending the cluster"):
                cluster.down()


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


def show(
    cluster: Cluster, view: View, out: Path, model: Path | None, began: float, facts: dict[str, Any]
) -> dict[str, Any]:
    """Everything after the cluster is up; writes the files of `out`. `began`: Unix time, the building left out."""
    prepare(cluster, view, out, model)
    with KubeApi(cluster.kubectl_path, cluster.kubeconfig) as api:
        with view.phase("TTSService demo: waiting until Ready"):
            install.apply(cluster, install.full_size_service() if model else install.demo_service())
            cluster.kubectl("wait", "-n", install.NAMESPACE, "tts/demo", "--for=condition=Ready", "--timeout=300s")
        facts |= {
            "kubernetes_version": _version(api),
            "warm_start_s": round(first_pod_started(api) - began, 1),
        }
        with view.phase("three texts"):
            audio = speech.speak(cluster, install.NAMESPACE, "demo", out)
            noise = "" if model else " (random weights: the sound is noise)"
            view.say(f"   wrote {', '.join(a['file'] for a in audio)} to {out}{noise}")
        if model:
            view.say("   the load is left out: on a CPU a request of the full size takes half a minute")
            return {"audio": audio, **facts, "model": str(model)}
        watcher = Watcher(api, install.NAMESPACE, "demo")
        watcher.start()
        view.watcher = watcher
        chain = Chain(cluster, api, view, watcher)
        try:
            moments = chain.run()
        finally:
            watcher.stop()
    facts |= {
        "capacity_rps": chain.capacity,
        "load_rps": round(chain.capacity * OVERLOAD, 2),
        "model": "random tiny checkpoint",
    }
    return _report(out, moments, watcher.samples, chain.loads, audio, facts)


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


def _version(api: KubeApi) -> str:
    return str((api.get("/version") or {})["gitVersion"])


def _report(
    out: Path,
    moments: Moments,
    samples: list[Sample],
    loads: list[Mapping[str, Any]],
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
