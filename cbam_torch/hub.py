"""Networks and blocks on the Hugging Face Hub, as canonical files that every package reads.

A repository, or a folder that is like one, holds `model.safetensors` with the architecture or the
spec in its metadata: no pickle, no code, and no layout of torch's. What such a file holds, cbam_tf,
cbam_keras and cbam_flax load by `weights=`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

import cbam_core
from cbam_core import CBAMSpec, CheckpointError
from cbam_torch.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_torch.backbones import Backbone
from cbam_torch.weights import load_canonical, shapes_of, to_canonical

FILE = "model.safetensors"
CARD = """\
---
library_name: cbam
tags:
- cbam
- safetensors
---

`{described}`

```python
from cbam_torch import hub

model = hub.from_pretrained("{name}")
```

`model.safetensors` holds canonical weights, which cbam_tf, cbam_keras and cbam_flax read too.
"""


def save_pretrained(module: nn.Module, folder: os.PathLike[str] | str) -> None:
    """Write a network or block of cbam_torch to `folder`/model.safetensors, whole or not at all.

    Raises:
        TypeError: the module holds no canonical weights.
        ValueError: a network without its head, which is none that another could load.

    Example:
        >>> import tempfile
        >>> from cbam_torch import CBAM, hub
        >>> folder = tempfile.mkdtemp()
        >>> hub.save_pretrained(CBAM(64), folder)
        >>> hub.from_pretrained(folder)
        CBAM(64)
    """
    shapes_of(module)
    Path(folder).mkdir(parents=True, exist_ok=True)
    cbam_core.write(Path(folder) / FILE, to_canonical(module), _described(module))


def from_pretrained(
    name: os.PathLike[str] | str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: os.PathLike[str] | str | None = None,
    local_files_only: bool = False,
    **options: Any,
) -> Backbone | CBAM:
    """The network, or the block, of a folder or of a repository on the Hub, in evaluation mode.

    Args:
        name: a folder, or a repository, "owner/name".
        revision, token, cache_dir, local_files_only: see `huggingface_hub.hf_hub_download`.
        options: of `Backbone` or `CBAM.from_spec`: device, dtype and so on.

    Raises:
        NotADirectoryError: it is a file.
        FileNotFoundError: the folder has no model.safetensors.
        ImportError: it is a repository, and huggingface_hub is not installed.
        CheckpointError: the file is damaged, holds neither one block nor a network, or a network
            without its head, which features_only=True does not ask for.
    """
    if Path(name).is_file():
        raise NotADirectoryError(
            f"name={str(name)!r} is a file; pass the folder of a {FILE}, or load the file by the "
            f"weights= of a factory"
        )
    path = Path(name) / FILE
    if not Path(name).is_dir():
        where = {"revision": revision, "token": token, "cache_dir": cache_dir}
        download = _huggingface_hub().hf_hub_download
        path = Path(download(str(name), FILE, local_files_only=local_files_only, **where))
    found = cbam_core.read(path)
    described = found.described
    module: Backbone | CBAM
    if isinstance(described, CBAMSpec):
        module = CBAM.from_spec(described, **options)
    else:
        module = Backbone(described, **options)
    shapes = shapes_of(module)
    if missing := [name for name in shapes if name not in found.weights]:
        raise CheckpointError(
            str(path), f"has no {', '.join(missing)}; pass features_only=True to go without a head"
        )
    load_canonical(module, {name: found.weights[name] for name in shapes})
    return module.eval()


def push_to_hub(
    module: nn.Module,
    repo_id: str,
    *,
    commit_message: str = "Upload of canonical CBAM weights",
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
) -> str:
    """Upload a network or block to a repository on the Hub, which is made if there is none.

    A model card that says how to load it comes along where the repository has none.

    Args:
        module: a network or block of this package.
        repo_id: the repository, "owner/name"; "name" is one of the token's owner.
        commit_message: of the one commit.
        private: whether a repository that is made is private; the owner's default if None.
        token: see `huggingface_hub.HfApi`.
        branch: the branch to upload to, which is made if there is none; the main one if None.

    Returns:
        The address of the commit.

    Raises:
        TypeError, ValueError: as `save_pretrained`.
        ImportError: huggingface_hub is not installed.
    """
    api = _huggingface_hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(module, folder)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        if not api.file_exists(repo_id, "README.md", revision=branch):
            card = CARD.format(described=_described(module), name=repo_id)
            (Path(folder) / "README.md").write_text(card)
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch
        ).commit_url


def _described(module: nn.Module) -> Any:
    is_block = isinstance(module, CBAM | ChannelAttention | SpatialAttention)
    return module.spec if is_block else module.architecture


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "repositories on the Hub need huggingface_hub, which is not installed; "
            'pip install "cbam[hub]"'
        ) from error
    return huggingface_hub
