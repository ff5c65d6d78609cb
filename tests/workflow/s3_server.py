"""An S3-compatible server on this machine (moto's), with one bucket and one account that may use it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

from tests.workflow.ports import answers, free_port

BUCKET = "rdfa"
_POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'


@dataclass(frozen=True)
class Bucket:
    """A bucket: where it is, and the credentials that it asks for."""

    url: str
    """The server's address, DVC's `endpointurl`."""
    access_key: str
    secret_key: str
    empty: Path
    """A file without content, in place of this machine's configuration of AWS."""

    def environment(self, secret_key: str | None = None) -> dict[str, str]:
        """Credentials as a user exports them; no second attempts, which only take time here."""
        return {
            "AWS_CONFIG_FILE": str(self.empty),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.empty),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key or self.secret_key,
        }

    def objects(self) -> dict[str, int]:
        """Names and sizes of what is in the bucket."""
        store = _client("s3", self.url, self.access_key, self.secret_key)
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}


@contextmanager
def serving(folder: Path) -> Iterator[Bucket]:
    """Run the server; its log goes to `folder`. It checks signatures once account and bucket are made."""
    empty = folder / "aws"
    empty.touch()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "4"},  # the four calls below
            stdout=log,
            stderr=log,
        )
        try:
            while not answers(f"{url}/moto-api/data.json"):
                assert server.poll() is None, (folder / "s3.log").read_text()
                time.sleep(0.1)
            accounts = _client("iam", url, "nobody", "nothing")
            accounts.create_user(UserName="rdfa")
            accounts.put_user_policy(UserName="rdfa", PolicyName="s3", PolicyDocument=_POLICY)
            key = accounts.create_access_key(UserName="rdfa")["AccessKey"]
            _client("s3", url, "nobody", "nothing").create_bucket(Bucket=BUCKET)
            yield Bucket(url, key["AccessKeyId"], key["SecretAccessKey"], empty)
        finally:
            server.terminate()
            server.wait(timeout=60)


def _client(service: str, url: str, access_key: str, secret_key: str):  # type: ignore[no-untyped-def]
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
