"""Batch jobs read and write where the operator lets them, wherever links lead."""

import os
from pathlib import Path

import pytest

from hyperion.schema.errors import GateRefused, InvalidConfig
from hyperion.schema.resource import BatchJobSpec
from hyperion.store.batch_places import check_places, read_databases


@pytest.fixture
def dirs(tmp_path: Path) -> tuple[Path, Path]:
    """A directory that is allowed, and one that is not."""
    for name in ("allowed", "other"):
        (tmp_path / name).mkdir()
    return tmp_path / "allowed", tmp_path / "other"


def spec(source: Path | str, target: Path | str) -> BatchJobSpec:
    return BatchJobSpec(str(source), str(target), model="m@1")


def test_without_directories_no_file_may_be_used(dirs: tuple[Path, Path]) -> None:
    with pytest.raises(GateRefused, match="--batch-dirs"):
        check_places(spec(dirs[0] / "a.csv", dirs[0] / "b.csv"), (), ())


def test_places_outside_are_refused_also_behind_links(dirs: tuple[Path, Path]) -> None:
    allowed, other = dirs
    (allowed / "out.csv").symlink_to(other / "out.csv")
    (allowed / "away").symlink_to(other)
    for place in (other / "a.csv", allowed / ".." / "other" / "a.csv", allowed / "out.csv", allowed / "away" / "a.csv"):
        for one in (spec(place, allowed / "b.csv"), spec(allowed / "a.csv", place)):
            with pytest.raises(GateRefused, match="is not below"):
                check_places(one, [str(allowed)], ())


def test_a_directory_with_a_link_that_leads_out_is_refused(dirs: tuple[Path, Path]) -> None:
    allowed, other = dirs
    (allowed / "in").mkdir()
    (allowed / "in" / "a.csv").write_text("x\n1\n")
    (allowed / "in" / "b.csv").symlink_to("a.csv")
    given = spec(f"{allowed}/in", f"{allowed}/out/")
    assert check_places(given, [str(allowed)], ()).target.endswith("/out/")
    (allowed / "in" / "c.csv").symlink_to(other / "c.csv")
    with pytest.raises(GateRefused, match=r"c\.csv in there leads out"):
        check_places(given, [str(allowed)], ())


def test_what_a_link_within_stands_for_is_what_is_used(dirs: tuple[Path, Path]) -> None:
    allowed, _ = dirs
    (allowed / "deep").mkdir()
    (allowed / "out.csv").symlink_to(allowed / "deep" / "out.csv")
    found = check_places(spec(allowed / "a.csv", allowed / "out.csv"), [str(allowed)], ())
    assert found.target == os.path.realpath(allowed / "deep" / "out.csv")


def test_databases_are_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "databases.toml").write_text('lake = "sqlite:///a.db"\n')
    known = read_databases(str(tmp_path / "databases.toml"))
    assert check_places(spec("sql:lake", "sql:lake"), (), known).source == "sql:lake"
    with pytest.raises(GateRefused, match="lake"):
        check_places(spec("sql:lak", "sql:lake"), (), known)
    (tmp_path / "databases.toml").write_text("lake = 7\n")
    with pytest.raises(InvalidConfig, match="expected a URL"):
        read_databases(str(tmp_path / "databases.toml"))
