"""What the node runs: the components' configuration files and command lines, as data. It starts nothing.

All paths are those inside the node's mount namespace: the cluster's state is bound to /run/node there, however long
its path is outside (a Unix socket's path holds 108 characters), so that every cluster's configuration is the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KEEP = b"k"
"""What tells the guard that the node shall outlive the process that started it."""
GPU = "nvidia.com/gpu"
NODE = "node-1"
NODE_ADDRESS = "10.88.0.2"
PODS = "10.89.0.0/16"
SERVICES = "10.96.0.0/16"
STATE = "/run/node"
SOCKET = f"{STATE}/run/containerd.sock"
CONTAINERD_ROOT = "/run/containerd-root"
PAUSE_IMAGE = "localhost/pause:dev"
API_PORT = 6443


@dataclass(frozen=True, slots=True)
class Component:
    """A process of the node. It is started again when it ends."""

    name: str
    command: tuple[str, ...]
    passes: tuple[int, ...] = field(default=())
    """File descriptors that it inherits."""


def configuration_files(cgroup: str) -> dict[str, str]:
    """Path below the state folder -> content."""
    return {
        "containerd.toml": containerd_toml(cri=True),
        "containerd-clean.toml": containerd_toml(cri=False),
        "cni/10-bridge.conflist": json.dumps(cni(), indent=1),
        "kubelet.yaml": json.dumps(kubelet(cgroup), indent=1),
        "Corefile": COREFILE,
    }


def containerd_toml(*, cri: bool) -> str:
    """Without `cri` it only stores: that is how what a killed node left behind is removed."""
    disabled = "" if cri else 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    return f"""version = 2
root = "{CONTAINERD_ROOT}"
state = "/run/containerd-state"
{disabled}
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE no sandbox could start otherwise ("can't get final child's PID").
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def cni() -> dict[str, object]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": addresses}, ports]}


def kubelet(cgroup: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{STATE}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{STATE}/pki/kubelet.crt",
        "tlsPrivateKeyFile": f"{STATE}/pki/kubelet.key",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "failSwapOn": False,
        "podLogsDir": f"{STATE}/pod-logs",
        "volumePluginDir": f"{STATE}/volume-plugins",
        "maxPods": 110,
        # A developer's disk is often full: neither images nor pods shall be thrown out for that.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
    }


COREFILE = f""".:53 {{
  bind {NODE_ADDRESS}
  errors
  health 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {STATE}/admin.conf
    pods insecure
  }}
  cache 5
}}
"""


def components(binaries: Mapping[str, Path], python: str, listening: int) -> list[Component]:
    """In the order of start; each waits by itself for what it needs. `listening`: the inherited socket's number."""
    here = (python, "-m")
    return [
        Component("containerd", ("containerd", "-c", f"{STATE}/containerd.toml")),
        Component("etcd", (str(binaries["etcd"]), *ETCD)),
        Component("kube-apiserver", (str(binaries["kube-apiserver"]), *API_SERVER)),
        Component("kube-controller-manager", (str(binaries["kube-controller-manager"]), *CONTROLLERS)),
        Component("kube-scheduler", (str(binaries["kube-scheduler"]), f"--kubeconfig={STATE}/admin.conf", ALONE)),
        Component("kubelet", (str(binaries["kubelet"]), *KUBELET)),
        Component("kube-proxy", (str(binaries["kube-proxy"]), *PROXY)),
        Component("coredns", (str(binaries["coredns"]), "-conf", f"{STATE}/Corefile")),
        Component("forward", (*here, "dev.cluster.forward", str(listening), "127.0.0.1", str(API_PORT)), (listening,)),
        Component("gpus", (*here, "dev.cluster.gpus", STATE)),
    ]


ALONE = "--leader-elect=false"
ETCD = (
    f"--data-dir={STATE}/etcd",
    "--listen-client-urls=http://127.0.0.1:2379",
    "--advertise-client-urls=http://127.0.0.1:2379",
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--unsafe-no-fsync",
)
API_SERVER = (
    "--etcd-servers=http://127.0.0.1:2379",
    f"--advertise-address={NODE_ADDRESS}",
    "--bind-address=0.0.0.0",
    f"--secure-port={API_PORT}",
    f"--tls-cert-file={STATE}/pki/apiserver.crt",
    f"--tls-private-key-file={STATE}/pki/apiserver.key",
    f"--client-ca-file={STATE}/pki/ca.crt",
    f"--service-account-key-file={STATE}/pki/sa.pub",
    f"--service-account-signing-key-file={STATE}/pki/sa.key",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    f"--service-cluster-ip-range={SERVICES}",
    "--allow-privileged=true",
    f"--kubelet-client-certificate={STATE}/pki/apiserver-kubelet.crt",
    f"--kubelet-client-key={STATE}/pki/apiserver-kubelet.key",
    f"--kubelet-certificate-authority={STATE}/pki/ca.crt",
    # Else `logs` and `exec` would ask DNS for the node's name.
    "--kubelet-preferred-address-types=InternalIP",
    # For aggregated APIs (external metrics).
    f"--requestheader-client-ca-file={STATE}/pki/ca.crt",
    "--requestheader-allowed-names=front-proxy",
    "--requestheader-username-headers=X-Remote-User",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    f"--proxy-client-cert-file={STATE}/pki/front-proxy.crt",
    f"--proxy-client-key-file={STATE}/pki/front-proxy.key",
    "--enable-aggregator-routing=true",
)
CONTROLLERS = (
    f"--kubeconfig={STATE}/admin.conf",
    f"--service-account-private-key-file={STATE}/pki/sa.key",
    f"--root-ca-file={STATE}/pki/ca.crt",
    f"--cluster-signing-cert-file={STATE}/pki/ca.crt",
    f"--cluster-signing-key-file={STATE}/pki/ca.key",
    "--use-service-account-credentials=true",
    "--horizontal-pod-autoscaler-sync-period=5s",
    "--horizontal-pod-autoscaler-downscale-stabilization=30s",
    ALONE,
)
KUBELET = (
    f"--config={STATE}/kubelet.yaml",
    f"--kubeconfig={STATE}/kubelet.conf",
    f"--root-dir={STATE}/kubelet",
    f"--hostname-override={NODE}",
    f"--node-ip={NODE_ADDRESS}",
)
PROXY = (
    f"--kubeconfig={STATE}/admin.conf",
    f"--hostname-override={NODE}",
    "--proxy-mode=iptables",
    f"--cluster-cidr={PODS}",
    # These two sysctls belong to the host.
    "--conntrack-max-per-core=0",
    "--conntrack-tcp-timeout-established=0",
)
