"""Which precision policy the hardware runs fast: bfloat16 or float16 where it is native, else float32."""

import keras
import tensorflow as tf

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def set_precision(precision: str | None, kind: str) -> None:
    """Sets Keras's global dtype policy, if asked to.

    Args:
        precision: None (leave the policy as it is), "auto", or a policy's name.
        kind: What the model runs on: "CPU", "GPU" or "TPU".
    """
    if precision is not None:
        keras.config.set_dtype_policy(fast_policy(kind) if precision == "auto" else precision)


def fast_policy(kind: str) -> str:
    """The fastest policy that is safe on every device of a kind.

    GPUs from compute capability 8.0 (A100, RTX 30) and TPUs have bfloat16, which needs no loss scaling;
    GPUs from 7.0 (V100, T4) have float16 only. A CPU gets bfloat16 if it has matrix units for it (AMX):
    with AVX-512 instructions alone, bfloat16 training was slower than float32.
    """
    if kind == "TPU":
        return "mixed_bfloat16"
    if kind == "GPU":
        capability = min(_compute_capabilities(), default=(0, 0))
        return (
            "mixed_bfloat16"
            if capability >= (8, 0)
            else "mixed_float16"
            if capability >= (7, 0)
            else "float32"
        )
    return "mixed_bfloat16" if "amx_bf16" in _cpu_flags() else "float32"


def _compute_capabilities() -> list[tuple[int, int]]:
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    return [detail.get("compute_capability", (0, 0)) for detail in details]


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:  # not Linux: no such file, so nothing is known
        return set()
