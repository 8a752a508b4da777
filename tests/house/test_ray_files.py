"""The files for Ray clusters: of the shape that KubeRay, Kubernetes and Ray take, and with commands that are real ones.

No cluster is at hand. What KubeRay's types ask for is written here as far as the files use it (ray-operator/apis/ray/v1
of its repository); a field that is not here may be right, but nobody has looked.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field

from tansaku.plugin.cli.main import app
from tansaku.plugin.service.health import OPEN_PATHS

from .test_docs import HOW_TO, PROJECT, ROOT, rows

pytestmark = pytest.mark.integration

FOLDER = ROOT / "docs" / "examples" / "ray"
MANIFESTS = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "cluster-aws.yaml")
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Strict(BaseModel):
    """No other fields, and no value that is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Meta(Strict):
    name: Name = ""
    labels: dict[str, str] = {}


class Resources(Strict):
    requests: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity]
    limits: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity]


class Key(Strict):
    name: Name
    key: str


class Env(Strict):
    name: str
    value: str = ""
    valueFrom: dict[Literal["secretKeyRef"], Key] = {}  # noqa: N815


class SecretName(Strict):
    name: Name


class EnvFrom(Strict):
    secretRef: SecretName  # noqa: N815


class Mount(Strict):
    name: Name
    mountPath: str  # noqa: N815


class Port(Strict):
    name: Name
    containerPort: int  # noqa: N815


class HttpGet(Strict):
    path: str
    port: str


class Probe(Strict):
    httpGet: HttpGet  # noqa: N815
    periodSeconds: int  # noqa: N815
    failureThreshold: int = 3  # noqa: N815


class Container(Strict):
    name: Name
    image: Annotated[str, Field(pattern=r"^[\w./-]+:[\w.-]+$")]
    command: list[str] = []
    args: list[str] = []
    env: list[Env] = []
    envFrom: list[EnvFrom] = []  # noqa: N815
    ports: list[Port] = []
    resources: Resources | None = None
    volumeMounts: list[Mount] = []  # noqa: N815
    startupProbe: Probe | None = None  # noqa: N815
    readinessProbe: Probe | None = None  # noqa: N815
    livenessProbe: Probe | None = None  # noqa: N815


class EmptyDir(Strict):
    sizeLimit: Quantity  # noqa: N815
    medium: Literal["", "Memory"] = ""


class Volume(Strict):
    name: Name
    emptyDir: EmptyDir | None = None  # noqa: N815
    persistentVolumeClaim: dict[Literal["claimName"], Name] | None = None  # noqa: N815


class PodSpec(Strict):
    containers: Annotated[list[Container], Field(min_length=1)]
    initContainers: list[Container] = []  # noqa: N815
    volumes: list[Volume] = []
    securityContext: dict[Literal["fsGroup"], int] = {}  # noqa: N815


class Template(Strict):
    metadata: Meta = Meta()
    spec: PodSpec


class Head(Strict):
    rayStartParams: dict[str, str]  # noqa: N815
    template: Template


class Workers(Strict):
    groupName: Name  # noqa: N815
    replicas: Annotated[int, Field(ge=0)]
    minReplicas: Annotated[int, Field(ge=0)]  # noqa: N815
    maxReplicas: Annotated[int, Field(ge=0)]  # noqa: N815
    rayStartParams: dict[str, str]  # noqa: N815
    template: Template


class RayClusterSpec(Strict):
    rayVersion: str  # noqa: N815
    authOptions: dict[Literal["mode"], Literal["token"]]  # noqa: N815
    enableInTreeAutoscaling: bool = False  # noqa: N815
    autoscalerOptions: dict[Literal["idleTimeoutSeconds"], int] = {}  # noqa: N815
    headGroupSpec: Head  # noqa: N815
    workerGroupSpecs: list[Workers]  # noqa: N815


class RayJobSpec(Strict):
    entrypoint: str
    backoffLimit: int  # noqa: N815
    shutdownAfterJobFinishes: bool  # noqa: N815
    ttlSecondsAfterFinished: int  # noqa: N815
    rayClusterSpec: RayClusterSpec  # noqa: N815


class DeploymentSpec(Strict):
    replicas: int
    strategy: dict[Literal["type"], Literal["Recreate", "RollingUpdate"]]
    selector: dict[Literal["matchLabels"], dict[str, str]]
    template: Template


class ServicePort(Strict):
    name: Name
    port: int
    targetPort: str  # noqa: N815


class ServiceSpec(Strict):
    selector: dict[str, str]
    ports: list[ServicePort]


class ClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteOnce", "ReadWriteMany"]]  # noqa: N815
    resources: dict[Literal["requests"], dict[Literal["storage"], Quantity]]


class Object(Strict):
    apiVersion: str  # noqa: N815
    kind: str
    metadata: Meta
    spec: Any


SPECS: dict[tuple[str, str], type[BaseModel]] = {
    ("v1", "PersistentVolumeClaim"): ClaimSpec,
    ("v1", "Service"): ServiceSpec,
    ("apps/v1", "Deployment"): DeploymentSpec,
    ("ray.io/v1", "RayCluster"): RayClusterSpec,
    ("ray.io/v1", "RayJob"): RayJobSpec,
}


def objects(name: str) -> dict[str, Any]:
    """The specs of a file by kind; each has the shape of its kind."""
    found: dict[str, Any] = {}
    for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")):
        given = Object.model_validate(document)
        assert given.metadata.name
        assert given.kind not in found
        found[given.kind] = SPECS[given.apiVersion, given.kind].model_validate(given.spec)
    return found


def clusters(name: str) -> RayClusterSpec:
    found = objects(name)
    return found["RayCluster"] if "RayCluster" in found else found["RayJob"].rayClusterSpec


def pods(name: str) -> Iterator[PodSpec]:
    found, cluster = objects(name), clusters(name)
    yield cluster.headGroupSpec.template.spec
    yield from (group.template.spec for group in cluster.workerGroupSpecs)
    if "Deployment" in found:
        yield found["Deployment"].template.spec


def tansaku_commands(words: str) -> dict[str, Any]:
    """The parameters of the one command of tansaku in a line of shell."""
    arguments = shlex.split(words)
    name, *others = arguments[arguments.index("tansaku") + 1 :]
    return COMMANDS[name].make_context(name, others).params


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_are_whole(name: str):
    for pod in pods(name):
        volumes = {volume.name for volume in pod.volumes}
        for container in [*pod.initContainers, *pod.containers]:
            assert {mount.name for mount in container.volumeMounts} <= volumes
            ports = {port.name for port in container.ports}
            for probe in (container.startupProbe, container.readinessProbe, container.livenessProbe):
                assert probe is None or (probe.httpGet.path in OPEN_PATHS and probe.httpGet.port in ports)
            # Keys come from secrets.
            secret = [each for each in container.env if re.search("KEY|SECRET|TOKEN|PASSWORD", each.name)]
            assert not [each.name for each in secret if each.value or not each.valueFrom]
        for container in pod.containers:
            assert container.resources, container.name
            # What is over this is killed, and not its neighbours.
            assert container.resources.limits["memory"] == container.resources.requests["memory"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_all_nodes_have_the_image_and_the_ray_of_the_extra(name: str):
    images = {container.image for pod in pods(name) for container in pod.containers}
    cloud = yaml.safe_load((FOLDER / "cluster-aws.yaml").read_text(encoding="utf-8"))
    assert images == {cloud["docker"]["image"]}
    dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert f"-t {cloud['docker']['image']} ." in dockerfile
    (version,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-py3\d+$", dockerfile, re.MULTILINE)
    assert clusters(name).rayVersion == version
    (wanted,) = [Requirement(each) for each in PROJECT["optional-dependencies"]["ray"] if each.startswith("ray[")]
    assert Version(version) in wanted.specifier


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_head_runs_no_actors(name: str):
    """They would be lost with it, and it with them."""
    assert clusters(name).headGroupSpec.rayStartParams["num-cpus"] == "0"


def test_the_job_builds_where_its_record_outlives_it():
    job = objects("build-job.yaml")["RayJob"]
    given = tansaku_commands(job.entrypoint)
    head = job.rayClusterSpec.headGroupSpec.template.spec
    (volume,) = [volume for volume in head.volumes if volume.persistentVolumeClaim]
    (container,) = head.containers
    (mounted,) = [mount.mountPath for mount in container.volumeMounts if mount.name == volume.name]
    cache = {each.name: each.value for each in container.env}["TANSAKU_CACHE_DIR"]
    for path in (cache, str(given["rejects"]), *map(str, given["source"])):
        assert path.startswith(f"{mounted}/")
    assert given["on"] == "ray"
    (group,) = job.rayClusterSpec.workerGroupSpecs
    cpus = int(group.template.spec.containers[0].resources.requests["cpu"])
    least, most = map(int, given["actors"].split(":"))
    assert least >= 1
    assert most * given["actor_cpus"] == group.maxReplicas * cpus


def test_the_service_has_a_machine_for_each_replica_of_each_shard():
    found = objects("serve.yaml")
    server = found["Deployment"].template
    (container,) = server.spec.containers
    (line,) = container.args
    given = tansaku_commands(line)
    (group,) = found["RayCluster"].workerGroupSpecs
    assert group.replicas == group.minReplicas == group.maxReplicas == given["shards"] * given["replicas"]
    assert given["shard_cpus"] == int(group.template.spec.containers[0].resources.requests["cpu"])
    assert given["on"] == "ray"
    assert given["host"] == "0.0.0.0"  # noqa: S104
    assert [port.containerPort for port in container.ports] == [given["port"]]
    labels = server.metadata.labels
    assert labels == found["Deployment"].selector["matchLabels"] == found["Service"].selector
    assert [port.targetPort for port in found["Service"].ports] == [port.name for port in container.ports]
    # The name that KubeRay gives the service of a head.
    assert "--address=tansaku-shards-head-svc:6379 " in line


def test_the_launcher_takes_the_file_of_a_cloud():
    import ray.autoscaler

    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    given = yaml.safe_load((FOLDER / "cluster-aws.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(given, json.loads(schema.read_text(encoding="utf-8")))
    head, encoder = given["available_node_types"]["head"], given["available_node_types"]["encoder"]
    assert given["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"], "the driver's machine must not be taken away"
    (page,) = re.findall(
        r"'RAY_AUTH_MODE=token (tansaku index .*?)'", (HOW_TO / "ray-cloud.md").read_text(encoding="utf-8")
    )
    asked = tansaku_commands(page)
    assert (
        int(asked["actors"].split(":")[1]) * asked["actor_cpus"] == encoder["max_workers"] * encoder["resources"]["CPU"]
    )


def test_the_errors_of_the_page_are_in_the_code():
    """Each text in the table of errors, up to what is put into it, is a part of a message."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("indexer", "onnx_export")
        for path in (ROOT / folder).rglob("*.py")
    )
    messages = re.sub(r'" ?\n\s*f?"', "", code)
    said = [text for cells in rows(HOW_TO / "ray.md", 0) for text in re.findall("`([^`]+)`", cells[0])]
    assert len(said) > 12
    for text in said:
        for part in text.split("…"):
            assert part.strip() in messages, f"no message has {part!r}"
