"""Everything that touches verl (0.9.1): the only package of avar_rl that imports it.

verl stays unedited. It imports `avar_rl.verl_plugin.register` in each of its processes (driver, Ray workers, vLLM's
worker) because the commands of this package set `VERL_USE_EXTERNAL_MODULES`, verl's own loud plug-in point.
"""
