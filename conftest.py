"""Which files pytest does not look into for examples."""

from cbam_core.containers import CONTAINERS

# Read apart, since each imports a framework, and frameworks do not share a process.
collect_ignore = [f"cbam_core/containers/{one.name}.py" for one in CONTAINERS.values() if one.apart]
collect_ignore += ["tests/core/orbax_files.py", "tests/core/torch_files.py"]
