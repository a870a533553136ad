"""How tests compile: what most of them compile runs once or twice."""

# XLA without optimisation, which takes a third of the time. What asks in
# tests/crosscheck/test_everywhere.py whether all are equal goes without it, as users do.
QUICKLY = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
}
