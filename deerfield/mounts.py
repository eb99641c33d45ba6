"""Whether a folder is on a disk that keeps its word about locks and fsync."""

from pathlib import Path

MOUNTS = Path("/proc/mounts")
NETWORK = {"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2"}
NETWORK |= {"smb2", "smb3", "smbfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys"}
NETWORK |= {"fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}


def network(folder: Path, mounts: Path = MOUNTS) -> str:
    """The type of the network file system that a folder is, or would be, on; empty if it is on none that is known."""
    try:
        table = mounts.read_text("utf-8", errors="replace")
    except OSError:  # no Linux: nothing is known against it
        return ""
    kind = file_system(folder.resolve(), table)
    return kind if kind in NETWORK else ""


def file_system(folder: Path, table: str) -> str:
    """The type of the file system that an absolute path is on, by the lines of /proc/mounts; empty if none has it."""
    found: tuple[int, str] = (-1, "")
    for row in table.splitlines():
        fields = row.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_unescaped(fields[1]))
        if (
            folder.is_relative_to(point) and len(point.parts) >= found[0]
        ):  # the last of two on one point hides the first
            found = len(point.parts), fields[2]
    return found[1]


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
