"""The files for Kubernetes and Volcano: they fit the schemas, and the launcher finds its place in their pods."""

import pytest
import yaml
from conftest import ROOT

from msg_ms.launch.platforms import read_place

kubernetes_validate = pytest.importorskip("kubernetes_validate")

FILES = ROOT / "scripts" / "kubernetes"
VERSIONS = ("1.31", "1.37")


def documents(name):
    return list(yaml.safe_load_all((FILES / name).read_text("utf-8")))


@pytest.fixture
def pod(monkeypatch):
    """A function that sets the environment of a pod's container; returns the number of its devices."""

    def enter(template, **variables):
        (container,) = template["spec"]["containers"]
        for name in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**{pair["name"]: pair["value"] for pair in container["env"]}, **variables}.items():
            monkeypatch.setenv(name, value)
        assert (ROOT / container["command"][1]).exists() and (ROOT / container["args"][1]).exists()
        (devices,) = container["resources"]["limits"].values()
        assert int(container["args"][0]) == devices
        return devices

    return enter


@pytest.mark.parametrize("version", VERSIONS)
def test_the_indexed_job_fits_the_schema(version):
    service, job = documents("indexed_job.yaml")
    for document in (service, job):
        kubernetes_validate.validate(document, version, strict=True)
    job["spec"]["completion"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_volcano_job_has_a_pod_that_fits_the_schema(version):
    (job,) = documents("volcano_job.yaml")
    (task,) = job["spec"]["tasks"]
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": task["template"]}
    kubernetes_validate.validate(wrapped, version, strict=True)


def test_the_launcher_finds_its_place_in_an_indexed_job(pod):
    service, job = documents("indexed_job.yaml")
    name, template = job["metadata"]["name"], job["spec"]["template"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["metadata"]["name"] == template["spec"]["subdomain"]
    for index in range(job["spec"]["completions"]):
        place = read_place(pod(template, JOB_COMPLETION_INDEX=str(index)))
        assert (place.nodes, place.node) == (job["spec"]["completions"], index)
        assert place.address == f"{name}-0.{service['metadata']['name']}"


def test_the_launcher_finds_its_place_in_a_volcano_job(pod):
    (job,) = documents("volcano_job.yaml")
    (task,) = job["spec"]["tasks"]
    name, count = job["metadata"]["name"], task["replicas"]
    assert job["spec"]["minAvailable"] == count and job["spec"]["plugins"].keys() == {"env", "svc"}
    hosts = [f"{name}-{task['name']}-{i}.{name}" for i in range(count)]
    own = {f"VC_{task['name'].upper()}_NUM": str(count), f"VC_{task['name'].upper()}_HOSTS": ",".join(hosts)}
    for index in range(count):
        place = read_place(pod(task["template"], VC_TASK_INDEX=str(index), **own))
        assert (place.nodes, place.node, place.address) == (count, index, hosts[0])
