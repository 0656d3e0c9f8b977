"""What is secret in an address or in the environment is printed nowhere, whatever happens."""

import json

import pytest

from diffai_stream.cli.process import run
from diffai_stream.errors import UsageError
from diffai_stream.storage.remote.addresses import is_remote, parse, shown

SECRETS = ("Pa55word", "S1gnature", "Fr4gment")


@pytest.fixture
def diffai(capfdbinary, monkeypatch):
    monkeypatch.setenv("DIFFAI_DEBUG", "1")

    def call(*arguments):
        status = run([*map(str, arguments)])
        out, err = capfdbinary.readouterr()
        told = (out + err).decode()
        assert not any(secret in told for secret in SECRETS), told
        return status, told

    return call


def secret(address):
    return address.replace("http://", "http://me:Pa55word@") + "?sig=S1gnature#Fr4gment"


@pytest.mark.parametrize("output", ["ndjson", "text", "json", "yaml", "html", "markdown", "junit-xml"])
def test_outputs_hold_no_secrets(output, served, diffai):
    status, told = diffai(*map(secret, served), "-o", output, "--stats")
    assert status == 1
    assert output == "junit-xml" or "old.safetensors" in told


@pytest.mark.parametrize("command", [("inspect",), ("compare",), ("profile", "--store", "/nowhere/at/all")])
def test_commands_of_one_address_hold_no_secrets(command, served, diffai):
    diffai(*command, secret(served[0]))


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 412, 416, 500])
def test_errors_hold_no_secrets(status, web, served, diffai):
    web[0].faults.append(lambda handler, _: handler.refuse(status) or True)
    assert diffai(*map(secret, served))[0] == 2


@pytest.mark.parametrize(
    "address",
    [
        "http://me:Pa55word@127.0.0.1:9/a.safetensors?sig=S1gnature",
        "http://me:Pa55word@[::1/a.safetensors?sig=S1gnature",
        "http://me:Pa55word@/a.safetensors?sig=S1gnature",
        "http://me:Pa55word@127.0.0.1:99999/a.safetensors?sig=S1gnature",
        "https://me:Pa55word@no-such-host.invalid/a.safetensors?sig=S1gnature",
        "http://me:Pa55word@127.0.0.1:9?sig=S1gnature",
        "http://me:Pa55word@127.0.0.1:9/?sig=S1gnature",
    ],
)
def test_wrong_addresses_hold_no_secrets(address, diffai):
    assert diffai(address, address)[0] == 2
    assert diffai("inspect", address)[0] == 2


def test_user_and_password_reach_the_server(web, served, diffai):
    diffai("inspect", secret(served[0]))
    path, headers = web[0].requests[0]
    assert path.endswith("?sig=S1gnature")
    assert headers["authorization"].startswith("Basic ")


def test_a_password_is_not_passed_on_to_another_server(web, served, diffai):
    files, address = web
    other = address.replace("127.0.0.1", "localhost")

    def elsewhere(handler, path):
        if handler.headers["Host"].startswith("localhost"):
            return False
        handler.send_response(302)
        handler.send_header("Location", f"{other}{path}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    files.faults.append(elsewhere)
    assert diffai("inspect", secret(served[0]))[0] == 0
    told = [headers.get("authorization") for _, headers in files.requests if headers["host"].startswith("localhost")]
    assert told
    assert not any(told)


def test_a_store_holds_no_secrets(served, diffai, tmp_path):
    diffai(*map(secret, served), "--store", tmp_path / "kept")
    diffai("profile", secret(served[0]), "--store", tmp_path / "profile")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert kept
    assert not any(word.encode() in kept for word in SECRETS)


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("http://u:p@host:80/a?b#c", "http://host:80/a"),
        ("HTTPS://host/a", "https://host/a"),
        ("s3://bucket/a?b#c", "s3://bucket/a?b#c"),
        ("hf://org/repo@rev/a", "hf://org/repo@rev/a"),
        ("./a://b", "./a://b"),
        ("file:///a", "file:///a"),
        ("http://a@b@host/x", "http://host/x"),
    ],
)
def test_addresses_are_shown_without_secrets(path, printed):
    assert shown(path) == printed


def test_what_names_no_host_is_refused():
    assert is_remote("s3:///key")
    with pytest.raises(UsageError, match="needs a bucket"):
        parse("s3:///key")


def test_reports_are_json(served, diffai):
    assert all(json.loads(line) for line in diffai(*map(secret, served), "-o", "ndjson")[1].splitlines())
