"""Which files pytest does not look into for examples."""

import platform

from cbam_core.containers import CONTAINERS

# Read apart, since each imports a framework, and frameworks do not share a process.
collect_ignore = [f"cbam_core/containers/{one.name}.py" for one in CONTAINERS.values() if one.apart]
collect_ignore += ["tests/core/orbax_files.py", "tests/core/torch_files.py"]
# Triton is not everywhere; it interprets or compiles in processes of their own.
collect_ignore += ["cbam_torch/triton_kernels.py"]
collect_ignore += ["tests/native/interpreted.py", "tests/native/compiled.py"]
if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    collect_ignore += ["tests/native/test_cuda.py"]
