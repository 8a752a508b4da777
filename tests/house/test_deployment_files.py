"""The manifests for Kubernetes and the dashboard for Grafana fit the image, the service and its metrics."""

from __future__ import annotations

import json
import re
import typing
from typing import Any

import pytest
import typer.main
import yaml

from tansaku.plugin.cli.main import app
from tansaku.plugin.service.health import OPEN_PATHS
from tansaku.plugin.service.observability import Metrics

from .test_docs import ROOT

FOLDER = ROOT / "docs" / "examples" / "kubernetes"
MANIFESTS = {
    each["kind"]: each for each in yaml.safe_load_all((FOLDER / "tansaku.yaml").read_text(encoding="utf-8")) if each
}
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


class _NoWorkers:
    waiting = working = stuck = 0


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Names of all metrics of the service, as Prometheus stores them."""
    of_service = Metrics()
    of_service.watch(typing.cast("Any", _NoWorkers()))
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {
        family.name + ending for family in of_service.registry.collect() for ending in endings.get(family.type, [""])
    }


def pod() -> dict[str, Any]:
    return MANIFESTS["Deployment"]["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return only


def test_there_is_what_a_service_needs():
    assert list(MANIFESTS) == ["PersistentVolumeClaim", "Deployment", "Service", "HorizontalPodAutoscaler"]
    versions = [each["apiVersion"] for each in MANIFESTS.values()]
    assert versions == ["v1", "apps/v1", "v1", "autoscaling/v2"]


def test_labels_names_and_ports_lead_to_each_other():
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert MANIFESTS["Service"]["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in container()["ports"]}
    assert {port["targetPort"] for port in MANIFESTS["Service"]["spec"]["ports"]} <= ports
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", MANIFESTS["Deployment"]["metadata"]["name"])
    claims = [each["persistentVolumeClaim"]["claimName"] for each in pod()["volumes"] if "emptyDir" not in each]
    assert claims == [MANIFESTS["PersistentVolumeClaim"]["metadata"]["name"]]
    assert {each["name"] for each in container()["volumeMounts"]} == {each["name"] for each in pod()["volumes"]}


def test_probes_ask_where_no_token_is_needed():
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container()[name]["httpGet"]
        assert probe["path"] in OPEN_PATHS
        assert probe["port"] == "http"
    assert container()["livenessProbe"]["httpGet"]["path"] == "/health"  # a service that loads is alive


@pytest.mark.parametrize("where", ["kubernetes", "compose", "image"])
def test_the_command_is_a_real_one(where: str):
    (cmd,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    arguments = {
        "kubernetes": container()["args"],
        "compose": COMPOSE["services"]["tansaku"]["command"],
        "image": json.loads(cmd),
    }[where]
    command = typer.main.get_command(app).commands[arguments[0]]  # pyright: ignore[reportAttributeAccessIssue]
    command.make_context(arguments[0], list(arguments[1:]))


def test_no_container_runs_as_root_or_writes_where_it_has_no_volume():
    stages = re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE)
    assert len(stages) == 2
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0
    assert "HEALTHCHECK" in DOCKERFILE
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["securityContext"]["runAsUser"] == pod()["securityContext"]["fsGroup"] == int(user)
    inside = container()["securityContext"]
    assert inside["readOnlyRootFilesystem"]
    assert not inside["allowPrivilegeEscalation"]
    assert inside["capabilities"] == {"drop": ["ALL"]}
    (written,) = re.findall(r"^VOLUME (\[.*\])$", DOCKERFILE, re.MULTILINE)
    written = {*json.loads(written), "/tmp"}  # noqa: S108
    assert {each["mountPath"] for each in container()["volumeMounts"]} == written
    composed = COMPOSE["services"]["tansaku"]
    assert composed["read_only"]
    assert composed["cap_drop"] == ["ALL"]
    assert {each.rpartition(":")[2] for each in composed["volumes"]} | {*composed["tmpfs"]} == written


def test_pods_are_added_by_a_metric_that_there_is(metrics: set[str]):
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "tansaku_requests_waiting"
    assert metric["pods"]["metric"]["name"] in metrics


def test_the_dashboard_shows_every_metric_and_no_other(metrics: set[str]):
    shown = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            shown |= set(re.findall(r"\b(?:tansaku|process)_\w+", target["expr"]))
    ours = {name for name in shown if name.startswith("tansaku")}
    assert shown - ours <= metrics | {"process_resident_memory_bytes", "process_cpu_seconds_total"}
    assert ours == {
        name for name in metrics if name.startswith("tansaku") and not name.endswith(("seconds_count", "seconds_sum"))
    }


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
