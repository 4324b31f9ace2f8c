"""The names that `import avar_rl` offers: imported when used, and no sooner."""

import importlib.metadata
import pickle
import subprocess
import sys

import pytest

import avar_rl
from avar_rl.runtime import versions


def test_the_import_itself_imports_nothing_heavy():
    heavy = {"torch", "transformers", "verl", "ray", "vllm", "pydantic", "sympy"}
    code = f"import sys, avar_rl; dir(avar_rl); assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_names_are_those_of_their_homes():
    from avar_rl.attention.recorder import record_span_mass
    from avar_rl.attention.roles import Role, token_roles
    from avar_rl.attention.span_mass import span_mass
    from avar_rl.intervention import Intervention, intervene
    from rewards.grading import grade

    homes = (record_span_mass, Role, token_roles, span_mass, Intervention, intervene, grade)
    for home in homes:
        assert getattr(avar_rl, home.__name__) is home
    assert set(avar_rl.__all__) - {home.__name__ for home in homes} == {"vas", "__version__"}
    assert set(avar_rl.__all__) <= set(dir(avar_rl))
    assert pickle.loads(pickle.dumps(avar_rl.Intervention(img=0.5))) == avar_rl.Intervention(img=0.5)


@pytest.mark.parametrize("first", ["import avar_rl", "import avar_rl.vas", "from avar_rl import vas"])
def test_vas_is_the_module_however_it_is_imported(first):
    code = f"{first}; import avar_rl; first = avar_rl.vas; import avar_rl.vas; from avar_rl import vas; "
    code += "assert first is vas is avar_rl.vas; vas.summarise"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'avar_rl' has no attribute 'vass'"):
        avar_rl.vass  # noqa: B018


def test_the_version_is_that_of_the_installed_distribution(monkeypatch):
    monkeypatch.setattr(versions, "installed_version", lambda names: {("avar-rl",): "1.2.3"}[names])
    monkeypatch.delitem(vars(avar_rl), "__version__", raising=False)
    assert avar_rl.__version__ == "1.2.3"
    monkeypatch.delitem(vars(avar_rl), "__version__")

    def missing(names):
        raise importlib.metadata.PackageNotFoundError("avar-rl")

    monkeypatch.setattr(versions, "installed_version", missing)
    with pytest.raises(AttributeError, match="not installed"):
        avar_rl.__version__  # noqa: B018
