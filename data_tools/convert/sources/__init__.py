"""The registry of sources. A new one is a module with a `SOURCE` in this folder, named in the list below."""

from data_tools.convert.sources import (
    algopuzzlevqa,
    columns,
    geometry3k,
    hallusionbench,
    m3cot,
    mathverse,
    mathvision,
    mathvista,
    mmk12,
    mmmu,
    mmmu_pro,
    mmmu_pro_vision,
    mmstar,
    r1_sharevl,
    sharegpt,
    solidgeo,
    virl39k,
)
from data_tools.convert.sources.source import Source

_MODULES = (
    geometry3k,
    r1_sharevl,
    m3cot,
    algopuzzlevqa,
    solidgeo,
    mmk12,
    virl39k,
    mathvista,
    mathverse,
    mathvision,
    mmmu,
    mmmu_pro,
    mmmu_pro_vision,
    mmstar,
    hallusionbench,
    sharegpt,
    columns,
)
SOURCES: dict[str, Source] = {module.SOURCE.name: module.SOURCE for module in _MODULES}


def find(name: str) -> Source:
    """The source with this name; ValueError, which lists all names, where there is none."""
    if name not in SOURCES:
        raise ValueError(f"unknown source {name!r}; known are {', '.join(SOURCES)}")
    return SOURCES[name]
