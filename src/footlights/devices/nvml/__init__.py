"""NVIDIA's GPUs, through NVML and its own Python binding (the distribution ``nvidia-ml-py``).

``driver`` opens the library and enumerates; ``device`` asks one GPU or MIG instance. Only these two import ``pynvml``.
Reference: NVIDIA, *NVML API Reference Guide*. Everything is asked by UUID or handle and nothing is kept between reads
but the open library, which is opened at the first read and not at import: an agent on a laptop must start.
"""
