"""Where models are found, by name on the command line and by digest in a payload.

No network ships with this version, so every search ends in an error that says so; the
digest's place in the payload and the order of the search are already the format's.
"""

from __future__ import annotations

from pathlib import Path

from tezip_h5.errors import ModelError

__all__ = ["ORIGINAL_FILES", "find", "predictor_for"]

ORIGINAL_FILES = ("prednet_model.json", "prednet_weights.hdf5")


def find(digest: bytes):
    """Return the model with this digest (32 bytes, SHA-256).

    Raises
    ------
    ModelError
        When it is not found; the message names the digest and where it was looked for.
    """
    raise ModelError(
        f"this chunk was predicted by the model {digest.hex()}, which was not found in: models "
        "loaded in this process (none), models that ship with tezip_h5 (none in this version). "
        "Read it with the version of tezip_h5 that wrote it, or a newer one"
    )


def predictor_for(model: str) -> str | None:
    """Predictor that the command line's MODEL argument asks for.

    Parameters
    ----------
    model : "default" (the best that ships: the previous frame), "none" (no network, the
        same in this version), or a folder with a model that the original trained (accepted, but
        this version predicts without it).

    Raises
    ------
    ModelError
        When the folder is missing or holds no model.
    """
    if model in ("default", "none"):
        return None
    folder = Path(model)
    if not folder.is_dir():
        raise ModelError(
            f"MODEL {model!r} is no folder; give a model's folder, or 'default' or 'none'"
        )
    missing = [name for name in ORIGINAL_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"MODEL folder {model!r} holds no model: {' and '.join(missing)} missing; "
            "give a model's folder, or 'default' or 'none'"
        )
    return None  # an original's PredNet: not used by this version, see the command line
