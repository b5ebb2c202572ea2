"""The files that others deploy mapper with: linted, valid, and in step with the program."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from typer.main import get_command

from mapper.cli.commands import app
from mapper.cluster.options import ClusterOptions
from mapper.events import Event, ignore
from mapper.run.watch import Watch
from mapper.schedule.cron import read_times
from mapper.schedule.forms import Job, kubernetes

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
MANIFESTS = yaml.safe_load((DEPLOY / "kubernetes" / "mapper.yaml").read_text())["items"]
OPERATOR = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "operator.yaml").read_text()))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VERBS = get_command(app).commands


def linted(tool, *paths):
    done = subprocess.run([BIN / tool, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_is_clean():
    linted("hadolint", DEPLOY / "Dockerfile")


def test_the_scripts_are_clean():
    linted("shellcheck", *DEPLOY.glob("slurm/*.sbatch"))


def test_the_image_is_no_root_and_holds_what_it_copies():
    text = (DEPLOY / "Dockerfile").read_text()
    users = re.findall(r"^USER (\S+)", text, re.M)
    assert users == ["10001:10001"]
    kept = set((ROOT / ".dockerignore").read_text().replace("!", "").split())
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for name in line.split():
            assert (ROOT / name).exists()
            assert name in kept
    assert all(":" in image for image in re.findall(r"^FROM (python\S*)", text, re.M))


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}"
)
def test_manifests_are_those_of_kubernetes(manifest):
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_the_cronjob_that_mapper_writes_is_valid_too():
    job = Job(
        name="maps",
        times=read_times("@monthly"),
        command=("mapper", "run"),
        folder=Path("/data"),
        image="mapper:cpu",
    )
    content = yaml.safe_load(kubernetes(job)["maps-cronjob.yaml"])
    kubernetes_validate.validate(content, "1.31", strict=True)


def retrieved(uri):
    """Schemas that the operator's definitions refer to; those of pods are checked apart."""
    import dask_kubernetes

    _, _, rest = uri.partition("://")
    if rest.startswith("dask_kubernetes/"):
        path = Path(dask_kubernetes.__file__).parents[1] / rest
        return DRAFT202012.create_resource(yaml.safe_load(path.read_text()))
    kinds = ("io.k8s.api.core.v1.PodSpec", "io.k8s.api.core.v1.ServiceSpec")
    return DRAFT202012.create_resource({"definitions": {kind: {} for kind in kinds}})


def test_the_operators_resources_are_those_of_its_definitions():
    import dask_kubernetes.operator

    folder = Path(dask_kubernetes.operator.__file__).parent / "customresources"
    registry = Registry(retrieve=retrieved)
    for resource in OPERATOR:
        definition = yaml.safe_load((folder / f"{resource['kind'].lower()}.yaml").read_text())
        (version,) = definition["spec"]["versions"]
        assert resource["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
        schema = version["schema"]["openAPIV3Schema"]
        validator = jsonschema.Draft202012Validator(schema, registry=registry)
        validator.validate(resource)
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(resource | {"spec": {"worker": {"replicas": "four"}}})


def test_the_operators_pods_are_those_of_kubernetes():
    found = []
    for resource in OPERATOR:
        for part in ("scheduler", "worker"):
            if part in resource["spec"]:
                found.append(("Pod", resource["spec"][part]["spec"]))
        if "scheduler" in resource["spec"]:
            found.append(("Service", resource["spec"]["scheduler"]["service"]))
    assert len(found) == 4
    for kind, spec in found:
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(manifest, "1.31", strict=True)


def containers(manifest):
    spec = manifest["spec"].get("jobTemplate", manifest)["spec"]["template"]["spec"]
    return spec, spec["containers"]


def test_no_container_is_root_or_without_limits():
    for manifest in MANIFESTS:
        if manifest["kind"] not in ("Deployment", "CronJob"):
            continue
        pod, found = containers(manifest)
        assert pod["securityContext"]["runAsNonRoot"]
        for each in found:
            assert each["resources"]["limits"]["memory"]
            assert each["securityContext"]["readOnlyRootFilesystem"]
            assert not each["securityContext"]["allowPrivilegeEscalation"]


def test_a_monthly_run_never_overlaps_and_drains():
    (job,) = [m for m in MANIFESTS if m["kind"] == "CronJob"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod, _ = containers(job)
    assert pod["terminationGracePeriodSeconds"] > 20


def commands():
    """Every call of `mapper` in a file that is deployed."""
    (job,) = [m for m in MANIFESTS if m["kind"] == "CronJob"]
    yield "cronjob", containers(job)[1][0]["args"]
    yield "compose", COMPOSE["services"]["run"]["command"]
    script = (DEPLOY / "slurm" / "driver.sbatch").read_text()
    (line,) = re.findall(r"^mapper (run .+?) \"\$@\" &$", script, re.M)
    yield "driver.sbatch", line.split()


def test_options_are_those_that_there_are():
    for where, (verb, *rest) in commands():
        known = {name for option in VERBS[verb].params for name in option.opts}
        assert {part for part in rest if str(part).startswith("--")} <= known, where


def test_addresses_of_the_scheduler_agree():
    (service,) = [m for m in MANIFESTS if m["kind"] == "Service"]
    address = f"tcp://{service['metadata']['name']}:8786"
    named = re.findall(r"tcp://[a-z-]+:\d+", (DEPLOY / "kubernetes" / "mapper.yaml").read_text())
    assert set(named) == {address}
    assert ClusterOptions(where=address).kind == "address"
    in_compose = re.findall(r"tcp://([a-z-]+):\d+", (DEPLOY / "compose.yaml").read_text())
    assert set(in_compose) <= COMPOSE["services"].keys()


def test_the_dashboard_of_dask_is_bound_to_loopback():
    (ports,) = [s["ports"] for s in COMPOSE["services"].values() if "ports" in s]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_grafana_asks_for_metrics_that_there_are():
    watch = Watch(ignore, "maps")
    watch(Event(kind="step", message="", city="a", stage="b", done=1, total=2))
    watch(Event(kind="step", message="", city="a", stage="b", state="failed"))
    watch(Event(kind="step", message="", city="a", stage="b", state="retried"))
    known = {s.name for family in watch.registry.collect() for s in family.samples}
    board = json.loads((DEPLOY / "grafana" / "mapper.json").read_text())
    asked = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"mapper_\w+", target["expr"]))
    assert asked
    assert asked <= known
    # what there is and nobody looks at would be missed
    missed = {name for name in known if not name.endswith("_created")} - asked
    assert missed == {"mapper_pixels_total"}
