"""Locates the policy document in force: the configured file or, in a configured folder, one of three files.

In a pod, the folder is a projected volume that the kubelet replaces atomically. It contains `defaults.yaml` from the
chart, and `policies.yaml` and `candidate.yaml` from the operator; the latter exists only during a rollout to some pods.
`track` is an annotation of the pod, with which the operator selects the document that this pod loads.
"""

from pathlib import Path

DEFAULTS, IN_FORCE, CANDIDATE, TRACK = "defaults.yaml", "policies.yaml", "candidate.yaml", "track"


def document_path(path: Path) -> Path:
    """Returns the file to load. It need not exist."""
    if not path.is_dir():
        return path
    data = path / "..data"  # replaced as a whole, so that all files below it belong together
    folder = data.resolve() if data.exists() else path
    if _track(folder) == "candidate" and (folder / CANDIDATE).exists():
        return folder / CANDIDATE
    return folder / (IN_FORCE if (folder / IN_FORCE).exists() else DEFAULTS)


def watched_folder(path: Path) -> Path:
    """Returns the folder whose changes can affect the document."""
    path = path.absolute()
    return path if path.is_dir() else path.parent


def _track(folder: Path) -> str:
    try:
        return (folder / TRACK).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
