"""What is put on the cluster: volumes that are bound without a provisioner, a Prometheus that sees every namespace."""

from dev.cluster import manifests
from dev.cluster.gpus import patch_for
from dev.cluster.manifests import MonitoringImages

ONE_IMAGE = MonitoringImages("one", "one", "one", operator_command=["/bin/operator"])


def test_volume_and_claim_name_each_other() -> None:
    volume, claim = manifests.volume("weights", "speech", "/data/weights")
    assert volume["spec"]["claimRef"] == {"namespace": "speech", "name": "weights"}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["hostPath"] == {"path": "/data/weights", "type": "Directory"}
    # An empty class keeps any provisioner away, and both sides have to say so.
    assert volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"] == ""
    assert set(claim["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"])


def test_the_same_claim_in_two_namespaces_has_two_volumes() -> None:
    names = {manifests.volume("weights", space, "/data")[0]["metadata"]["name"] for space in ("one", "two")}
    assert len(names) == 2


def test_prometheus_selects_everything_everywhere() -> None:
    spec = manifests.prometheus(ONE_IMAGE)["spec"]
    selectors = [value for key, value in spec.items() if key.endswith("Selector")]
    assert selectors == [{}, {}, {}, {}]
    assert (spec["scrapeInterval"], spec["evaluationInterval"]) == ("5s", "15s")


def test_the_operators_command_is_named_only_where_one_image_holds_all() -> None:
    def container(images: MonitoringImages) -> dict[str, object]:
        deployment = manifests.monitoring(images)[-1]
        found: dict[str, object] = deployment["spec"]["template"]["spec"]["containers"][0]
        return found

    assert container(ONE_IMAGE)["command"] == ["/bin/operator"]
    assert "command" not in container(MonitoringImages("a", "b", "c"))


def test_gpus_are_patched_only_when_they_differ() -> None:
    right = {"status": {"capacity": {"nvidia.com/gpu": "2"}, "allocatable": {"nvidia.com/gpu": "2"}}}
    assert patch_for(2, right) is None
    assert patch_for(0, right) == {
        "status": {"capacity": {"nvidia.com/gpu": "0"}, "allocatable": {"nvidia.com/gpu": "0"}}
    }
    dropped = {"status": {"capacity": {"nvidia.com/gpu": "2", "cpu": "2"}, "allocatable": {"cpu": "2"}}}
    assert patch_for(2, dropped) == {"status": {"allocatable": {"nvidia.com/gpu": "2"}}}
