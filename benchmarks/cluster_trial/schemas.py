"""Checks recipes/cluster/*.yaml against what publishes their schema.

    python benchmarks/cluster_trial/schemas.py kuberay RAYJOBS.yaml
    python benchmarks/cluster_trial/schemas.py skypilot

RAYJOBS.yaml is KubeRay's helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml; SkyPilot is the installed one (`pip
install skypilot`, in an environment of its own).
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import yaml

LAUNCHERS = Path(__file__).parents[2] / "recipes" / "cluster"


def strict(schema: Any) -> Any:
    """A structural schema under which an unknown key is an error, as it is for `kubectl apply` (strict validation)."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def kuberay(crd: str) -> None:
    import jsonschema

    job = yaml.safe_load((LAUNCHERS / "kuberay.yaml").read_text())
    versions = yaml.safe_load(Path(crd).read_text())["spec"]["versions"]
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in versions if f"ray.io/{v['name']}" == job["apiVersion"]]
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    jsonschema.Draft202012Validator(strict(schema)).validate(job)


def skypilot() -> None:
    sky = importlib.import_module("sky")
    environment, secrets = {"BUCKET": "s3://a-bucket"}, {"RAY_AUTH_TOKEN": "0" * 64}
    config = yaml.safe_load((LAUNCHERS / "skypilot.yaml").read_text())
    config["file_mounts"]["/shared"]["source"] = None  # else SkyPilot asks the cloud for the bucket
    config["file_mounts"]["/shared"]["name"] = "a-bucket"
    sky.Task.from_yaml_config(config, env_overrides=list(environment.items()), secrets_overrides=list(secrets.items()))


if __name__ == "__main__":
    {"kuberay": kuberay, "skypilot": skypilot}[sys.argv[1]](*sys.argv[2:])
    print(f"recipes/cluster/{sys.argv[1]}.yaml: valid")
