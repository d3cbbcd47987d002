"""Generates the messages of the contract, so that no generated file is kept."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CONTRACT = "otp/v1/otp.proto"


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs protoc before a wheel is built, or the package is installed in place."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the messages and their types into src/otpd/_wire."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        # Inside the package in a source archive, at the top level in a checkout.
        protos = next(
            protos
            for protos in (root / "proto", root / "../../proto")
            if (protos / CONTRACT).is_file()
        )
        wire = root / "src/otpd/_wire"
        generate(protos, wire)
        build_data["artifacts"] += ["src/otpd/_wire/*.py", "src/otpd/_wire/*.pyi"]


def generate(protos: Path, wire: Path) -> None:
    """Generate otp_pb2.py and its stub from the contract in `protos`."""
    scratch = wire / "otp/v1"
    # The contract's own file name, without this package, so that it can be loaded together
    # with code that others generated from it.
    well_known = files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{protos}", f"-I{well_known}", CONTRACT]
    arguments += [f"--python_out={wire}", f"--pyi_out={wire}"]
    wire.mkdir(exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    status: int = protoc.main(arguments)  # type: ignore[no-untyped-call]
    if status != 0:
        message = f"protoc failed on {protos / CONTRACT}"
        raise RuntimeError(message)
    for module in scratch.iterdir():
        module.replace(wire / module.name)
    scratch.rmdir()
    scratch.parent.rmdir()
