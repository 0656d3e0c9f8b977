"""Folders of weights on web servers, in buckets and on the hub: the records of local ones."""

import json
import shutil
import threading
from xml.sax.saxutils import escape

import pytest

from diffai_stream import compare, open_checkpoint
from diffai_stream.errors import FormatError, UsageError
from tests.remote.pairs import moved, records

moto = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket():
    """A bucket of an S3 server on this machine, as a client of boto3 with a function that fills it."""
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "Acce55", "aws_secret_access_key": "S3cret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=address, **keys)
    client.create_bucket(Bucket="weights")
    client.address = address
    yield client
    server.stop()


@pytest.fixture
def s3(bucket, monkeypatch):
    """A function that puts a folder into the bucket, whose credentials are in the environment."""
    for name, value in (
        ("AWS_ENDPOINT_URL", bucket.address),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "Acce55"),
        ("AWS_SECRET_ACCESS_KEY", "S3cret"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)

    def put(name, path):
        for file in path.rglob("*"):
            if file.is_file():
                bucket.put_object(Bucket="weights", Key=f"{name}/{file.relative_to(path)}", Body=file.read_bytes())
        return f"s3://weights/{name}"

    return put


@pytest.mark.parametrize("end", ["", "/"])
def test_folders_of_a_web_server(end, web, folders, expected_of_folders):
    files, address = web
    addresses = [f"{address}/{path.name}{end}" for path in folders]
    for path in folders:
        files.folder(path.name, path)
    assert records(*addresses, all_analyses=True) == expected_of_folders(*addresses)


@pytest.mark.parametrize("end", ["", "/"])
def test_folders_of_a_bucket(end, s3, folders, expected_of_folders):
    addresses = [f"{s3(path.name, path)}{end}" for path in folders]
    assert records(*addresses, all_analyses=True) == expected_of_folders(*addresses)


def test_files_of_a_bucket(s3, pair, expected):
    address = s3("files", pair[0].parent)
    addresses = [f"{address}/{path.name}" for path in pair]
    assert records(*addresses) == expected(*addresses)


def test_an_index_names_a_checkpoint(web, s3, folders):
    files, address = web
    files.folder("old", folders[0])
    local = folders[0] / "model.safetensors.index.json"
    for remote in (f"{address}/old/{local.name}", f"{s3('old', folders[0])}/{local.name}"):
        found = records(remote, folders[1])
        assert found == moved(records(local, folders[1]), [local.parent], [remote.rpartition("/")[0]])


def test_copies_in_a_listed_folder_are_told(s3, folders, tmp_path):
    path = tmp_path / "copies"
    shutil.copytree(folders[0], path)
    (path / "original").mkdir()
    (path / "original" / "params.json").write_text("{}")
    (path / "pytorch_model.bin").write_bytes(b"PK")
    address = s3("copies", path)
    found = open_checkpoint(address)
    assert found.oddities == tuple(o._replace(path=address) for o in open_checkpoint(str(path)).oddities)


def test_a_shard_that_is_missing_is_an_error_by_name(s3, bucket, folders):
    address = s3("torn", folders[0])
    bucket.delete_object(Bucket="weights", Key="torn/model-00002-of-00003.safetensors")
    found = open_checkpoint(address)
    assert found.errors[0].path == f"{address}/model-00002-of-00003.safetensors"
    assert "is missing" in str(found.errors[0])


def test_shards_in_inner_folders(s3, folders, tmp_path):
    path = tmp_path / "inner"
    shutil.copytree(folders[0], path)
    (path / "shards").mkdir()
    index = json.loads((path / "model.safetensors.index.json").read_text())
    for shard in set(index["weight_map"].values()):
        (path / shard).rename(path / "shards" / shard)
    index["weight_map"] = {name: f"shards/{shard}" for name, shard in index["weight_map"].items()}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(open_checkpoint(s3("inner", path)).tensors) == 13


def test_an_object_of_a_bucket_that_is_replaced_is_an_error(s3, bucket, pair):
    address = s3("replaced", pair[0].parent)
    comparison = compare(f"{address}/old.safetensors", f"{address}/new.safetensors", chunk_size=1 << 16, workers=1)
    bucket.put_object(Bucket="weights", Key="replaced/new.safetensors", Body=pair[0].read_bytes())
    assert {record["error"] for record in comparison if record["type"] == "error"} == {"ChangedFileError"}


@pytest.mark.parametrize(
    "address", ["s3://weights/none", "s3://weights/none/", "s3://weights/none.safetensors", "s3://other/a/"]
)
def test_what_is_not_in_a_bucket(address, s3):
    with pytest.raises(FormatError, match="there is no such object") as raised:
        open_checkpoint(address)
    assert raised.value.path == address.rstrip("/")


def test_an_endpoint_without_encryption_must_be_allowed(s3, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(UsageError, match="AWS_ALLOW_HTTP=true"):
        open_checkpoint("s3://weights/none")


@pytest.mark.parametrize("status", [401, 403])
def test_refusals_name_the_variables(status, web, monkeypatch):
    files, address = web
    files.faults.append(lambda handler, _: handler.refuse(status) or True)
    for name, value in (("AWS_ENDPOINT_URL", address), ("AWS_ALLOW_HTTP", "true"), ("HF_ENDPOINT", address)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "Acce55")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cret")
    monkeypatch.setenv("HF_TOKEN", "T0ken")
    for path, name in (("s3://weights/a.safetensors", "AWS_ACCESS_KEY_ID"), ("hf://org/model", "HF_TOKEN")):
        with pytest.raises(FormatError, match=name) as raised:
            open_checkpoint(path)
        assert not any(secret in str(raised.value) for secret in ("Acce55", "S3cret", "T0ken"))


@pytest.fixture
def hub(web, folders, monkeypatch):
    """A hub with two repositories, its files at a commit."""
    files, address = web
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "T0ken")
    for path in folders:
        siblings = [{"rfilename": str(file.relative_to(path))} for file in sorted(path.rglob("*"))]
        for revision in ("main", "refs%2Fpr%2F1"):
            told = json.dumps({"sha": "c0ffee", "siblings": siblings}).encode()
            files.content[f"/api/models/org/{path.name}/revision/{revision}"] = told
        files.folder(f"org/{path.name}/resolve/c0ffee", path)
    return files


@pytest.mark.parametrize("revision", ["", "@main", "@refs/pr/1", "@refs%2Fpr%2F1"])
def test_repositories_of_the_hub(revision, hub, folders, expected_of_folders):
    addresses = [f"hf://org/{path.name}{revision}" for path in folders]
    assert records(*addresses, all_analyses=True) == expected_of_folders(*addresses)
    assert {headers["authorization"] for _, headers in hub.requests} == {"Bearer T0ken"}


def test_a_file_of_the_hub(hub, folders):
    local, address = folders[1] / "model.safetensors", "hf://org/new/model.safetensors"
    assert records(address, folders[0]) == moved(records(local, folders[0]), [local], [address])


def test_a_hub_that_lists_nothing_is_asked_for_the_usual_names(hub, folders):
    hub.content = {path.replace("c0ffee", "main"): data for path, data in hub.content.items() if "/api/" not in path}
    hub.faults.append(lambda handler, path: path.startswith("/api/") and (handler.refuse(418) or True))
    assert len(open_checkpoint("hf://org/old").tensors) == 13


def test_what_is_not_on_the_hub(hub):
    with pytest.raises(FormatError, match="no such repository or revision"):
        open_checkpoint("hf://org/other")
    with pytest.raises(FormatError, match="no such object and no such folder"):
        open_checkpoint("hf://org/old/none/")
    with pytest.raises(UsageError, match="hf://ORGANIZATION/REPOSITORY"):
        open_checkpoint("hf://org")


@pytest.fixture
def google(web, tmp_path, monkeypatch):
    """A bucket of Google, as far as it is asked: objects and a listing of them."""
    files, address = web
    account = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")

    def listing(handler, path):
        if "list-type=2" not in handler.path:
            return False
        prefix = handler.path.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
        inside = [name for name in files.content if name.startswith(f"/weights/{prefix}")]
        rows = "".join(
            f"<Contents><Key>{escape(name[9:])}</Key><Size>{len(files.content[name])}</Size>"
            f"<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{escape(files.etag(name))}</ETag></Contents>"
            for name in inside
        )
        body = f"<ListBucketResult>{rows}</ListBucketResult>".encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    files.faults.append(listing)
    files.modified = "Mon, 01 Jan 2024 00:00:00 GMT"
    return files


def test_folders_of_google(google, folders, expected_of_folders):
    for path in folders:
        google.folder(f"weights/{path.name}", path)
    addresses = [f"gs://weights/{path.name}/" for path in folders]
    assert records(*addresses, all_analyses=True) == expected_of_folders(*addresses)


def test_a_folder_without_weights_is_told_what_was_looked_for(web):
    with pytest.raises(FormatError, match=r"no weights there \(looked for model.safetensors.index.json.*name the file"):
        open_checkpoint(f"{web[1]}/nothing/")


def test_torch_shards_are_refused(s3, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(UsageError, match="download it first"):
        open_checkpoint(s3("torch", tmp_path))


def test_a_page_for_every_name_is_no_configuration(web, pair):
    files, address = web
    files.content["/m/old.safetensors"] = pair[0].read_bytes()
    files.content["/page"] = b"<!doctype html><html></html>"
    files.faults.append(lambda handler, path: path not in files.content and (handler.serve("/page") or True))
    assert open_checkpoint(f"{address}/m/old.safetensors").oddities == ()


def test_one_refused_probe_does_not_hide_a_failing_one(web, pair):
    """A configuration that may be there but cannot be read is told; nothing is taken for absent that only failed."""
    files, address = web
    files.content["/m/old.safetensors"] = pair[0].read_bytes()
    files.faults.append(lambda handler, path: path.endswith("quantize_config.json") and (handler.refuse(400) or True))
    found = open_checkpoint(f"{address}/m/old.safetensors")
    assert found is not None
    assert threading.active_count() < 200
