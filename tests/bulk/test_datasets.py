# SPDX-License-Identifier: Apache-2.0
"""Datasets of the Hugging Face package, from wherever they come, are rows like all others."""

import json

import pytest

from pizza import bulk
from pizza.bulk import source_of
from pizza.bulk.census import take_census
from pizza.errors import ConfigError

pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
datasets = pytest.importorskip("datasets", reason="installed with the group 'optional'")

RECORDS = [
    {"id": "a", "prompt": "Eva has 4 hats.", "note": "first"},
    {"id": "b", "prompt": "Grüße, 世界", "note": ""},
    {"id": "c", "prompt": "Three.", "note": None},
]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No hub, and no cache of whoever runs the tests."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def made():
    return datasets.Dataset.from_list(RECORDS)


def digest(given, **options):
    return take_census(source_of(given, **options)).digest


def test_every_kind_of_dataset_has_the_rows_that_a_list_has(made, tmp_path):
    expected = digest(RECORDS)
    assert digest(made) == expected
    assert digest(made.with_format("numpy")) == expected
    # Streamed: read anew on every pass.
    assert digest(made.to_iterable_dataset()) == expected
    assert digest(datasets.IterableDataset.from_generator(lambda: iter(RECORDS))) == expected
    made.save_to_disk(str(tmp_path / "saved"))
    assert digest(tmp_path / "saved") == expected
    assert digest(f"hf:{tmp_path / 'saved'}") == expected


def test_a_dataset_is_loaded_by_its_name(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    assert digest(f"hf:{folder}") == digest(RECORDS)
    with pytest.raises(ConfigError, match=r"split 'test', cannot be loaded: .*\['train'\]"):
        source_of(f"hf:{folder}", split="test")
    with pytest.raises(ConfigError, match=r"nowhere.*cannot be loaded"):
        source_of(f"hf:{tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match="name the dataset"):
        source_of("hf:")


def test_one_of_several_splits_is_named(made, tmp_path):
    both = datasets.DatasetDict({"train": made, "test": made.select([0])})
    both.save_to_disk(str(tmp_path / "both"))
    for given in (both, tmp_path / "both"):
        assert take_census(source_of(given, split="test")).rows == 1
        with pytest.raises(ConfigError, match="none was named: train, test"):
            source_of(given)
        with pytest.raises(ConfigError, match="'dev' is none of them: train, test"):
            source_of(given, split="dev")


async def test_a_streamed_dataset_is_explained_row_by_row(made, served, tmp_path):
    rows = made.select([0, 2]).to_iterable_dataset()
    for _ in range(2):
        summary = await bulk.run(rows, tmp_path / "run", **served)
        assert (summary.done, summary.failed) == (2, 0)
    assert set(bulk.to_pandas(tmp_path / "run")["id"]) == {"a", "c"}
