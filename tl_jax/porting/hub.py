"""Getting the file of registered weights: from the package, the Hugging Face hub or its publisher's address."""

import functools
import importlib.resources
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

from tl_jax import files
from tl_jax.data.download import download, print_progress
from tl_jax.errors import InputError
from tl_jax.models.pretrained import PretrainedWeights

# The hub library retries an unreachable host for over 20 s; one request of ours settles it sooner.
PROBE_SECONDS = 8.0
# Where Keras keeps the files that it downloads, under the same names.
KERAS_CACHE = Path("~/.keras/models")


def fetch(weights: PretrainedWeights) -> Path:
    """Returns the local file of `weights`, downloaded into the Hugging Face cache or that of Keras if need be.

    `HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and the like work as in `huggingface_hub`.
    The file is checked against the SHA-256 of the registry, else that which the hub states; one of Keras
    against its publisher's MD5, before it takes its name.

    Raises:
        InputError: if the file is damaged or cannot be had, told within `PROBE_SECONDS` where there
            is no network; the message says what to place where.
    """
    if weights.address:
        return _from_address(weights)
    path = _packaged(weights) if weights.packaged else _from_hub(weights)
    stated = weights.sha256 or _stated_by_hub(path)
    if stated and files.digest(path) != stated:
        raise InputError(
            f"{path} is damaged: its SHA-256 is {files.digest(path)}, {weights.name} has {stated}; "
            "delete it and run again"
        )
    return path


def _packaged(weights: PretrainedWeights) -> Path:
    path = Path(str(importlib.resources.files("tl_jax"))) / "weights" / weights.filename
    if not path.is_file():
        raise InputError(
            f"{weights.name} comes with the package but {path} is absent; reinstall tl_jax"
        )
    return path


def _from_address(weights: PretrainedWeights) -> Path:
    path = KERAS_CACHE.expanduser() / weights.filename
    if path.is_file():
        _verify_md5(path, weights, "delete or rename it, and run again")
        return path
    reason = _unreachable(weights.address)
    if reason:
        raise _not_placed(weights, path, f"{weights.address} cannot be reached ({reason})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return download(
            weights.address,
            path,
            lambda part: _verify_md5(part, weights, "it was removed; run again"),
            timeout=PROBE_SECONDS,
            progress=print_progress(f"downloading {weights.filename}"),
        )
    except OSError as error:
        if files.is_disk_full(error):
            raise
        raise _not_placed(weights, path, f"the download failed: {error}") from error


def _not_placed(weights: PretrainedWeights, path: Path, reason: str) -> InputError:
    return InputError(
        f"no file for {weights.name}: {reason}. Download it where there is a network and place it as {path}, or "
        f"pass it as --config.init.weights=FILE --config.preprocess.weights={weights.name}"
    )


def _verify_md5(path: Path, weights: PretrainedWeights, remedy: str) -> None:
    found = files.digest(path, "md5")
    if found != weights.md5:
        raise InputError(
            f"{path} is damaged or another version: its MD5 is {found}, {weights.name} has {weights.md5}; "
            f"{remedy}"
        )


def _from_hub(weights: PretrainedWeights) -> Path:
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    download = functools.partial(
        huggingface_hub.hf_hub_download,
        repo_id=weights.repo_id,
        filename=weights.filename,
        revision=weights.revision,
    )
    try:
        return Path(download(local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        raise _absent(weights, "HF_HUB_OFFLINE is set and the file is not in the hub's cache")
    url = f"{constants.ENDPOINT}/{weights.repo_id}/resolve/{weights.revision}/{weights.filename}"
    reason = _unreachable(url)
    if reason:
        raise _absent(weights, f"{constants.ENDPOINT} cannot be reached ({reason})")
    try:
        return Path(download(etag_timeout=PROBE_SECONDS))
    except (HfHubHTTPError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise _absent(weights, f"the download failed: {first_line}") from error


def _absent(weights: PretrainedWeights, reason: str) -> InputError:
    from huggingface_hub import constants

    return InputError(
        f"no file for {weights.name}: {reason}. Download {weights.url} where there is a network "
        f"and pass it as --config.init.weights=FILE --config.preprocess.weights={weights.name}, or run there "
        f"`hf download {weights.repo_id} {weights.filename}` and copy its cache folder "
        f"models--{weights.repo_id.replace('/', '--')} into {constants.HF_HUB_CACHE}"
    )


def _unreachable(url: str) -> str | None:
    """Returns why no server answers at `url` within `PROBE_SECONDS`, or None if one does."""
    outcome: list[str | None] = []

    def probe() -> None:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS
            ):
                outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)
        except (OSError, ValueError) as error:
            outcome.append(str(getattr(error, "reason", error)))

    # In a thread, since name resolution knows no time limit.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer within {PROBE_SECONDS:g} s"


def _stated_by_hub(path: Path) -> str | None:
    # The cache names the blob of a large file by the SHA-256 that the hub stated for it.
    blob = path.resolve()
    return (
        blob.name
        if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name)
        else None
    )
