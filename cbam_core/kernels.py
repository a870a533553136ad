"""CBAM_KERNELS, the environment variable by which kernels are turned off everywhere."""

from __future__ import annotations

import os

SETTINGS = ("on", "off", "always")


def kernels_setting() -> str:
    """What CBAM_KERNELS says: "on" where it is absent.

    "off" is the plain composition everywhere; "always" takes kernels also for maps so small that
    plain operations are faster, so that small maps can test them.

    Raises:
        ValueError: it is something else.

    Example:
        >>> from cbam_core.kernels import kernels_setting
        >>> kernels_setting() in ("on", "off", "always")
        True
    """
    setting = os.environ.get("CBAM_KERNELS", "on")
    if setting not in SETTINGS:
        raise ValueError(
            f"CBAM_KERNELS={setting!r} is unknown; choose from {', '.join(map(repr, SETTINGS))}"
        )
    return setting
