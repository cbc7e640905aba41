"""Which revision the pods may read from our claim, and what the fetch Job is doing. Pure, now is an argument.

A new revision reaches the pods only when its Job is complete: it ends well only after every sha256 was checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import api
from .observe import Observed
from .resources.child import is_owned
from .resources.storage import fetch_id
from .resources.weights import revision_of
from .spec import TTSServiceSpec

RETRY_SECONDS = 600.0  # after a Job that has used up its attempts


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one TTSService. Without a claim of ours there is nothing to wait for: `serve` is what the spec says."""

    serve: str | None  # the revision that pods may mount; None: none yet, so there can be no pod
    state: str = ""  # empty, Waiting, Fetching, Failed, Complete
    message: str = ""
    claim_uid: str | None = None  # None: the claim is not there yet, so no Job can be made
    replace_job: bool = False  # another revision is wanted, or the last attempt was long ago
    retry_in: float | None = None  # seconds until a failed Job is made anew


def weights_of(spec: TTSServiceSpec, observed: Observed, now: float) -> Weights:
    if not spec.model.on_claim:
        return Weights(spec.model.revision)
    wanted, served = spec.model.revision, _served(spec, observed)
    keeps = f"; pods keep {served[:12]} until then" if served and served != wanted else ""
    claim = observed.children.get(api.CLAIM)
    if claim is None:
        return Weights(served, "Waiting", f"the claim is being made{keeps}")
    uid = claim["metadata"]["uid"]
    job = observed.children.get(api.JOB)
    if job is None or not is_owned(job, spec.uid):
        return Weights(served, "Waiting", f"the Job is being made{keeps}", uid)
    if (job["metadata"].get("annotations") or {}).get(api.ANNOTATION_FETCH) != fetch_id(spec, uid):
        return Weights(served, "Waiting", f"the Job of {wanted[:12]} is being made{keeps}", uid, replace_job=True)
    conditions = (job.get("status") or {}).get("conditions") or []
    done = {item["type"]: item for item in conditions if item["status"] == "True"}
    name = api.child_name(api.CLAIM, spec.key.name)
    if "Complete" in done:
        message = f"{spec.model.repository} at {wanted} is on claim {name}, sha256 checked"
        return Weights(wanted, "Complete", message, uid)
    if "Failed" in done:
        return _failed(done["Failed"], served, keeps, observed, uid, now)
    return Weights(served, "Fetching", f"{_progress(job, observed)}{keeps}", uid)


def _served(spec: TTSServiceSpec, observed: Observed) -> str | None:
    """What the pods of now mount from our claim."""
    if observed.deployment is None or not is_owned(observed.deployment, spec.uid):
        return None
    return revision_of(observed.deployment["spec"]["template"]["spec"], api.child_name(api.CLAIM, spec.key.name))


def _failed(
    condition: dict[str, Any], served: str | None, keeps: str, observed: Observed, uid: str, now: float
) -> Weights:
    since = datetime.fromisoformat(condition["lastTransitionTime"]).timestamp()
    rest = max(0.0, since + RETRY_SECONDS - now)
    why = _last_trouble(observed) or condition.get("message") or condition.get("reason", "")
    again = f"it is made anew {RETRY_SECONDS / 60:.0f} minutes after it failed"
    message = f"{why} (Job {_job_name(observed)}; {again}){keeps}"
    return Weights(served, "Failed", message, uid, replace_job=rest == 0, retry_in=rest or None)


def _progress(job: api.Body, observed: Observed) -> str:
    status, name = job.get("status") or {}, job["metadata"]["name"]
    started = f" since {status['startTime']}" if status.get("startTime") else ""
    attempts = f", attempt {int(status.get('failed', 0)) + 1}"
    trouble = _last_trouble(observed)
    return f"Job {name} fetches{started}{attempts}: kubectl logs -f job/{name}" + (f"; {trouble}" if trouble else "")


def _last_trouble(observed: Observed) -> str:
    found = sorted(
        (pod for pod in observed.fetching if pod.trouble or pod.unschedulable), key=lambda pod: pod.created_at or 0.0
    )
    return (found[-1].trouble or found[-1].unschedulable) if found else ""


def _job_name(observed: Observed) -> str:
    return str(observed.children[api.JOB]["metadata"]["name"])
