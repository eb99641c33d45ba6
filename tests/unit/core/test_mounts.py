"""Which file system a folder is on, by a table such as /proc/mounts."""

from pathlib import Path

from deerfield import mounts


def test_the_later_mount_on_a_point_counts() -> None:
    table = "a / overlay rw 0 0\nb /data nfs rw 0 0\nc /data ext4 rw 0 0\n"
    assert mounts.file_system(Path("/data/x"), table) == "ext4"
    assert mounts.file_system(Path("/database"), table) == "overlay"
