"""A version that an endpoint's rules do not fit gets no traffic, whatever it says of itself only once it runs."""

import asyncio
from pathlib import Path

import msgspec

from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import InputRule, SchemaRules
from hyperion.schema.resource import Endpoint, EndpointSpec, Log, Metadata, Rollout
from hyperion.store.database import no_fault
from hyperion.store.versions.push import Details, prepare_push, put_files
from tests.e2e.crash_history import NAME, Life

OUTPUTS = (TensorSpec("y", "FP32", (-1,)),)
TAKES = {version: Signature((TensorSpec(name, "FP32", (-1,)),), OUTPUTS) for version, name in (("1", "x"), ("2", "z"))}


class Platform(Life):
    """A life whose replicas say what they take as soon as they run."""

    def release(self, version: str, schema: SchemaRules | None, log: Log) -> None:
        folder = self.home / f"v{version}"
        folder.mkdir()
        (folder / "model.py").write_text(f"class Model:\n    number = {version}\n")
        pushed = prepare_push(NAME, version, folder, Details(git_commit="", created_at=1.0))
        put_files(self.blobs, pushed.sources)
        self.desk.models.put(pushed.manifest, actor="ann")
        spec = EndpointSpec(f"{NAME}@{version}", rollout=Rollout("all-at-once"), schema=schema, log=log)
        self.desk.apply([Endpoint(Metadata(NAME), spec)], actor="ann")
        asyncio.run(self._look_often())

    async def _look_often(self) -> None:
        for _ in range(8):
            await self.look()
            for name, replica in self.world.replicas.items():
                self.world.replicas[name] = msgspec.structs.replace(replica, signature=TAKES[replica.version])

    def reason(self) -> str:
        found = self.desk.get_rollout(NAME).state
        return "" if found is None else found.reason


def make(home: Path) -> Platform:
    home.mkdir(mode=0o700)
    platform = Platform(home, "", no_fault)
    platform.releases.lead(None)
    return platform


def test_a_version_whose_inputs_the_rules_do_not_fit_is_halted_before_any_traffic(tmp_path: Path) -> None:
    platform = make(tmp_path / "home")
    rules = SchemaRules(inputs={"x": InputRule(max=1.0)})
    platform.release("1", rules, Log())
    assert platform.state() == ("promoted", "1")
    platform.release("2", rules, Log())
    assert platform.state() == ("halted", "2")
    assert "version 2 cannot run: schema.inputs.x: the model has no such input; it takes z" in platform.reason()
    assert platform.world.serving == {"1": 1}


def test_a_version_without_a_field_that_is_to_be_kept_out_of_logs_is_halted(tmp_path: Path) -> None:
    platform = make(tmp_path / "home")
    for version in ("1", "2"):
        platform.release(version, None, Log(redact=("input:x",)))
    assert platform.state() == ("halted", "2")
    assert 'log.redact: the model has no input "x"' in platform.reason()
