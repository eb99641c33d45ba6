"""`python -m tests.integration.aggregator.mortal_put POINT URL SIZE`: puts a large blob, and dies on the way.

The points are those of `S3Blobs`, and `complete`: before the request that makes the parts sent so far one object.
"""

import sys
from hashlib import sha256

from minio import Minio
from urllib3 import PoolManager

from services.aggregator.blobstore.s3_blobs import S3Blobs
from services.objects import read_bucket
from tests import s3
from tests.integration.mortal import killing


class Watched(PoolManager):
    """Real requests to the real server, of which one is told before it is made."""

    def __init__(self, reached, **options):
        super().__init__(**options)
        self.reached = reached

    def urlopen(self, method, url, *arguments, **options):
        if method == "POST" and "uploadId=" in url:
            self.reached("complete")
        return super().urlopen(method, url, *arguments, **options)


def blob(size: int) -> tuple[str, bytes]:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    return sha256(data).hexdigest(), data


if __name__ == "__main__":
    point, url, size = sys.argv[1:]
    reached, place = killing(point), read_bucket(url, "blobs")
    options = {"secure": place.secure, "region": place.region, "http_client": Watched(reached)}
    client = Minio(place.endpoint, s3.ACCESS, s3.SECRET, **options)
    S3Blobs(client, place, on_durable=reached).put(*blob(int(size)))
