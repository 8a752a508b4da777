"""Token vectors in the forms that users have them in: arrays, a flat array, Arrow, Parquet, and fields of documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import FlatVectors, Index, InputError, ModelMismatchError, Rejects, Searcher, SourceError
from tansaku.indexer.read.vectors import FINGERPRINT_KEY, MODEL_KEY, ArrowVectors
from tansaku.indexer.table import given_vectors

from ..support.fakes import DIM, FakeEncoder, comparable, corpus, make_findable, noted_in, stored

DOCS = corpus(8)
IDS = [{"id": d["id"]} for d in DOCS]
VECTORS = [FakeEncoder().vectors(d["text"]) for d in DOCS]
LENGTHS = list(map(len, VECTORS))
FLAT = np.concatenate(VECTORS)


def column(matrices, inner=None, outer=pa.list_):
    """An Arrow column of lists of fixed-size lists of float32."""
    return pa.array([m.tolist() for m in matrices], outer(inner or pa.list_(pa.float32(), DIM)))


def table(documents=DOCS, matrices=VECTORS, encoder=None, **kinds):
    """Documents with their vectors as an Arrow table, which names the model if one is given."""
    made = pa.Table.from_pylist(documents).append_column("vectors", column(matrices, **kinds))
    if encoder is None:
        return made
    names = {MODEL_KEY: encoder.bundle.name, FINGERPRINT_KEY: encoder.bundle.fingerprint}
    return made.replace_schema_metadata(names)


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


@pytest.fixture
def parquet(tmp_path):
    """Writes a table to a file."""

    def write(made, name="docs.parquet", **options):
        pq.write_table(made, tmp_path / name, **options)
        return tmp_path / name

    return write


matrices = st.lists(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), max_size=4), min_size=1, max_size=6
)


class TestForms:
    @given(matrices, st.integers(1, 4), st.booleans(), st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_a_column_and_a_flat_array_are_the_matrices(self, rows, chunk, fixed, large):
        wanted = [np.array(row, np.float32).reshape(-1, 3) for row in rows]
        inner = pa.list_(pa.float32(), 3) if fixed else pa.list_(pa.float32())
        kind = pa.large_list(inner) if large else pa.list_(inner)
        chunks = [pa.array(rows[i : i + chunk], kind) for i in range(0, len(rows), chunk)]
        found = ArrowVectors(pa.chunked_array(chunks))
        flat = FlatVectors(np.concatenate(wanted), [len(row) for row in rows])
        assert len(found) == len(flat) == len(rows)
        for i, matrix in enumerate(wanted):
            assert np.array_equal(flat[i], matrix)
            for read in (found[i], list(found)[i]):
                assert np.array_equal(np.reshape(read, (-1, 3)), matrix)

    def test_all_give_the_same_index(self, db, parquet):
        Index.create_from_vectors(db, "wanted", DOCS, VECTORS)
        wanted = comparable(stored(db, "wanted"))
        given_as = {
            "flat": (DOCS, FlatVectors(FLAT, LENGTHS)),
            "offsets": (DOCS, FlatVectors(FLAT, offsets=[0, *np.cumsum(LENGTHS)])),
            "column": (DOCS, column(VECTORS)),
            "chunks": (DOCS, pa.chunked_array([column(VECTORS[:3]), column(VECTORS[3:])])),
            "field": ([{**d, "vectors": m} for d, m in zip(DOCS, VECTORS, strict=True)], "vectors"),
            "table": (table(), "vectors"),
            "parquet": (parquet(table(), row_group_size=3), "vectors"),
            "lists": (parquet(table(inner=pa.list_(pa.float32()), outer=pa.large_list), "b.parquet"), "vectors"),
        }
        for name, (documents, vectors) in given_as.items():
            Index.create_from_vectors(db, "t", documents, vectors, overwrite=True)
            assert comparable(stored(db)) == wanted, name

    def test_half_precision_is_read(self, db):
        halves = [m.astype(np.float16) for m in VECTORS]
        Index.create_from_vectors(db, "arrays", DOCS, halves)
        kind = pa.list_(pa.list_(pa.float16(), DIM))
        made = pa.Table.from_pylist(DOCS).append_column("v", pa.array([list(map(list, m)) for m in halves], kind))
        Index.create_from_vectors(db, "t", made, "v")
        assert comparable(stored(db)) == comparable(stored(db, "arrays"))

    def test_a_frame_of_pandas(self, db):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(DOCS).assign(vectors=VECTORS)
        Index.create_from_vectors(db, "t", frame, "vectors")
        assert stored(db)["token_count"].to_pylist() == LENGTHS
        assert "vectors" not in stored(db).column_names

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({}, "lengths or offsets"),
            ({"lengths": [1], "offsets": [0, 1]}, "lengths or offsets"),
            ({"lengths": [1, 1]}, "lengths end at 2, and the array has 3"),
            ({"offsets": [1, 3]}, "from 0"),
            ({"offsets": [0, 2, 1, 3]}, "ascend"),
            ({"lengths": ["a"]}, "whole numbers"),
        ],
    )
    def test_a_division_that_does_not_fit(self, options, named):
        with pytest.raises(InputError, match=named):
            FlatVectors(np.eye(3), **options)

    def test_a_flat_array_is_a_matrix(self):
        with pytest.raises(InputError, match=r"shape \(3,\)"):
            FlatVectors(np.ones(3), [3])


class TestBadInput:
    @pytest.mark.parametrize(
        ("documents", "vectors", "named"),
        [
            (DOCS, "vectors", "no field 'vectors' here"),
            (DOCS, 3, "vectors cannot be int"),
            (DOCS, iter(VECTORS), "vectors cannot be list_iterator"),
            ([{**DOCS[0], "v": None}, {**DOCS[1], "v": VECTORS[1]}], "v", "'d0' has no vectors"),
            ([{**DOCS[0], "v": "text"}], "v", "'d0' are not an array of numbers"),
            ([{**DOCS[0], "v": [VECTORS[0][0], [1.0]]}], "v", "'d0' are not an array of numbers"),
            (DOCS[:2], [VECTORS[0], np.vstack([VECTORS[1], np.zeros(DIM)])], "'d1' has vectors of zeros, as padding"),
            (DOCS[:2], [VECTORS[0], 2 * VECTORS[1]], "'d1' has vectors that are not of unit length; divide each"),
        ],
    )
    def test_is_named(self, db, documents, vectors, named):
        with pytest.raises(InputError, match=named):
            Index.create_from_vectors(db, "t", documents, vectors)
        assert not db.exists()

    def test_in_a_file_the_row_is_named(self, db, parquet, tmp_path):
        bad = table().to_pydict()
        bad["vectors"][1] = None
        bad["vectors"][2] = (3 * VECTORS[2]).tolist()
        bad["vectors"][4][0] = None
        schema = pa.schema(
            [*table().schema.remove(table().schema.get_field_index("vectors")), table().schema.field("vectors")]
        )
        path = parquet(pa.table(bad, schema=schema))
        with pytest.raises(InputError, match=r"docs\.parquet row 1.*'d1' has no vectors"):
            Index.create_from_vectors(db, "t", path, "vectors")
        with Rejects(tmp_path / "rejects") as rejects:
            made = Index.create_from_vectors(db, "t", path, "vectors", rejects=rejects)
        assert sorted(noted["record"]["id"] for noted in noted_in(rejects)) == ["d1", "d2", "d4"]
        assert len(made) == 5

    def test_another_length_than_the_model(self, db, parquet):
        narrow = table(matrices=[m[:, :8] for m in VECTORS], inner=pa.list_(pa.float32()))
        with pytest.raises(
            InputError, match=rf"row 0: the vectors of 'd0' have shape \(\d+, 8\), expected \(tokens, {DIM}\)"
        ):
            Index.create_from_vectors(db, "t", parquet(narrow), "vectors", encoder=FakeEncoder())


class TestModel:
    def test_that_the_file_names_belongs_to_the_index(self, db, parquet, monkeypatch):
        make_findable(monkeypatch, FakeEncoder())
        monkeypatch.setattr(given_vectors, "find_bundle", lambda _: Path("fake"))
        Index.create_from_vectors(db, "t", parquet(table(encoder=FakeEncoder())), "vectors")
        assert Index.open(db, "t").info().model == "fake"
        assert Searcher.open(db, "t", encoder=FakeEncoder()).search("3a9f")

    def test_that_is_not_known_here_is_an_error(self, db, parquet):
        path = parquet(table(encoder=FakeEncoder("far")))
        with pytest.raises(ModelMismatchError, match=r"docs\.parquet has vectors of the model 'far'.*TANSAKU_MODELS"):
            Index.create_from_vectors(db, "t", path, "vectors")
        assert not db.exists()

    def test_that_is_not_the_one_given_is_refused(self, db):
        with pytest.raises(ModelMismatchError, match=r"the model 'far'.*but the model given is 'fake'"):
            Index.create_from_vectors(db, "t", table(encoder=FakeEncoder("far")), "vectors", encoder=FakeEncoder())

    def test_files_of_two_models_are_refused(self, db, parquet):
        paths = [parquet(table(encoder=FakeEncoder(name)), f"{name}.parquet") for name in ("one", "two")]
        with pytest.raises(ModelMismatchError, match=r"one\.parquet has vectors of 'one'.*two\.parquet of 'two'"):
            Index.create_from_vectors(db, "t", paths, "vectors", encoder=FakeEncoder("one"))

    def test_further_vectors_must_be_of_the_index_model(self, db):
        Index.create_from_vectors(db, "t", DOCS[:3], VECTORS[:3], encoder=FakeEncoder())
        index = Index.open(db, "t")
        assert index.add(table(DOCS[3:], VECTORS[3:], FakeEncoder()), vectors="vectors").rows == 5
        with pytest.raises(ModelMismatchError, match="the model 'far'"):
            index.upsert(table(encoder=FakeEncoder("far")), vectors="vectors")
        assert index.upsert(table(), vectors="vectors").updated == 8

    def test_a_file_that_cannot_be_read(self, db, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
        with pytest.raises(SourceError, match=r"a\.parquet: cannot be read"):
            Index.create_from_vectors(db, "t", tmp_path / "a.parquet", "vectors")
