"""Which file has the policy document in force: the one that is named or, in a named folder, one of three.

In a pod the folder is a volume of several sources, which the kubelet swaps at once: `defaults.yaml` from the chart,
`policies.yaml` and, while a change is tried out on some pods, `candidate.yaml` from the operator, and `track`, an
annotation of the pod, by which the operator says which of the two this pod is to load.
"""

from pathlib import Path

DEFAULTS, IN_FORCE, CANDIDATE, TRACK = "defaults.yaml", "policies.yaml", "candidate.yaml", "track"


def document_path(path: Path) -> Path:
    """The file to load. It need not exist."""
    if not path.is_dir():
        return path
    data = path / "..data"  # what a swap replaces: all that is read below it belongs together
    folder = data.resolve() if data.exists() else path
    if _track(folder) == "candidate" and (folder / CANDIDATE).exists():
        return folder / CANDIDATE
    return folder / (IN_FORCE if (folder / IN_FORCE).exists() else DEFAULTS)


def watched_folder(path: Path) -> Path:
    """The folder whose changes can change the document."""
    path = path.absolute()
    return path if path.is_dir() else path.parent


def _track(folder: Path) -> str:
    try:
        return (folder / TRACK).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
