"""Content of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

import otpd
from otpd import mask
from otpd._wire import otp_pb2

REPOSITORY = Path(__file__).parents[3]


def test_the_messages_are_those_of_the_contract(tmp_path: Path) -> None:
    made = tmp_path / "otp.binpb"
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{REPOSITORY / 'proto'}", f"-I{well_known}", f"--descriptor_set_out={made}"]
    assert protoc.main(["protoc", *arguments, "otp/v1/otp.proto"]) == 0  # type: ignore[no-untyped-call]
    (contract,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    carried = descriptor_pb2.FileDescriptorProto()
    otp_pb2.DESCRIPTOR.CopyToProto(carried)
    # protoc adds names for JSON.
    for message in contract.message_type:
        drop_json_names(message)
    for message in carried.message_type:
        drop_json_names(message)
    assert carried == contract


def drop_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        drop_json_names(nested)


def test_the_version_is_that_of_the_server() -> None:
    manifest = (REPOSITORY / "Cargo.toml").read_text()
    assert f'version = "{otpd.__version__}"' in manifest


def test_everything_that_is_named_is_there() -> None:
    for name in otpd.__all__:
        assert hasattr(otpd, name)
    assert (Path(otpd.__file__).parent / "py.typed").exists()


def test_the_client_needs_neither_django_nor_what_the_fake_needs() -> None:
    heavy = {"django", "rest_framework", "phonenumbers", "idna", "jwt"}
    script = f"import sys, otpd; assert not {heavy!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("recipient", "masked"),
    [
        ("+79991234567", "+7999***4567"),
        ("8 (999) 123-45-67", "8999***4567"),
        ("ann@example.com", "a***@example.com"),
        ("ann@exam\nple.com", "a***@example.com"),
        ("+37212345", "+372***45"),
        ("+123", "+***"),
        ("Ann Smith, born 1990", "1***"),
        ("", "***"),
    ],
)
def test_recipients_are_masked_as_in_the_log_of_otpd(recipient: str, masked: str) -> None:
    assert mask(recipient) == masked
